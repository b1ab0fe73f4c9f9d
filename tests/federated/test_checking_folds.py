"""`weft check` of a study with folds looks at all of them, as far as they differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.federated.checked import columns, serious, study, told
from weft.federated.checking import check

FOLDS: dict[str, Any] = {"dataset__split": {"folds": 4}, "training__metrics": ["accuracy"]}


def rare(*kinds: str) -> dict[str, Any]:
    """A table of the south in which these kinds occur once each, in the first rows."""
    table = columns("south")
    table["kind"] = np.array([*kinds, *table["kind"][len(kinds) :]])
    return table


def test_a_class_that_another_fold_leaves_out_whole_is_an_error_with_the_fold(tmp_path: Path) -> None:
    """Two classes of a single item each: each is in no training split of the fold that scores it."""
    three: dict[str, Any] = {"model__MLP": {"in_features": 3, "out_features": 4, "hidden": [8]}}
    report = check(study(tmp_path, {"south": rare("kind 2", "kind 3")}, **FOLDS, **three))
    missing = [one for one in told(report, "missing class") if one.severity == "error"]
    assert len(missing) == 2
    by_fold = {one.where: one.message for one in missing}
    for fold in (1, 2, 3, 4):
        alone = check(study(tmp_path, {"south": rare("kind 2", "kind 3")}, fold=fold, **FOLDS, **three))
        errors = [one for one in told(alone, "missing class") if one.severity == "error"]
        told_here = any(f"fold {fold}:" in where for where in by_fold) or (fold == 1 and "all sites: train" in by_fold)
        assert bool(errors) == told_here
    assert any(where.startswith("fold ") for where in by_fold)


def test_what_several_folds_have_alike_is_told_once_with_their_numbers(tmp_path: Path) -> None:
    """Of 42 items folds 1 and 2 train on 31, folds 3 and 4 on 32."""
    tables = {"north": columns("north", 42)}
    report = check(study(tmp_path, tables, **FOLDS, training__batch_size=34))
    where = {one.message[:54]: one.where for one in told(report, "batch size")}
    assert where == {
        "the batch size is 34, but there are 31 training items:": "north: training.batch_size",
        "the batch size is 34, but there are 32 training items:": "folds 3, 4: north: training.batch_size",
    }
    report = check(study(tmp_path, tables, **FOLDS, federation__strategy={"FedAvg": {"steps_per_round": 99}}))
    assert len(told(report, "rounds")) == 1  # in all folds alike


def test_what_time_leaves_out_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = study(tmp_path, **FOLDS)
    monkeypatch.setattr("weft.actions.checking.checks._SECONDS", 1e-9)
    assert check(file).left_out["other folds"] == (
        "of fold 2 only how items are divided, classes and batches were looked at, of folds 3 to 4 nothing, as time "
        "was short: add --thorough"
    )
    assert "nothing" not in check(file, thorough=True).left_out["other folds"]


def test_folds_of_clean_data_find_nothing(tmp_path: Path) -> None:
    split = {"folds": 3, "stratified": True}
    report = check(study(tmp_path, **FOLDS | {"dataset__split": split}))
    assert not serious(report)
    assert not [one for one in report.findings if one.where.startswith("fold")]
