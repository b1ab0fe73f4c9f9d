"""What differs between runs: found where it is, and nothing invented."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.errors import RunDirectoryError
from weft.runs import RunDirectory, RunRecord, causes, changed_patches, data_change, read_record
from weft.runs.differences import changed_weft_files, configuration_differences, plain_components, unlike

EXPERIMENT: dict[str, Any] = {
    "name": "one",
    "seed": 1,
    "dataset": {"folder": "data", "transforms": {"base": []}},
    "training": {"task": "classification", "optimizer": {"AdamW": {"lr": 0.001}}, "metrics": ["accuracy"]},
}
PROVENANCE: dict[str, Any] = {
    "fingerprint": "a" * 64,
    "versions": {"python": "3.11.7", "weft": "0.1.0", "torch": "2.13.0"},
    "weft_code": "c" * 64,
    "packages": {"numpy": "2.0.0", "torch": "2.13.0"},
    "git": {"commit": "d" * 40, "branch": "main", "dirty": False},
    "run_threads": 2,
    "data": {
        "digest": "e" * 64,
        "files": [{"path": "a.npy", "size": 1, "sha256": "1"}, {"path": "b.npy", "sha256": "2"}],
    },
}
SPLITS: dict[str, Any] = {"splits": {"train": ["a", "b", "c"], "test": ["d"]}}


def make(path: Path, patch: str = "x = 1\n", **changes: Any) -> RunDirectory:
    with RunDirectory.create(path) as run:
        run.experiment_file.write_text(json.dumps(EXPERIMENT | changes.get("experiment", {})))
        run.write_json(run.provenance_file, PROVENANCE | changes.get("provenance", {}))
        run.write_json(run.splits_file, changes.get("splits", SPLITS))
        (run.code / "patches").mkdir(parents=True)
        (run.code / "patches" / "own.py").write_text(patch)
    return run


def test_equal_runs_have_no_causes(tmp_path: Path) -> None:
    assert list(causes(make(tmp_path / "a").path, make(tmp_path / "b").path)) == []


OTHER_GIT = {"commit": "f" * 40, "branch": "main", "dirty": True}
OTHER_OPTIMIZER = {"task": "classification", "optimizer": {"SGD": {"lr": 0.1}}}
OTHER_SPLITS = {"splits": {"train": ["a", "b", "d"], "test": ["c"]}}


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"experiment": {"seed": 2}}, "configuration seed: 1 and 2"),
        ({"experiment": {"training": OTHER_OPTIMIZER}}, "configuration training.optimizer.SGD.lr: None and 0.1"),
        ({"provenance": {"packages": {"numpy": "2.1.0", "torch": "2.13.0"}}}, "packages.numpy: 2.0.0 and 2.1.0"),
        ({"provenance": {"run_threads": 1}}, "run_threads: 2 and 1"),
        ({"provenance": {"gpu": [{"name": "H200"}]}}, "gpu: None and "),
        ({"provenance": {"fingerprint": "b" * 64}}, "fingerprint: aaaaaaaaaaaaaaaa… and bbbbbbbbbbbbbbbb…"),
        ({"provenance": {"git": OTHER_GIT}}, "code git.dirty: False and True"),
        ({"patch": "x = 2\n"}, "code: own.py (+1 −1 lines)"),
        ({"splits": OTHER_SPLITS}, "data: 2 cases are in another split: c: train, then test"),
    ],
)
def test_every_difference_is_a_cause(tmp_path: Path, changes: dict[str, Any], cause: str) -> None:
    found = list(causes(make(tmp_path / "a").path, make(tmp_path / "b", **changes).path))
    assert any(one.startswith(cause) for one in found), found


def test_files_of_the_data_are_told_one_by_one(tmp_path: Path) -> None:
    other = {"digest": "f" * 64, "files": [{"path": "a.npy", "sha256": "9"}, {"path": "c.npy", "sha256": "3"}]}
    runs = [make(tmp_path / "a"), make(tmp_path / "b", provenance={"data": other})]
    change = data_change(*(read_record(run.path) for run in runs))
    assert (change.same, change.changed, change.added, change.removed) == (False, ["a.npy"], ["c.npy"], ["b.npy"])
    assert change.any


def test_cases_that_one_run_learned_from_and_another_holds_out_are_counted() -> None:
    divisions = (
        [{"splits": {"train": ["a", "b"], "test": ["c"]}}],
        [{"splits": {"train": ["a", "c"], "test": ["b", "x"]}}],
    )
    first, second = (RunRecord(Path(), divisions=each) for each in divisions)
    change = data_change(first, second)
    assert (change.leaked, change.added_cases, change.removed_cases) == (2, 1, 0)
    assert data_change(first, first).any is False


def test_names_of_other_data_are_no_moved_cases() -> None:
    first, second = (
        RunRecord(
            Path(), provenance={"data": {"digest": digest, "files": []}}, divisions=[{"splits": {split: ["0", "1"]}}]
        )
        for digest, split in (("a", "train"), ("b", "test"))
    )
    change = data_change(first, second)
    assert (change.same, change.moved, change.leaked) == (False, [], 0)


def test_patches_are_compared_line_by_line(tmp_path: Path) -> None:
    first, second = make(tmp_path / "a", "a\nb\nc\n"), make(tmp_path / "b", "a\nB\nc\nd\n")
    (second.code / "patches" / "new.py").write_text("password=hunter2\n")
    new, own = changed_patches(first.path, second.path)
    assert (own.name, own.added, own.removed) == ("own.py", 2, 1)
    assert "-b" in own.diff.splitlines()
    assert "+B" in own.diff.splitlines()
    assert (new.name, new.added, new.removed) == ("new.py", 1, 0)
    assert "hunter2" not in new.diff


def test_secrets_in_differing_settings_are_masked() -> None:
    found = unlike([{"run": {"password": "hunter2", "url": "https://me:pw@x.org"}}, {"run": {"password": "other"}}])
    assert [one.values for one in found] == [["***", "***"], ["https://***@x.org", None]]


def test_a_component_without_arguments_is_its_name() -> None:
    assert (
        configuration_differences(
            [
                RunRecord(Path(), experiment={"task": form, "metrics": [form], "none": []})
                for form in ("Dice", {"Dice": {}}, {"Dice": None})
            ]
        )
        == []
    )
    assert plain_components({"a": {"b": {}}, "c": 1}) == {"a": "b", "c": 1}


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1, max_size=2), inner, max_size=3)
    ),
    max_leaves=10,
)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.text("abc", min_size=1, max_size=2), VALUES, max_size=4))
def test_nothing_differs_from_itself(entry: dict[str, Any]) -> None:
    assert unlike([entry, json.loads(json.dumps(entry)), entry]) == []


def test_damage_is_named(tmp_path: Path) -> None:
    run = make(tmp_path / "a")
    (run.code / "weft.zip").write_bytes(b"no archive")
    with pytest.raises(RunDirectoryError, match="copy of Weft"):
        changed_weft_files(run.path, run.path)
    run.experiment_file.write_text("a: [")
    with pytest.raises(RunDirectoryError, match=r"experiment\.yaml cannot be read"):
        read_record(run.path)
