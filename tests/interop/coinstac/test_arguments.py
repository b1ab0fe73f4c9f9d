"""Arguments: which one counts, and what is refused. Splits and datasets that follow from them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.errors import ConfigError, DataError, UsageError
from weft.interop.coinstac import COINNDataHandle, COINNDataset
from weft.interop.coinstac.arguments import DEFAULTS, cached_arguments
from weft.interop.coinstac.config.keys import AGG_Engine, Key, Mode, Phase
from weft.interop.coinstac.splitting import folds, prepare_splits

TRAIN = {"mode": "train"}


def test_the_inputspec_comes_before_the_constructor_and_that_before_the_default() -> None:
    cache = cached_arguments({"batch_size": 16, "epochs": 5, "hidden": 7}, {**TRAIN, "epochs": 9, "data_dir": "d"})
    assert (cache["batch_size"], cache["epochs"], cache["hidden"], cache["data_dir"]) == (16, 9, 7, "d")
    assert cache["learning_rate"] == DEFAULTS["learning_rate"] == 0.001
    assert (cache["patience"], tuple(cache["split_ratio"])) == (5, (0.6, 0.2, 0.2))


def test_none_says_nothing() -> None:
    cache = cached_arguments({"epochs": None, "batch_size": 3}, {**TRAIN, "batch_size": None})
    assert (cache["epochs"], cache["batch_size"]) == (21, 3)


def test_arguments_of_a_task_and_of_an_engine_count_before_plain_ones() -> None:
    given = {
        **TRAIN, "task_id": "fs", "agg_engine": "powerSGD", "epochs": 2, "learning_rate": 0.1, "labels": "plain",
        "fs_args": {"epochs": 3}, "powerSGD_args": {"learning_rate": 0.2},
        "fs_data_conf": {"labels": "conf", "more": 1},
    }  # fmt: skip
    cache = cached_arguments({}, given)
    assert (cache["epochs"], cache["learning_rate"], cache["labels"], cache["more"]) == (3, 0.2, "plain", 1)


@pytest.mark.parametrize("name", ["task_name", "computation_id"])
def test_a_task_may_be_named_as_in_early_releases(name: str) -> None:
    assert cached_arguments({name: "fsv"}, TRAIN)["task_id"] == "fsv"
    assert cached_arguments({name: "fsv"}, {**TRAIN, "task_id": "other"})["task_id"] == "other"


@pytest.mark.parametrize(
    ("own", "spec", "folds_count", "ratio"),
    [
        ({"split_ratio": [0.8, 0.1, 0.1]}, {"num_folds": 5}, 5, None),
        ({"num_folds": 5}, {"split_ratio": [0.8, 0.1, 0.1]}, None, [0.8, 0.1, 0.1]),
        ({"num_folds": 5}, {}, 5, None),
        ({}, {"num_folds": 4}, 4, None),
    ],
)
def test_folds_and_a_ratio_exclude_one_another(own: Any, spec: Any, folds_count: Any, ratio: Any) -> None:
    cache = cached_arguments(own, {**TRAIN, **spec})
    assert (cache["num_folds"], cache["split_ratio"]) == (folds_count, ratio)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "mode is None"),
        ({"mode": "training"}, "mode is 'training'"),
        ({**TRAIN, "num_folds": 3, "split_ratio": [0.5, 0.5]}, "the inputspec gives both num_folds"),
        ({**TRAIN, "num_folds": 2}, "num_folds is 2"),
        ({**TRAIN, "split_ratio": [0.5, 0.2]}, "split_ratio is"),
        ({**TRAIN, "epochs": 0}, "epochs is 0"),
        ({**TRAIN, "batch_size": "8"}, "batch_size is '8'"),
        ({**TRAIN, "task_id": "../up"}, "task_id is '../up'"),
        ({**TRAIN, "gpus": [-1]}, "gpus is"),
        ({**TRAIN, "precision_bits": 8}, "precision_bits is 8"),
        ({**TRAIN, "metric_direction": "up"}, "metric_direction is 'up'"),
        ({**TRAIN, "nn_task_args": [1]}, "nn_task_args is"),
    ],
)
def test_values_that_cannot_be_are_told(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        cached_arguments({}, given)


def test_an_unlimited_number_of_files_is_a_number_that_json_knows() -> None:
    assert json.loads(json.dumps(cached_arguments({"load_limit": float("inf")}, TRAIN)))["load_limit"] > 10**9


def test_words_are_texts() -> None:
    assert json.dumps({Key.TRAIN_LOG: Phase.SUCCESS, "mode": Mode.TRAIN}) == (
        '{"train_log": "success", "mode": "train"}'
    )
    assert f"{Key.GLOBAL_TEST_METRICS}.csv" == "global_test_metrics.csv"
    assert Mode("test") == "test"
    assert AGG_Engine.rankDAD == "rankDAD"


# --- splits -----------------------------------------------------------------------------------------------------------


def handle_of(folder: Path, files: int = 20, **given: Any) -> COINNDataHandle:
    base = folder / "base"
    (base / "data").mkdir(parents=True)
    for number in range(files):
        (base / "data" / f"file{number:02d}.txt").write_text("1")
    state = {"baseDirectory": str(base), "outputDirectory": str(folder / "out"), "clientId": "local3"}
    cache = cached_arguments({}, {**TRAIN, "data_dir": "data", **given})
    return COINNDataHandle(cache=cache, input={}, state=state)


def splits_of(handle: COINNDataHandle) -> list[dict[str, list[str]]]:
    names = prepare_splits(handle)
    return [json.loads((Path(handle.cache["split_dir"]) / name).read_text()) for name in names.values()]


@pytest.mark.parametrize(
    ("ratio", "sizes"), [([0.6, 0.2, 0.2], (12, 4, 4)), ([0.75, 0.25], (15, 0, 5)), ([1.0], (20, 0, 0))]
)
def test_a_ratio_divides_all_files(tmp_path: Path, ratio: list[float], sizes: tuple[int, int, int]) -> None:
    (split,) = splits_of(handle_of(tmp_path, split_ratio=ratio))
    assert tuple(len(split[name]) for name in ("train", "validation", "test")) == sizes
    assert sorted(file for files in split.values() for file in files) == [f"file{n:02d}.txt" for n in range(20)]


def test_the_same_seed_divides_alike_and_another_does_not(tmp_path: Path) -> None:
    first, again, other = (
        splits_of(handle_of(tmp_path / str(place), seed=seed)) for place, seed in enumerate((1, 1, 2))
    )
    assert first == again != other


def test_a_site_that_only_tests_does_so_with_all_its_files(tmp_path: Path) -> None:
    (split,) = splits_of(handle_of(tmp_path, mode="test"))
    assert (len(split["train"]), len(split["test"])) == (0, 20)


@given(st.integers(3, 30), st.integers(3, 8))
def test_folds_test_and_validate_on_each_file_once(files: int, count: int) -> None:
    names = [f"f{number}" for number in range(files)]
    if files < count:
        with pytest.raises(DataError, match="are too few for num_folds"):
            folds(names, count, 0)
        return
    found = folds(names, count, 0)
    for part in ("test", "validation"):
        assert sorted(name for split in found for name in split[part]) == sorted(names)
    for split in found:
        assert sorted([*split["train"], *split["validation"], *split["test"]]) == sorted(names)


def test_more_than_nine_split_files_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    handle = handle_of(tmp_path, split_dir="mine")
    folder = tmp_path / "base" / "mine"
    folder.mkdir()
    for number in range(12):
        (folder / f"SPLIT_{number}.json").write_text(json.dumps({"train": [f"file{number:02d}.txt"]}))
    for _ in range(2):
        assert [split["train"] for split in splits_of(handle)] == [[f"file{number:02d}.txt"] for number in range(12)]


@pytest.mark.parametrize(
    ("given", "content", "message"),
    [
        ({"split_dir": "nowhere"}, None, "split_dir is 'nowhere', but there is no folder"),
        ({"split_dir": "../other"}, None, "split_dir is '../other', which leaves"),
        ({"split_dir": "/etc"}, None, "split_dir is '/etc', which leaves"),
        ({"split_dir": "mine"}, "", "holds no JSON file"),
        ({"split_dir": "mine"}, "[1]", "is no split file"),
        ({"split_dir": "mine"}, '{"training": []}', "is no split file"),
        ({"split_dir": "mine"}, '{"train": ', "cannot be read as JSON"),
        ({"data_dir": "nowhere"}, None, "data_dir of site local3 is 'nowhere', but there is no folder"),
        ({"data_dir": "../../etc"}, None, "data_dir is '../../etc', which leaves"),
        ({"data_dir": None}, None, "site local3 has no files: the inputspec has no data_dir"),
        ({"split_files": ["../../a.json"]}, None, "split_files is .* which leaves"),
    ],
)
def test_splits_that_cannot_be_made_are_told(tmp_path: Path, given: Any, content: str | None, message: str) -> None:
    handle = handle_of(tmp_path, **given)
    if content is not None:
        (tmp_path / "base" / "mine").mkdir()
        (tmp_path / "base" / "mine" / ("a.json" if content else "a.txt")).write_text(content)
    with pytest.raises((ConfigError, DataError), match=message):
        prepare_splits(handle)


class Labels(COINNDataHandle):
    """Files as pandas names them."""

    def list_files(self) -> list[Any]:
        return [np.str_("a"), np.int64(7), *self.cache["names"]]


def test_names_of_files_may_come_from_numpy(tmp_path: Path) -> None:
    plain = handle_of(tmp_path, names=["b"], split_ratio=[1.0])
    (split,) = splits_of(Labels(cache=plain.cache, input={}, state=plain.state))
    assert sorted(map(str, split["train"])) == ["7", "a", "b"]
    plain.cache["names"] = [Path("c")]
    with pytest.raises(DataError, match="list_files named .*, a PosixPath"):
        prepare_splits(Labels(cache=plain.cache, input={}, state=plain.state))


# --- datasets ---------------------------------------------------------------------------------------------------------


def dataset_of(folder: Path, **cache: Any) -> COINNDataset:
    state = {"baseDirectory": str(folder), "outputDirectory": str(folder / "out"), "clientId": "local1"}
    return COINNDataset(mode="train", cache=cache, input={}, state=state, limit=3)


def test_a_dataset_finds_its_folders_in_both_styles(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path, data_dir="images")
    assert dataset.path("local1", "data_dir") == str(tmp_path / "images")
    assert dataset.path(cache_key="data_dir") == str(tmp_path / "images")
    assert dataset.path("baseDirectory", "data_dir") == str(tmp_path / "images")
    assert dataset.path("outputDirectory") == str(tmp_path / "out")
    assert dataset.path() == str(tmp_path)
    assert dataset.inputspecs["local1"]["data_dir"] == "images"


def test_a_dataset_sees_its_own_site_only(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"path\('local2'\): this is site local1"):
        dataset_of(tmp_path).path("local2", "data_dir")
    with pytest.raises(ConfigError, match="data_dir is '../secret', which leaves"):
        dataset_of(tmp_path, data_dir="../secret").path("local1", "data_dir")


def test_files_are_indexed_up_to_the_limit(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path)
    dataset.add(files=["a", "b", "c", "d"])
    assert dataset.indices == [["a"], ["b"], ["c"]]


def test_a_loader_for_ones_own_loop_leaves_out_missing_items() -> None:
    class Some(COINNDataset):
        def __getitem__(self, index: int) -> Any:
            return None if index == 1 else {"x": float(index)}

    dataset = Some(cache={})
    dataset.add(files=["a", "b", "c"])
    handle = COINNDataHandle(
        cache={"batch_size": 3, "learning_rate": 1}, dataloader_args={"test": {"drop_last": False}}
    )
    (batch,) = handle.get_loader("test", dataset=dataset)
    assert batch["x"].tolist() == [0.0, 2.0]


def test_an_unknown_argument_of_a_loader_is_told() -> None:
    handle = COINNDataHandle(cache={}, dataloader_args={"train": {"batch_sampler": []}})
    with pytest.raises(UsageError, match="dataloader_args of train has 'batch_sampler'"):
        handle.loader_arguments("train")
