"""Studies in which no bin of predictions with few items leaves a site."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.federated.lab import SIZES, rows_of, study
from weft.engine import Together
from weft.engine.drivers import JournalEntry
from weft.errors import ConfigError
from weft.federated.study import simulate

pytest.importorskip("sklearn")
MINIMUM = 4


@pytest.mark.slow
def test_no_small_cell_is_told_and_the_true_score_lies_within_the_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sklearn.metrics import average_precision_score, roc_auc_score

    told: list[Any] = []

    def noted(self: Together, name: str, entry: JournalEntry | None) -> None:
        if entry is not None and entry.asked.tag.startswith("scores "):
            told.extend(part for part in entry.asked.tensors if part.shape[-1:] == (1025,))
        original(self, name, entry)

    original = Together._note
    monkeypatch.setattr(Together, "_note", noted)
    changes = {"training__metrics": ["auroc", "average_precision"], "training__epochs": 1}
    split = {"ratio": [0.6, 0.2, 0.2], "stratified": True}
    done = simulate(study(federation__minimum_cells=MINIMUM, dataset__split=split, **changes), out=tmp_path / "study")
    assert len(told) >= 4 * len(SIZES)  # after the epoch, and in the end of each split
    assert all(not ((part > 0) & (part < MINIMUM)).any() for part in told)
    open_study = simulate(study(dataset__split=split, **changes), out=tmp_path / "open")
    assert open_study.result["model_sha256"] == done.result["model_sha256"]
    for name in ("train", "validation"):
        rows = [row for site in SIZES for row in rows_of(done.path / "sites" / site / "scores" / f"{name}.csv")]
        labels = [int(row["target"]) for row in rows]
        chances = [float(row["probability_1"]) for row in rows]
        for score, exact in (("auroc", roc_auc_score), ("average_precision", average_precision_score)):
            bound = done.result["bounds"][name][score]
            assert abs(done.scores[name][score] - exact(labels, chances)) <= bound + 1e-12
            assert bound > open_study.result["bounds"][name][score]


@pytest.mark.slow
def test_folds_are_pooled_from_cells(tmp_path: Path) -> None:
    written = study(federation__minimum_cells=MINIMUM, dataset__split={"folds": 2}, training__epochs=1)
    done = simulate(written, out=tmp_path / "study")
    sums = load_file(done.path / "fold-1" / "scores" / "validation.safetensors")
    (cells,) = (part for part in sums.values() if part.shape[-1:] == (1025,))
    assert cells.any()
    assert not ((cells > 0) & (cells < MINIMUM)).any()
    assert done.result["bounds"]["validation"]["auroc"] > 0
    assert 0.5 < done.scores["validation"]["auroc"] <= 1


def test_calibration_and_a_minimum_do_not_go_together(tmp_path: Path) -> None:
    written = study(federation__minimum_cells=MINIMUM, training__metrics=["calibration_error"])
    with pytest.raises(ConfigError, match="made of bins") as caught:
        simulate(written, out=tmp_path / "study")
    assert "brier" in str(caught.value)
