"""Who started the processes, told from the environment: torchrun, Slurm, Open MPI, PMI."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.engine.runs import small_experiment
from tests.faults.nursery import Nursery
from tests.faults.runs import outcome
from tests.processes.children import start_program, write_job
from weft.actions.opening import open_experiment_data
from weft.engine import Membership
from weft.engine.loaders import train_loader
from weft.engine.processes import Place, find_place, first_host, processes_here
from weft.errors import UsageError

SLURM = {"SLURM_JOB_ID": "4711", "SLURM_STEP_ID": "0", "SLURM_NTASKS": "2", "SLURM_STEP_NUM_TASKS": "2"}
MPI = {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "1"}
FOUND: dict[str, tuple[dict[str, str], Place | None]] = {
    "nobody": ({}, None),
    "torchrun": ({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}, Place(3, 4, 1, "torchrun")),
    "torchrun with one process": ({"RANK": "0", "WORLD_SIZE": "1"}, None),
    "Open MPI": (MPI, Place(1, 2, 1, "Open MPI")),
    "PMI": ({"PMI_RANK": "1", "PMI_SIZE": "3", "MPI_LOCALRANKID": "1"}, Place(1, 3, 1, "PMI")),
    "a step of Slurm": ({**SLURM, "SLURM_PROCID": "1", "SLURM_LOCALID": "1"}, Place(1, 2, 1, "Slurm")),
    "a step of Slurm with one task": ({**SLURM, "SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"}, None),
    "a batch script in an allocation of many tasks": ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}, None),
    "torchrun inside a step of Slurm": (
        {**SLURM, "SLURM_PROCID": "0", "RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}, Place(5, 8, 1, "torchrun"),
    ),
    "mpirun inside a batch script of Slurm": (
        {**MPI, "SLURM_PROCID": "0", "SLURM_NTASKS": "2"}, Place(1, 2, 1, "Open MPI"),
    ),
}  # fmt: skip
WRONG: dict[str, tuple[dict[str, str], str]] = {
    "a rank without a world": ({"RANK": "1"}, "RANK is set, but not WORLD_SIZE"),
    "a world without a rank": ({"OMPI_COMM_WORLD_SIZE": "2"}, "OMPI_COMM_WORLD_SIZE is set, but not"),
    "a rank outside": ({"RANK": "2", "WORLD_SIZE": "2"}, "torchrun says rank 2 of 2 processes"),
    "no numbers": ({"PMI_RANK": "one", "PMI_SIZE": "2"}, "PMI_RANK='one'"),
}


@pytest.mark.parametrize("case", FOUND)
def test_the_place_of_a_process_is_found(case: str) -> None:
    environment, place = FOUND[case]
    assert find_place(environment) == place


@pytest.mark.parametrize(
    ("environment", "here"),
    [
        ({"RANK": "1", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}, 4), ({"OMPI_COMM_WORLD_LOCAL_SIZE": "2"}, 2),
        ({"MPI_LOCALNRANKS": "3"}, 3), ({}, 8), ({"LOCAL_WORLD_SIZE": "many"}, 8), ({"LOCAL_WORLD_SIZE": "16"}, 8),
    ],
)  # fmt: skip
def test_the_processes_of_this_machine_are_told_by_the_launcher_and_else_all(
    environment: dict[str, str], here: int
) -> None:
    assert processes_here(8, environment) == here


def test_processes_of_one_machine_share_what_it_bears_in_loader_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {"available_cores": 8, "available_memory": 64 * 2**30, "open_file_limit": 65536, "_cost": (1.0, 100)}
    for name, value in limits.items():
        monkeypatch.setattr(f"weft.data.worker_count.{name}", lambda *_, value=value: value)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    items = {"tests.federated.lab.Rows": {"start": 0, "stop": 200}}
    experiment = small_experiment({"class": {"train": items}}, run={"num_workers": "auto"})
    data = open_experiment_data(experiment)
    loaders = [
        train_loader(experiment, data, experiment.namespace(), membership)
        for membership in (Membership(), Membership(4, 1, shares_directory=True), Membership(4, 1))
    ]
    assert [loader.num_workers for loader in loaders if loader is not None] == [7, 3, 7]


@pytest.mark.parametrize("case", WRONG)
def test_contradicting_variables_are_an_error_that_names_them(case: str) -> None:
    environment, message = WRONG[case]
    with pytest.raises(UsageError, match=message):
        find_place(environment)


@pytest.mark.parametrize(
    ("nodes", "host"),
    [
        ("gpu1", "gpu1"), ("gpu[03-05,9],login", "gpu03"), ("a-1,a-2", "a-1"), ("n[7]", "n7"), ("", ""),
        ("rack1-node[001-128]", "rack1-node001"),
    ],
)  # fmt: skip
def test_the_first_host_of_a_slurm_list(nodes: str, host: str) -> None:
    assert first_host(nodes) == host


# --- real ones --------------------------------------------------------------------------------------------------------


def weft_program() -> list[str]:
    import sys

    return [sys.executable, "-m", "weft"]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("mpirun") is None, reason="needs Open MPI (mpirun)")
def test_mpirun_starts_processes_that_train_together(
    nursery: Nursery, tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    run = tmp_path / "run"
    options = ["--allow-run-as-root", "--oversubscribe", "-np", "2"]
    command = [*weft_program(), "train", str(write_job(tmp_path)), "--out", str(run)]
    ended = start_program(nursery, "mpirun", *options, *command, OMP_NUM_THREADS="1").wait()
    assert ended.code == 0, ended.text
    assert ended.out.splitlines() == [str(run)]
    assert outcome(run) == undisturbed


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["Slurm", "PMI"])
def test_tasks_of_a_launcher_train_together(
    launcher: str, nursery: Nursery, tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    """Two tasks with the variables that `srun` and MPICH's `mpiexec` set."""
    run, file = tmp_path / "run", write_job(tmp_path)
    tasks = []
    for rank in ("0", "1"):
        variables = {
            "Slurm": {**SLURM, "SLURM_PROCID": rank, "SLURM_LOCALID": rank, "SLURM_STEP_NODELIST": "localhost",
                      "SLURM_JOB_ID": str(os.getpid())},
            "PMI": {"PMI_RANK": rank, "PMI_SIZE": "2", "MPI_LOCALRANKID": rank, "MPI_LOCALNRANKS": "2",
                    "PMI_JOBID": str(os.getpid())},
        }[launcher]  # fmt: skip
        command = [*weft_program(), "train", str(file), "--out", str(run)]
        tasks.append(start_program(nursery, *command, OMP_NUM_THREADS="1", **variables))
    for task in tasks:
        ended = task.wait()
        assert ended.code == 0, ended.text
    assert outcome(run) == undisturbed
