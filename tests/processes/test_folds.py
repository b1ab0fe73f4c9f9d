"""Cross-validation by several processes: every fold by all of them, one fold after the other."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.faults.nursery import Nursery, wait_until
from tests.faults.runs import outcome, result_of
from tests.processes.children import WITHOUT_DROPOUT, left_behind, require_alike, start, write_job

pytestmark = pytest.mark.slow

FOLDS: dict[str, Any] = {
    **WITHOUT_DROPOUT,
    "dataset": {"arrays": {"points": {"items": 33}}, "split": {"folds": 3, "stratified": True}},
    "training.scheduler": None,
}


def fold_outcome(run: Path) -> dict[str, Any]:
    """All that must be the same to the bit."""
    summary = json.loads((run / "summary.json").read_text())
    summary.pop("base")
    folds = [outcome(run / f"fold-{number}") for number in (1, 2, 3)]
    return {"summary": summary, "folds": folds, "pooled": (run / "scores" / "validation.csv").read_text()}


@pytest.fixture(scope="module")
def by_two(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folds that two processes trained, left alone."""
    folder = tmp_path_factory.mktemp("by-two")
    ended = start(nursery, "train", write_job(folder, FOLDS), "--out", folder / "run", "--processes", "2").wait()
    assert ended.code == 0, ended.text
    return folder / "run"


def test_folds_are_the_same_on_one_and_two_processes(nursery: Nursery, tmp_path: Path, by_two: Path) -> None:
    alone = tmp_path / "run"
    assert start(nursery, "train", write_job(tmp_path, FOLDS), "--out", alone).wait().code == 0
    for number in (1, 2, 3):
        require_alike(by_two / f"fold-{number}", alone / f"fold-{number}")
    pooled, expected = (result_of(run)["scores"]["validation"] for run in (by_two, alone))
    assert pooled["accuracy"] == expected["accuracy"]
    assert pooled["auroc"] == pytest.approx(expected["auroc"], abs=1e-6)
    lines = (by_two / "scores" / "validation.csv").read_text().splitlines()
    assert len(lines) == 1 + 33  # every item once


def test_folds_whose_process_is_killed_in_the_second_one_go_on_there(
    nursery: Nursery, tmp_path: Path, by_two: Path
) -> None:
    run = tmp_path / "run"
    kills = [
        {"rank": 1 - attempt, "attempt": attempt, "at": 7 + attempt, "fold": 2, "do": "kill"} for attempt in (0, 1)
    ]
    options = ["--processes", "2", "--restarts", "1"]
    ended = start(nursery, "train", write_job(tmp_path, FOLDS), "--out", run, *options, sabotage=kills).wait()
    assert ended.code == 1, ended.text
    assert "process 1 was killed by SIGKILL in fold 2 after step 7 (epoch 2): starting all again" in ended.err
    assert "fold-1 is finished already" in ended.err
    assert "error: process 0 was killed by SIGKILL in fold 2 after step 8 (epoch 2)" in ended.err
    assert f"resume with: weft train --resume {run}\n" in ended.err
    resumed = start(nursery, "train", "--resume", run).wait()  # by two again, as its experiment says
    assert resumed.code == 0, resumed.text
    assert fold_outcome(run) == fold_outcome(by_two)
    assert not left_behind(run)


def test_folds_stopped_by_a_signal_are_resumed_by_all_processes(nursery: Nursery, tmp_path: Path, by_two: Path) -> None:
    run = tmp_path / "run"
    job = start(nursery, "train", write_job(tmp_path, FOLDS), "--out", run, "--processes", "2")
    wait_until(lambda: (run / "fold-1" / "result.json").exists())  # so it comes between folds, or in the second one
    os.kill(job.pid, signal.SIGTERM)
    ended = job.wait()
    assert ended.code == 75, ended.text
    assert f"resume with: weft train --resume {run}\n" in ended.err
    assert "Traceback" not in ended.err
    assert result_of(run)["status"] == "stopped"
    resumed = start(nursery, "train", "--resume", run).wait()
    assert resumed.code == 0, resumed.text
    assert fold_outcome(run) == fold_outcome(by_two)
