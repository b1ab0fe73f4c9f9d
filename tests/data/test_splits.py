"""Division of items: a partition, near the wanted sizes, by class and by group, the same for the same seed."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.helpers import config, opened
from weft.config import SplitConfig
from weft.data import fold_count
from weft.data.splits import divide, divide_by_ratio, divide_into_folds
from weft.errors import DataError, UsageError

RATIOS = st.sampled_from([[0.7, 0.15, 0.15], [0.8, 0.2], [0.5, 0.5], [0.2] * 5, [1 / 3] * 3])
LABELS = st.lists(st.sampled_from("abcd"), min_size=1, max_size=120)


def rows_of(parts: list[list[int]]) -> list[int]:
    return sorted(row for part in parts for row in part)


@given(st.integers(0, 300), RATIOS, st.integers(0, 2**40))
def test_a_ratio_divides_every_item_once_to_within_one(length: int, ratio: list[float], seed: int) -> None:
    parts = divide_by_ratio(length, ratio, seed)
    assert rows_of(parts) == list(range(length))
    assert all(abs(len(part) - length * share) < 1 for part, share in zip(parts, ratio, strict=True))
    assert parts == divide_by_ratio(length, ratio, seed)


@given(LABELS, RATIOS, st.integers(0, 100))
def test_stratified_parts_have_their_share_of_each_class_to_within_one(
    labels: list[str], ratio: list[float], seed: int
) -> None:
    parts = divide_by_ratio(len(labels), ratio, seed, strata=labels)
    assert rows_of(parts) == list(range(len(labels)))
    total = Counter(labels)
    for part, share in zip(parts, ratio, strict=True):
        counts = Counter(labels[row] for row in part)
        assert all(abs(counts[label] - share * total[label]) < 1 + 1e-9 for label in total)
        assert abs(len(part) - share * len(labels)) <= len(total)


@given(st.lists(st.integers(0, 15), min_size=1, max_size=120), RATIOS, st.integers(0, 100), st.booleans())
def test_a_group_is_never_divided(groups: list[int], ratio: list[float], seed: int, stratified: bool) -> None:
    strata = [group % 3 for group in groups] if stratified else None
    parts = divide_by_ratio(len(groups), ratio, seed, strata=strata, groups=groups)
    assert rows_of(parts) == list(range(len(groups)))
    owners = [{groups[row] for row in part} for part in parts]
    assert sum(map(len, owners)) == len(set(groups))
    assert parts == divide_by_ratio(len(groups), ratio, seed, strata=strata, groups=groups)


def test_groups_of_even_size_come_near_the_ratio() -> None:
    groups = [row // 4 for row in range(400)]
    strata = [group % 2 for group in groups]
    parts = divide_by_ratio(400, [0.7, 0.15, 0.15], 5, strata=strata, groups=groups)
    for part, share in zip(parts, [0.7, 0.15, 0.15], strict=True):
        assert abs(len(part) - 400 * share) <= 8
        ones = sum(strata[row] for row in part)
        assert abs(ones - len(part) / 2) <= 8


@given(LABELS, st.integers(2, 6), st.integers(0, 100), st.booleans())
def test_folds_hold_every_item_once(labels: list[str], folds: int, seed: int, stratified: bool) -> None:
    parts = divide_into_folds(len(labels), folds, seed, strata=labels if stratified else None)
    assert rows_of(parts) == list(range(len(labels)))
    for label in set(labels) if stratified else ():
        counts = [sum(labels[row] == label for row in part) for part in parts]
        assert max(counts) - min(counts) <= 1


def test_another_seed_divides_otherwise() -> None:
    assert divide_by_ratio(50, [0.5, 0.5], 1) != divide_by_ratio(50, [0.5, 0.5], 2)


def test_cross_validation_keeps_the_same_test_items_aside_in_every_fold() -> None:
    split = SplitConfig.model_validate({"folds": 4, "test": 0.2, "stratified": True})
    labels = [row % 3 for row in range(90)]
    parts = [
        divide(90, split, seed=1, fold=fold, base=Path(), cases=[""] * 90, strata=labels, groups=None)
        for fold in (1, 2, 3, 4)
    ]
    assert len({tuple(part["test"]) for part in parts}) == 1
    validated = rows_of([part["validation"] for part in parts])
    assert sorted(validated + parts[0]["test"]) == list(range(90))
    for part in parts:
        assert rows_of(list(part.values())) == list(range(90))


IRIS = {"sklearn.datasets.load_iris": {"return_X_y": True}}


def test_the_division_follows_the_splits_own_seed_before_the_experiments() -> None:
    def cases(experiment: int, own: int | None = None) -> list[str]:
        split = {"ratio": [0.8, 0.2], "seed": own}
        return opened(Path(), seed=experiment, arrays=IRIS, split=split).splits["train"].cases

    assert cases(1) != cases(2)
    assert cases(1, own=7) == cases(2, own=7)


def test_the_record_tells_which_case_is_where() -> None:
    data = opened(Path(), fold=2, arrays=IRIS, split={"folds": 3, "stratified": True})
    record = json.loads(json.dumps(data.record()))
    assert sorted(map(int, record["splits"]["train"] + record["splits"]["validation"])) == list(range(150))
    assert record["fold"] == 2
    assert data.fold_count == 3
    assert sorted(data.summary()["splits"]["validation"]["class_counts"].values()) == [16, 17, 17]


@pytest.mark.parametrize("fold", [None, 0, 4])
def test_a_fold_must_be_chosen_among_those_there_are(fold: int | None) -> None:
    with pytest.raises((DataError, UsageError), match="fold"):
        opened(Path(), fold=fold, arrays=IRIS, split={"folds": 3})


def test_a_fold_without_folds_is_an_error() -> None:
    with pytest.raises(DataError, match="fold is 1"):
        opened(Path(), fold=1, arrays=IRIS)


def test_a_split_that_leaves_nothing_is_an_error() -> None:
    with pytest.raises(DataError, match="leaves nothing for validation"):
        opened(Path(), arrays={"sklearn.datasets.make_blobs": {"n_samples": 2}}, split={"ratio": [0.9, 0.1]})


def test_a_stratified_split_of_numbers_is_an_error() -> None:
    with pytest.raises(DataError, match="stratified"):
        opened(
            Path(),
            arrays={"sklearn.datasets.load_diabetes": {"return_X_y": True}},
            split={"ratio": [0.8, 0.2], "stratified": True},
            more={"target_kind": "number"},
        )


def test_a_grouped_split_without_groups_is_an_error() -> None:
    with pytest.raises(DataError, match="grouped"):
        opened(Path(), arrays=IRIS, split={"ratio": [0.8, 0.2], "grouped": True})


def test_split_files_are_picked_by_fold_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    folder = tmp_path / "splits"
    folder.mkdir()
    for number in range(12):
        content = {"train": [row for row in range(150) if row != number], "validation": [str(number)]}
        (folder / f"SPLIT_{number}.json").write_text(json.dumps(content))
    (folder / "notes.json").write_text("[]")
    for fold in (1, 3, 12):
        data = opened(tmp_path, fold=fold, arrays=IRIS, split={"files": "splits"})
        assert data.splits["validation"].cases == [str(fold - 1)]
        assert len(data.splits["train"]) == 149
    assert fold_count(config(arrays=IRIS, split={"files": "splits"}), tmp_path) == 12


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"train": ["case7x"]}', "'case7x'"),
        ('{"train": [1], "validation": [1]}', "in train and in validation"),
        ('{"train": [1], "valid": [2]}', "the splits train, valid"),
        ('{"train": [1000]}', "1000"),
        ('{"train": 5}', "no split file"),
        ("{", "JSON"),
    ],
)
def test_a_wrong_split_file_is_told_with_its_name(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "SPLIT_0.json").write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        opened(tmp_path, arrays=IRIS, split={"files": "."})
    assert "SPLIT_0.json" in str(caught.value)


def test_given_test_data_stay_what_they_are(tmp_path: Path) -> None:
    for name, length in (("train", 20), ("test", 5)):
        np.save(tmp_path / f"{name}.npy", np.arange(length * 2.0).reshape(length, 2))
    pairs = {name: {"inputs": f"{name}.npy"} for name in ("train", "test")}
    data = opened(tmp_path, arrays=pairs, split={"ratio": [0.75, 0.25]})
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 15, "validation": 5, "test": 5}


def test_split_files_cannot_use_a_name_that_several_items_have(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("name,x,y\na,1,0\na,2,1\nb,3,0\n")
    (tmp_path / "splits").mkdir()
    fields = {
        "table": {"file": "data.csv"},
        "inputs": ["x"],
        "targets": ["y"],
        "case": "name",
        "split": {"files": "splits"},
    }
    (tmp_path / "splits" / "one.json").write_text('{"train": ["a"], "validation": ["b"]}')
    with pytest.raises(DataError, match="names 'a'") as caught:
        opened(tmp_path, **fields)
    assert "several items have the same name" in caught.value.hint
    (tmp_path / "splits" / "one.json").write_text('{"train": [0, 1], "validation": [2]}')
    assert len(opened(tmp_path, **fields).splits["train"]) == 2


def test_the_record_tells_the_group_of_each_case(tmp_path: Path) -> None:
    rows = [f"s{row},p{row // 2},{row},{row % 2}" for row in range(12)]
    (tmp_path / "t.csv").write_text("\n".join(["scan,patient,x,y", *rows]) + "\n")
    given = {"inputs": ["x"], "targets": ["y"], "case": "scan", "group": "patient"}
    split = {"ratio": [0.5, 0.25, 0.25], "grouped": True}
    record = opened(tmp_path, table={"file": "t.csv"}, split=split, **given).record()
    for name, cases in record["splits"].items():
        assert record["groups"][name] == [f"p{int(case[1:]) // 2}" for case in cases]
