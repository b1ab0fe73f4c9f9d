"""Machines that are lost and come back, by torchrun's elastic rendezvous: two agents of it on this machine."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.engine.runs import small_experiment
from tests.faults.nursery import Child, Nursery, wait_until
from tests.processes.children import (
    WITHOUT_DROPOUT,
    left_behind,
    require_alike,
    start,
    start_program,
    step_of,
    write_job,
)
from tests.processes.launch import free_port, is_listening
from weft.actions import train
from weft.actions.launching_elastic import elastic_nodes, is_restart, job_of, shuts_out
from weft.actions.single import resume_one
from weft.monitor.heartbeat import Failure, Signs
from weft.runs import RunDirectory

CASES: dict[str, tuple[dict[str, str], str | None]] = {
    "started by hand": ({}, None),
    "named": ({"TORCHELASTIC_RUN_ID": "job7"}, "job7"),
    "not named, and never started again": ({"TORCHELASTIC_RUN_ID": "none", "TORCHELASTIC_MAX_RESTARTS": "0"}, None),
    "not named": (
        {"TORCHELASTIC_RUN_ID": "none", "TORCHELASTIC_MAX_RESTARTS": "3",
         "TORCHELASTIC_ERROR_FILE": "/tmp/torchelastic_ab/none_xyz123/attempt_1/0/error.json"},
        "none_xyz123",
    ),
}  # fmt: skip


def test_a_finished_run_is_returned_to_all_processes_while_the_first_one_holds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"num_workers": 0, "device": "cpu", "progress": False, "tensorboard": False}
    run = train(small_experiment(epochs=1, run=settings), out=tmp_path / "run")
    with RunDirectory.open(run.path, writing=True):
        monkeypatch.setenv("RANK", "1")
        monkeypatch.setenv("WORLD_SIZE", "2")
        assert resume_one(run.path, (), ()).scores == run.scores


@pytest.mark.parametrize("case", CASES)
def test_a_job_of_torchrun_has_one_name_at_all_of_its_starts(case: str) -> None:
    environment, job = CASES[case]
    assert job_of(environment) == job


def test_a_restart_is_told_by_torchrun() -> None:
    assert is_restart({"TORCHELASTIC_RUN_ID": "none", "TORCHELASTIC_RESTART_COUNT": "1"})
    assert not is_restart({"TORCHELASTIC_RUN_ID": "none", "TORCHELASTIC_RESTART_COUNT": "0"})
    assert not is_restart({"TORCHELASTIC_RESTART_COUNT": "1"})  # `weft train --restarts`


NODES: dict[str, tuple[dict[str, str], list[str], str | None]] = {
    "a range": ({}, ["python", "-m", "torch.distributed.run", "--nnodes", "1:2", "-m", "weft", "train"], "1:2"),
    "with an equals sign": ({}, ["python", "/usr/bin/torchrun", "--nnodes=2:8", "-m", "weft"], "2:8"),
    "as a variable": ({"PET_NNODES": "1:4"}, ["torchrun", "-m", "weft", "train"], "1:4"),
    "a fixed number": ({}, ["torchrun", "--nnodes", "2", "-m", "weft"], None),
    "no range": ({}, ["torchrun", "--nnodes", "2:2", "-m", "weft"], None),
    "the program's own": ({}, ["torchrun", "-m", "weft", "--nnodes", "1:2"], None),
    "no torchrun": ({}, ["bash", "--nnodes", "1:2"], None),
}


@pytest.mark.parametrize("case", NODES)
def test_whether_machines_may_come_and_go_is_read_from_the_command_of_torchrun(case: str) -> None:
    environment, command, nodes = NODES[case]
    assert elastic_nodes(environment, [["sh", "-c", "weft train"], command]) == nodes


def test_torchrun_lets_a_machine_in_again_only_where_the_variable_is_set() -> None:
    assert shuts_out({"TORCHELASTIC_USE_AGENT_STORE": "True"})
    assert not shuts_out({"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"})
    assert not shuts_out({"TORCHELASTIC_USE_AGENT_STORE": "False"})


WARNING = "export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1"


@pytest.mark.slow
def test_a_job_that_would_let_no_machine_in_again_says_what_to_set(nursery: Nursery, tmp_path: Path) -> None:
    command: list[Any] = [
        *(sys.executable, "-m", "torch.distributed.run", "--nnodes", "1:2", "--nproc-per-node", "2"),
        *("--rdzv-backend", "c10d", "--rdzv-endpoint", f"localhost:{free_port()}", "--rdzv-id", "job8"),
        *("--rdzv-conf", "last_call_timeout=1", "-m", "weft", "train", write_job(tmp_path, {"training.epochs": 1})),
    ]
    ended = start_program(nursery, *command, OMP_NUM_THREADS="1").wait()
    assert ended.code == 0, ended.text
    assert ended.err.count(WARNING) == 1
    assert "--nnodes 1:2" in ended.err
    variables = {"OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    ended = start_program(nursery, *command, "--set", "run.output=others", **variables).wait()
    assert ended.code == 0, ended.text
    assert WARNING not in ended.err


def test_what_processes_of_an_earlier_start_said_is_forgotten(tmp_path: Path) -> None:
    signs = Signs.in_run(tmp_path)
    signs.folder.mkdir()
    for rank in (0, 5):
        signs.tell(Failure(rank, "own", "stopped by SIGTERM"))
    signs.forget_all()
    assert [signs.failure(rank) for rank in (0, 5)] == [None, None]


def children_of(pid: int) -> list[int]:
    return [int(number) for number in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def lose(machine: Child) -> None:
    """An agent of torchrun and its processes are gone at once."""
    for pid in [machine.pid, *children_of(machine.pid)]:
        os.kill(pid, signal.SIGKILL)
    machine.wait()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("lost", ["the first one", "the second one"])
def test_a_machine_that_is_lost_comes_back_to_the_same_run(lost: str, nursery: Nursery, tmp_path: Path) -> None:
    """The same command everywhere, with neither --out nor --resume. torchrun numbers machines by process id; that which
    comes first holds the list of all, so it has to stay.
    """
    file = write_job(tmp_path, {**WITHOUT_DROPOUT, "training.epochs": 6})
    assert start(nursery, "train", file, "--out", tmp_path / "alone").wait().code == 0
    port = free_port()
    command: list[Any] = [
        *(sys.executable, "-m", "torch.distributed.run", "--nnodes", "1:2", "--nproc-per-node", "1"),
        *("--max-restarts", "3", "--rdzv-backend", "c10d", "--rdzv-endpoint", f"localhost:{port}"),
        *("--rdzv-id", "job7", "--rdzv-conf", "last_call_timeout=3", "-m", "weft", "train", file),
    ]
    variables = {
        "OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
        "WEFT_TEST_CRAWL": json.dumps({"begin": 5, "until": str(tmp_path / "go")}),
    }  # fmt: skip
    later = ["sh", "-c", f'until [ -e {tmp_path}/begin ]; do sleep 0.1; done; exec "$@"', "sh"]
    run = tmp_path / "runs" / "noisy-job7"
    machines = []
    try:
        for prefix in (later, []) if lost == "the first one" else ([], later):
            machines.append(start_program(nursery, *prefix, *command, **variables))
        wait_until(lambda: is_listening(port))
        (tmp_path / "begin").touch()
        leaving, staying = machines if lost == "the first one" else reversed(machines)
        wait_until(lambda: step_of(run, 1) >= 4 and newest(run) >= 4)
        lose(leaving)
        seen = newest(run)
        wait_until(lambda: newest(run) > seen + 3)  # the other one goes on alone
        alone_until = step_of(run, 1)
        machines.append(start_program(nursery, *command, **variables))
        wait_until(lambda: step_of(run, 1) > alone_until + 3)  # and together again
        (tmp_path / "go").touch()
        for machine in (staying, machines[-1]):
            ended = machine.wait()
            assert ended.code == 0, ended.text
    finally:
        for machine in machines:
            with contextlib.suppress(OSError):
                os.killpg(machine.pid, signal.SIGKILL)
        for number in left_behind(tmp_path):
            os.kill(number, signal.SIGKILL)
    assert [folder.name for folder in (tmp_path / "runs").iterdir() if folder.is_dir()] == ["noisy-job7"]
    require_alike(run, tmp_path / "alone")


def newest(run: Path) -> int:
    """The step of the newest checkpoint."""
    return max((int(file.name[5:14]) for file in (run / "checkpoints").glob("last-*.pt")), default=0)
