"""Cross-validation of a study: fold after fold, pooled scores over all of them, and going on in the middle."""

from __future__ import annotations

import json
import os
import signal
import statistics
from pathlib import Path
from typing import Any

import pytest

from tests.federated.lab import SIZES, outcome, rows_of, simulate_and_die, study
from weft.actions import TrainedRun
from weft.actions import open as open_trained
from weft.actions import resume as go_on
from weft.engine import Observer
from weft.errors import Stopped, UsageError
from weft.federated.study import simulate

pytest.importorskip("sklearn")

pytestmark = pytest.mark.slow  # each is several studies


def _written(**changes: Any) -> dict[str, Any]:
    return study(dataset__split={"folds": 3, "stratified": True}, training__epochs=2, **changes)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    """Three folds."""
    return simulate(_written(), out=tmp_path_factory.mktemp("study") / "study", compare=True)


def test_every_item_is_left_out_once_at_its_site(done: TrainedRun) -> None:
    for name, size in SIZES.items():
        left_out: list[str] = []
        for fold in (1, 2, 3):
            file = done.path / f"fold-{fold}" / "sites" / name / "splits.json"
            left_out += json.loads(file.read_text())["splits"]["validation"]
        assert len(left_out) == len(set(left_out)) == size


def test_the_summary_has_mean_deviation_and_scores_of_all_items_together(done: TrainedRun) -> None:
    from sklearn.metrics import roc_auc_score

    assert [fold.path.name for fold in open_trained(done.path).folds] == ["fold-1", "fold-2", "fold-3"]
    found = [json.loads((done.path / f"fold-{fold}" / "result.json").read_text()) for fold in (1, 2, 3)]
    values = [each["scores"]["validation"]["accuracy"] for each in found]
    summary = json.loads((done.path / "summary.json").read_text())["scores"]["accuracy"]
    assert summary["mean"] == pytest.approx(statistics.fmean(values))
    assert summary["standard_deviation"] == pytest.approx(statistics.stdev(values))
    rows = [row for file in done.path.glob("fold-*/sites/*/scores/validation.csv") for row in rows_of(file)]
    assert len(rows) == sum(SIZES.values())
    right = sum(row["target"] == row["prediction"] for row in rows)
    assert summary["pooled"] == done.scores["validation"]["accuracy"] == right / len(rows)
    exact = roc_auc_score([int(row["target"]) for row in rows], [float(row["probability_1"]) for row in rows])
    assert abs(done.scores["validation"]["auroc"] - exact) <= done.result["bounds"]["validation"]["auroc"] + 1e-12
    sent = sum(each["sites"]["north"]["bytes"]["sent"] for each in found)
    assert done.result["sites"]["north"]["bytes"]["sent"] == sent
    alone = [each["comparison"]["alone"]["validation"]["accuracy"] for each in found]
    assert done.result["comparison"]["alone"]["validation"]["accuracy"] == pytest.approx(statistics.fmean(alone))
    assert "fold" in (done.path / "report.html").read_text()


@pytest.mark.slow
def test_a_fold_is_the_study_of_that_fold_alone(done: TrainedRun, tmp_path: Path) -> None:
    alone = simulate(_written(fold=2), out=tmp_path / "study")
    assert outcome(alone.path) == outcome(done.path / "fold-2")


@pytest.mark.slow
def test_a_scenario_is_that_of_every_fold(tmp_path: Path) -> None:
    leaves = {"events": [{"event": "leaves", "site": "west", "step": 3, "returns": 6}]}
    done = simulate(_written(), out=tmp_path / "study", scenario=leaves)
    for fold in (1, 2, 3):
        found = json.loads((done.path / f"fold-{fold}" / "result.json").read_text())
        assert (found["events"]["left"], found["events"]["returned"], found["away"]) == (1, 1, [])


class StopsInTheSecondFold(Observer):
    """As a user would with Ctrl-C."""

    def on_checkpoint(self, path: Path, kind: str) -> None:
        if "fold-2" in path.parts:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.slow
def test_a_study_stopped_in_the_second_fold_tells_how_all_go_on(done: TrainedRun, tmp_path: Path) -> None:
    stops = {"run__observers": ["tests.federated.test_folds.StopsInTheSecondFold"]}
    with pytest.raises(Stopped) as caught:
        simulate(_written(**stops), out=tmp_path / "study")
    command = f"weft federate simulate --resume {tmp_path / 'study'}"
    assert caught.value.hint.endswith(command)
    stopped = json.loads((tmp_path / "study" / "result.json").read_text())
    assert (stopped["status"], stopped["resume"]) == ("stopped", command)
    again = simulate(tmp_path / "study", ["run.observers=[]"], resume=True)
    assert again.scores == done.scores


@pytest.mark.slow
def test_a_kill_in_the_second_fold_goes_on_there(done: TrainedRun, tmp_path: Path) -> None:
    simulate_and_die(_written(), tmp_path / "killed", "south", 2, fold=2)
    before = (tmp_path / "killed" / "fold-1" / "result.json").read_bytes()
    assert not (tmp_path / "killed" / "fold-3").exists()
    again = simulate(tmp_path / "killed", ["run.observers=[]"], resume=True)
    assert (tmp_path / "killed" / "fold-1" / "result.json").read_bytes() == before
    assert again.scores == done.scores
    for fold in (1, 2, 3):
        assert outcome(again.path / f"fold-{fold}") == outcome(done.path / f"fold-{fold}")
    assert simulate(_written(), out=tmp_path / "killed", resume=True).scores == done.scores
    with pytest.raises(UsageError, match="belongs to a study") as caught:
        go_on(tmp_path / "killed")
    assert f"weft federate simulate --resume {tmp_path / 'killed'}" in caught.value.hint
