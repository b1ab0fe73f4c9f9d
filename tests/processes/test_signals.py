"""Signals to stop that come when nothing is trained: 75 and how to go on, as in training."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.faults.nursery import Nursery, wait_until
from tests.faults.runs import outcome, result_of
from tests.processes.children import left_behind, start, start_program, write_job
from tests.processes.launch import free_port, is_listening


def slow_to_open(folder: Path) -> dict[str, Any]:
    """Training data whose opening is interrupted."""
    wrapped = {"dataset": {"component": {"Noisy": {"items": 46}}}, "mark": str(folder / "mark")}
    return {"dataset.class.train": {"Interrupted": wrapped}}


def test_while_data_are_opened_nothing_is_left_and_the_same_command_begins_it(nursery: Nursery, tmp_path: Path) -> None:
    file, run = write_job(tmp_path, slow_to_open(tmp_path)), tmp_path / "run"
    ended = start(nursery, "train", file, "--out", run).wait()
    assert ended.code == 75, ended.text
    assert ended.err.splitlines()[-2:] == [
        "stopped: stopped by SIGTERM before training began: nothing was saved",
        "  hint: give the same command again",
    ]
    assert not run.exists()
    assert start(nursery, "train", file, "--out", run).wait().code == 0


def test_while_data_of_a_resumed_run_are_opened_it_says_how_to_resume_it(nursery: Nursery, tmp_path: Path) -> None:
    file, run = write_job(tmp_path, slow_to_open(tmp_path)), tmp_path / "run"
    (tmp_path / "mark").touch()
    assert start(nursery, "train", file, "--out", run, sabotage=[]).wait().code == 0
    os.remove(run / "result.json")  # as if it had been killed before it was written
    os.remove(tmp_path / "mark")
    ended = start(nursery, "train", "--resume", run).wait()
    assert ended.code == 75, ended.text
    assert f"resume with: weft train --resume {run}\n" in ended.err
    assert start(nursery, "train", "--resume", run).wait().code == 0
    assert result_of(run)["status"] == "finished"


@pytest.mark.slow
def test_several_processes_that_open_data_end_together(nursery: Nursery, tmp_path: Path) -> None:
    file, run = write_job(tmp_path, slow_to_open(tmp_path)), tmp_path / "run"
    ended = start(nursery, "train", file, "--out", run, "--processes", "2").wait()
    assert ended.code == 75, ended.text
    assert f"stopped: {run} was stopped by SIGTERM before it could save" in ended.err
    assert ended.err.count("stopped: ") == 1
    assert not left_behind(run)
    again = start(nursery, "train", file, "--out", run, "--resume", "--processes", "2").wait()  # it may have begun
    assert again.code == 0, again.text


@pytest.mark.slow
def test_a_process_that_waits_for_the_others_to_come_ends_at_once(nursery: Nursery, tmp_path: Path) -> None:
    port = free_port()
    variables = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = [sys.executable, "-m", "weft", "train", write_job(tmp_path), "--out", tmp_path / "run"]
    job = start_program(nursery, *command, OMP_NUM_THREADS="1", **variables)
    wait_until(lambda: is_listening(port))
    os.kill(job.pid, signal.SIGTERM)
    ended = job.wait(60)
    assert ended.code == 75, ended.text
    assert "stopped: stopped by SIGTERM before training began" in ended.err


@pytest.mark.slow
def test_the_weights_after_a_stop_while_the_report_is_made_are_those_of_a_run_left_alone(
    nursery: Nursery, tmp_path: Path
) -> None:
    from tests.faults.runs import write_experiment

    alone, run = tmp_path / "alone", tmp_path / "run"
    file = write_experiment(tmp_path)
    assert nursery.weft("train", file, "--out", alone).code == 0
    trap = {"at": "half", "file": "report.html", "do": "SIGTERM"}
    stopped = nursery.weft("train", file, "--out", run, trap=trap)
    assert stopped.code == 75, stopped.text
    assert f"resume with: weft train --resume {run}\n" in stopped.err
    assert nursery.weft("train", "--resume", run).code == 0
    assert outcome(run) == outcome(alone)
    assert (run / "report.html").exists()
