"""`weft profile --processes`, and a batch size that is found once for all processes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.faults.nursery import Nursery
from tests.processes.children import start, start_program, write_job
from tests.processes.launch import free_port
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


def test_processes_are_told_where_the_first_one_finds_no_batch_size(nursery: Nursery, tmp_path: Path) -> None:
    """Started by torchrun: each reports for itself."""
    items = {"train": {"Noisy": {"items": 46, "width": 2}}}  # twice as wide as the network's first layer
    job = write_job(tmp_path, {"training.batch_size": "auto", "dataset.class": items})
    port, variables = str(free_port()), {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    jobs = [
        start_program(
            nursery, sys.executable, "-m", "weft", "train", job, "--out", tmp_path / "run",
            RANK=str(rank), LOCAL_RANK=str(rank), MASTER_PORT=port, **variables,
        )
        for rank in range(2)
    ]  # fmt: skip
    first, other = [started.wait() for started in jobs]
    assert "Net failed" in first.err, first.text
    assert "rank 1 could not exchange the batch size" in other.err, other.text
