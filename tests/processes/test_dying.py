"""Processes of a run that die, hang or fail: the others end soon, the message says who and where, nothing is lost."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.nursery import Nursery, wait_until
from tests.faults.runs import outcome, result_of
from tests.processes.children import left_behind, start, start_program, write_job
from tests.processes.launch import free_port

pytestmark = pytest.mark.slow


def errors_of(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("error: ")]


def random_kills(seed: int, count: int) -> list[dict[str, Any]]:
    """Each start is killed once; never before a step that is already saved, so that every kill happens."""
    draw = random.Random(seed)
    steps = sorted(draw.randint(3, 23) for _ in range(count))
    return [{"rank": draw.randint(0, 1), "attempt": n, "at": step, "do": "kill"} for n, step in enumerate(steps)]


@pytest.mark.timeout(1200)
def test_a_run_whose_processes_are_killed_ten_times_ends_with_the_weights_of_one_left_alone(
    nursery: Nursery, tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    run = tmp_path / "run"
    kills = random_kills(4, 8)
    kills += [{"rank": rank, "attempt": 8 + rank, "at": -3, "do": "kill"} for rank in (0, 1)]  # in (final) scoring
    file = write_job(tmp_path)
    job = start(nursery, "train", file, "--out", run, "--processes", "2", "--restarts", "10", sabotage=kills)
    ended = job.wait(900)
    assert ended.code == 0, ended.text
    assert ended.err.count("was killed by SIGKILL") == 10, ended.err
    for kill in kills[:8]:
        assert f"process {kill['rank']} was killed by SIGKILL after step {kill['at']} " in ended.err
    assert outcome(run) == undisturbed
    assert not left_behind(run)


@pytest.mark.parametrize("rank", [0, 1])
def test_without_restarts_a_killed_process_ends_all_within_ten_seconds(
    rank: int, nursery: Nursery, tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    kill = [{"rank": rank, "at": 11, "do": "kill"}]
    file = write_job(tmp_path)
    ended = start(nursery, "train", file, "--out", run, "--processes", "2", sabotage=kill, log=log).wait()
    assert time.time() - float(log.read_text()) < 10
    assert ended.code == 1, ended.text
    assert errors_of(ended.err) == [f"error: process {rank} was killed by SIGKILL after step 11 (epoch 2)"]
    assert f"resume with: weft train --resume {run}" in ended.err
    assert "Traceback" not in ended.err
    assert not left_behind(run)
    if rank == 1:  # the first one was there to write it
        assert result_of(run)["status"] == "failed"
        assert "process 1 failed after step 11 (epoch 2): was killed by SIGKILL" in result_of(run)["error"]
    resumed = start(nursery, "train", "--resume", run).wait()
    assert resumed.code == 0, resumed.text
    assert outcome(run) == undisturbed


@pytest.mark.parametrize(
    ("how", "where"),
    [
        ("stop", ", suspended by SIGSTOP or a debugger"),
        ("sleep", " at saboteur.py:"),
    ],
)
def test_a_process_that_hangs_is_named_with_its_place_soon_after_the_timeout(
    how: str, where: str, nursery: Nursery, tmp_path: Path
) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    hang = [{"rank": 1, "at": 9, "do": how}]
    options = ["--processes", "2", "--set", "run.timeout=12"]
    ended = start(nursery, "train", write_job(tmp_path), "--out", run, *options, sabotage=hang, log=log).wait()
    assert time.time() - float(log.read_text()) < 12 + 10
    assert ended.code == 1, ended.text
    (error,) = errors_of(ended.err)
    assert f"process 1 hangs after step 9 (epoch 2){where}" in error
    assert ("sleep_for_hours" in error) == (how == "sleep")
    assert "could not exchange " in error  # and what the other one waited with
    assert not left_behind(run)
    assert "process 1 (last heard of after step 9 (epoch 2)" in result_of(run)["error"]
    assert ("sleep_for_hours" in result_of(run)["error"]) == (how == "sleep")


def test_a_process_that_hangs_before_training_is_named_with_its_place(nursery: Nursery, tmp_path: Path) -> None:
    stuck = {"Stuck": {"dataset": {"component": {"Noisy": {"items": 46}}}, "rank": 1}}
    file, run = write_job(tmp_path, {"dataset.class.train": stuck, "run.timeout": 12}), tmp_path / "run"
    ended = start(nursery, "train", file, "--out", run, "--processes", "2").wait()
    assert ended.code == 1, ended.text
    (error,) = errors_of(ended.err)
    assert "process 1 hangs before its first step at saboteur.py:" in error
    assert "in sleep_for_hours" in error
    assert not left_behind(run)


def test_a_loss_that_is_no_number_in_one_process_stops_all_before_the_step_and_names_it(
    nursery: Nursery, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    file = write_job(tmp_path, {"dataset.class.train": {"Noisy": {"items": 46, "broken": 5}}})
    options = ["--processes", "2", "--restarts", "2"]
    ended = start(nursery, "train", file, "--out", run, *options).wait()
    assert ended.code == 1, ended.text
    (error,) = errors_of(ended.err)
    assert error.startswith(("error: process 0: the loss is nan in epoch 1, step", "error: process 1: the loss is nan"))
    assert "case-46-5" in error
    assert "starting all again" not in ended.err  # it would happen again
    assert result_of(run)["status"] == "failed"
    assert "the loss is nan in epoch 1, step" in result_of(run)["error"]
    assert not (run / "model.safetensors").exists()


def test_an_item_that_cannot_be_read_by_one_process_ends_all_with_that_message_alone(
    nursery: Nursery, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    rotten = {"Rotten": {"dataset": {"component": {"Noisy": {"items": 46}}}, "row": 40}}
    ended = start(
        nursery, "train", write_job(tmp_path, {"dataset.class.train": rotten}), "--out", run, "--processes", "2"
    ).wait()
    assert ended.code == 1, ended.text
    (error,) = errors_of(ended.err)
    assert "cannot read scan number 40" in error
    assert error.startswith("error: process ")
    assert not left_behind(run)


def test_an_item_that_cannot_be_read_for_once_is_read_after_a_restart(
    nursery: Nursery, tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    run = tmp_path / "run"
    rotten = {"dataset": {"component": {"Noisy": {"items": 46}}}, "row": 40, "mark": str(tmp_path / "mark")}
    file = write_job(tmp_path, {"dataset.class.train": {"Rotten": rotten}})
    ended = start(nursery, "train", file, "--out", run, "--processes", "2", "--restarts", "1").wait()
    assert ended.code == 0, ended.text
    assert "cannot read scan number 40" in ended.err
    assert "starting all again" in ended.err
    assert outcome(run) == undisturbed


@pytest.fixture
def disk(nursery: Nursery, tmp_path: Path) -> Iterator[Path]:
    """A small disk, seen by the children."""
    if not nursery.mounts:
        pytest.skip("needs mount namespaces (Linux, unshare)")
    folder = tmp_path / "disk"
    folder.mkdir()
    nursery.shell(f"mount -t tmpfs -o size=4m tmpfs {folder}")
    yield folder
    nursery.shell(f"umount -l {folder}")


def test_a_full_disk_ends_all_processes_with_the_message_of_the_one_that_writes(
    disk: Path, nursery: Nursery, tmp_path: Path
) -> None:
    run = disk / "run"
    file = write_job(tmp_path, {"model": {"Net": {"hidden": 30000}}})
    ended = start(nursery, "train", file, "--out", run, "--processes", "2").wait()
    assert ended.code == 1, ended.text
    (error,) = errors_of(ended.err)
    assert "process 0 failed after step " in error
    assert "No space left on device" in error
    assert not left_behind(run)


# --- asked to stop ----------------------------------------------------------------------------------------------------


def saved_in(run: Path) -> bool:
    return any((run / "checkpoints").glob("last-*.pt"))


LONG = {"training.epochs": 400, "training.scheduler": None}


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_stops_all_processes_at_one_step_and_the_run_can_be_resumed(
    name: str, nursery: Nursery, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    job = start(nursery, "train", write_job(tmp_path, LONG), "--out", run, "--processes", "2")
    wait_until(lambda: saved_in(run))
    os.killpg(job.pid, signal.Signals[name])  # as a terminal or a scheduler does
    ended = job.wait()
    assert ended.code == 75, ended.text
    assert f"stopped: {run} was stopped by {name} and saved" in ended.err
    assert "Traceback" not in ended.err
    assert result_of(run)["status"] == "stopped"
    assert not left_behind(run)
    step = max(int(file.name[5:14]) for file in (run / "checkpoints").glob("last-*.pt"))
    assert step > 0
    resumed = start(nursery, "train", "--resume", run)
    wait_until(lambda: max(int(file.name[5:14]) for file in (run / "checkpoints").glob("last-*.pt")) > step)
    os.kill(resumed.pid, signal.SIGTERM)
    assert resumed.wait().code == 75


def test_a_run_that_was_stopped_by_a_signal_ends_as_one_left_alone(
    nursery: Nursery, tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    run = tmp_path / "run"
    job = start(nursery, "train", write_job(tmp_path), "--out", run, "--processes", "2")
    wait_until(lambda: saved_in(run))
    os.kill(job.pid, signal.SIGTERM)
    ended = job.wait()
    assert ended.code == 75, ended.text
    assert start(nursery, "train", "--resume", run).wait().code == 0
    assert outcome(run) == undisturbed


def test_processes_whose_launcher_was_killed_save_and_stop(nursery: Nursery, tmp_path: Path) -> None:
    run = tmp_path / "run"
    job = start(nursery, "train", write_job(tmp_path, LONG), "--out", run, "--processes", "2")
    wait_until(lambda: saved_in(run))
    os.kill(job.pid, signal.SIGKILL)
    job.wait()
    wait_until(lambda: not left_behind(run), 30)
    assert result_of(run)["status"] == "stopped"


def torchrun(*arguments: str | Path) -> list[str | Path]:
    import sys

    return [sys.executable, "-m", "torch.distributed.run", *arguments, "-m", "weft"]


def test_under_a_bare_torchrun_the_result_tells_that_the_run_was_stopped(nursery: Nursery, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = [*torchrun("--standalone", "--nproc-per-node", "2"), "train", write_job(tmp_path, LONG)]
    job = start_program(nursery, *command, "--out", run, "--resume", OMP_NUM_THREADS="1")
    wait_until(lambda: saved_in(run))
    os.kill(job.pid, signal.SIGTERM)
    ended = job.wait()
    assert ended.code == 1, ended.text  # torchrun's
    assert json.loads((run / "result.json").read_text())["status"] == "stopped"
    assert f"weft train --resume {run}" in result_of(run)["resume"]


def test_under_a_bare_torchrun_a_killed_process_is_named_by_the_others(nursery: Nursery, tmp_path: Path) -> None:
    run = tmp_path / "run"
    sabotage = [{"rank": 1, "at": 7, "do": "kill"}]
    command = [*torchrun("--standalone", "--nproc-per-node", "2"), "train", write_job(tmp_path), "--out", run]
    ended = start_program(
        nursery, *command, "--resume", OMP_NUM_THREADS="1", WEFT_TEST_SABOTAGE=json.dumps(sabotage),
        WEFT_TEST_LOG=os.devnull,
    ).wait()  # fmt: skip
    assert ended.code == 1
    assert "process 1 (last heard of after step 7 (epoch 1)) died or cannot be reached" in ended.err


def test_torchrun_starts_processes_again_that_go_on_with_the_same_run(
    nursery: Nursery, tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    """Though nobody has named the run or the job."""
    sabotage = [{"rank": 1, "at": 11, "do": "kill"}]
    command = [*torchrun("--nproc-per-node", "2", "--master-port", str(free_port()), "--max-restarts", "1"), "train"]
    ended = start_program(
        nursery, *command, write_job(tmp_path), OMP_NUM_THREADS="1", WEFT_TEST_SABOTAGE=json.dumps(sabotage),
        WEFT_TEST_LOG=os.devnull,
    ).wait()  # fmt: skip
    assert ended.code == 0, ended.text
    assert "process 1 (last heard of after step 11 (epoch 2)) died" in ended.err
    (run,) = (folder for folder in (tmp_path / "runs").iterdir() if folder.is_dir())
    assert ended.out.splitlines() == [str(run)]
    assert outcome(run) == undisturbed
