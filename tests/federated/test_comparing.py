"""What a study is compared with is the same study with one site: its pretraining and the rules of its scores hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.federated.lab import study
from weft.federated.study import simulate

pytest.importorskip("sklearn")


def _compared(out: Path, **changes: Any) -> dict[str, Any]:
    comparison: dict[str, Any] = simulate(study(**changes), out=out, compare=True).result["comparison"]
    return comparison


def test_one_place_and_each_site_alone_begin_with_pretraining_where_the_study_does(tmp_path: Path) -> None:
    """With a learning rate of zero, what comes out is what training began with."""
    settings: dict[str, Any] = {"dataset__split": {"ratio": [0.9, 0.0, 0.1], "stratified": True}}
    moving, still = {"SGD": {"lr": 0.1}}, {"SGD": {"lr": 0.0}}
    begun = _compared(
        tmp_path / "begun", federation__pretraining={"epochs": 2, "optimizer": moving}, training__epochs=1,
        training__optimizer=still, **settings,
    )  # fmt: skip
    trained = _compared(tmp_path / "trained", training__epochs=2, training__optimizer=moving, **settings)
    for way in ("pooled", "alone", "alone_by_site"):
        assert begun[way] == trained[way]


@pytest.mark.slow
def test_in_one_place_so_many_items_as_all_sites_have_make_a_step_of_pretraining(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"dataset__split": {"ratio": [0.9, 0.0, 0.1], "stratified": True}}
    moving, still = {"SGD": {"lr": 0.1}}, {"SGD": {"lr": 0.0}}
    begun = _compared(
        tmp_path / "begun", federation__pretraining={"epochs": 1, "optimizer": moving, "batch_size": 5},
        training__epochs=1, training__optimizer=still, **settings,
    )  # fmt: skip
    trained = _compared(
        tmp_path / "trained", training__epochs=1, training__optimizer=moving, training__batch_size=5, **settings
    )
    for split in ("train", "test"):  # batches that are scored have another size, too
        assert begun["pooled"][split] == pytest.approx(trained["pooled"][split], rel=1e-12)


@pytest.mark.slow
def test_scores_are_made_of_bins_that_are_put_together_at_each_site(tmp_path: Path) -> None:
    """With a learning rate of zero the study and the one place have the same weights, hence the same bins."""
    still: dict[str, Any] = {"training__optimizer": {"SGD": {"lr": 0.0}}, "training__epochs": 1}
    strict = _compared(tmp_path / "strict", federation__minimum_cells=4, **still)
    free = _compared(tmp_path / "free", **still)
    for split in ("train", "validation", "test"):
        assert strict["pooled"][split]["auroc"] == pytest.approx(
            strict["study"][split]["auroc"], abs=1e-12, nan_ok=True
        )
        assert strict["pooled"][split]["accuracy"] == strict["study"][split]["accuracy"]
    assert strict["pooled"]["train"]["auroc"] != free["pooled"]["train"]["auroc"]
    assert strict["alone"]["train"]["auroc"] != free["alone"]["train"]["auroc"]
