"""Jobs of a real Slurm: its steps train together, and what it preempts goes on where it was."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.nursery import REPOSITORY, Nursery, wait_until
from tests.faults.runs import outcome, result_of
from tests.processes.children import start_program, step_of, write_job
from tests.processes.slurm import INSTALL, MISSING, Slurm, cluster

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(bool(MISSING), reason=f"needs Slurm ({', '.join(MISSING)}): {INSTALL}"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a cluster"),
]
_JOB = """#!/bin/sh
#SBATCH --ntasks=2 --requeue --open-mode=append --output={log}
exec srun --ntasks=2 {python} -m weft train {file} --out {run} --resume
"""


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    with cluster(tmp_path_factory.mktemp("slurm") / "cluster") as running:
        yield running


def test_tasks_of_a_step_train_together(
    slurm: Slurm, nursery: Nursery, tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    run = tmp_path / "run"
    command = [sys.executable, "-m", "weft", "train", str(write_job(tmp_path)), "--out", str(run)]
    ended = start_program(
        nursery, "srun", "--ntasks=2", *command, **slurm.variables, OMP_NUM_THREADS="1"
    ).wait()  # fmt: skip
    assert ended.code == 0, ended.text
    assert ended.out.splitlines() == [str(run)]
    assert outcome(run) == undisturbed


def test_a_job_that_is_preempted_saves_and_goes_on_by_itself(
    slurm: Slurm, tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    run, script, log, done = (tmp_path / name for name in ("run", "job.sh", "log", "done"))
    script.write_text(_JOB.format(python=sys.executable, file=write_job(tmp_path), run=run, log=log))
    crawl = json.dumps({"begin": 5, "until": str(done)})
    given = {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "WEFT_TEST_CRAWL": crawl}
    slurm.variables.update(given)
    job = slurm.ask("sbatch", "--parsable", str(script)).strip()
    wait_until(lambda: step_of(run, 1) >= 6, 120)
    slurm.ask("scontrol", "requeue", job)
    wait_until(lambda: (run / "result.json").exists(), 120)
    assert result_of(run)["status"] == "stopped", text_of(log)
    done.touch()
    wait_until(lambda: "JobState=PENDING" in slurm.ask("scontrol", "show", "job", job), 60)
    slurm.ask("scontrol", "update", f"JobId={job}", "StartTime=now")  # else it lets two minutes pass
    wait_until(lambda: result_of(run)["status"] == "finished", 300)
    assert outcome(run) == undisturbed, text_of(log)
    assert "Restarts=1" in slurm.ask("scontrol", "show", "job", job)
    wait_until(lambda: "JobState=COMPLETED" in slurm.ask("scontrol", "show", "job", job), 60)


def text_of(file: Path) -> str:
    return file.read_text() if file.exists() else ""
