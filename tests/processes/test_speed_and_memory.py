"""`weft profile --processes`, and a batch size that is found once for all processes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.faults.nursery import Nursery
from tests.processes.children import start, write_job
from weft.config import load_experiment

pytestmark = pytest.mark.slow


def test_the_exchange_among_processes_is_part_of_a_profile(nursery: Nursery, tmp_path: Path) -> None:
    job = write_job(tmp_path)
    found = tmp_path / "found.json"
    ended = start(nursery, "profile", job, "--processes", "2", "--steps", "5", "--out", found).wait()
    assert ended.code == 0, ended.text
    written = json.loads(found.read_text())
    assert written["processes"] == 2
    assert written["phases"]["exchange"]["median"] > 0
    assert written["steps"] == 5


def test_processes_agree_on_a_batch_size_that_is_found(nursery: Nursery, tmp_path: Path) -> None:
    job = write_job(tmp_path, {"training.batch_size": "auto", "training.effective_batch_size": 16})
    run = tmp_path / "run"
    ended = start(nursery, "train", job, "--out", run, "--processes", "2").wait()
    assert ended.code == 0, ended.text
    training = load_experiment(run / "experiment.yaml", check=False).training
    assert isinstance(training.batch_size, int)
    assert training.batch_size * training.accumulate == 16
    assert "batch_size: auto is" in ended.text
