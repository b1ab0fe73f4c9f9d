"""Two machines, as two network namespaces with a cable between them: they train together, and notice when it is cut."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.faults.nursery import LIMIT, REPOSITORY, wait_until
from tests.faults.runs import outcome
from tests.processes.children import left_behind, write_job

pytestmark = pytest.mark.slow


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def machines() -> Iterator[list[str]]:
    """Names of two network namespaces; the first has the address 10.77.0.1, the other one 10.77.0.2."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("needs root and iproute2")
    names = [f"weft-{os.getpid()}-{number}" for number in (1, 2)]
    cable = [f"weft{os.getpid() % 100_000}{end}" for end in "ab"]
    try:
        for name in names:
            ip("netns", "add", name)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"needs network namespaces: {error.stderr.decode().strip()}")
    try:
        ip("link", "add", cable[0], "type", "veth", "peer", "name", cable[1])
        for number, (name, end) in enumerate(zip(names, cable, strict=True), start=1):
            ip("link", "set", end, "netns", name)
            ip("-n", name, "link", "set", end, "name", "cable")
            ip("-n", name, "addr", "add", f"10.77.0.{number}/24", "dev", "cable")
            ip("-n", name, "link", "set", "cable", "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield names
    finally:
        for name in names:
            ip("netns", "del", name)


@dataclass(frozen=True)
class Job:
    """What runs on one machine, and what it prints."""

    process: subprocess.Popen[bytes]
    printed: Path

    def end(self) -> int:
        """Wait for its end; its exit code."""
        return self.process.wait(timeout=LIMIT)


def start_on(machines: list[str], folder: Path, *arguments: str | Path) -> list[Job]:
    """Start torchrun on both, two processes in all; not from the nursery, whose user namespace has no machines."""
    jobs = []
    for number, name in enumerate(machines):
        printed = folder / f"printed-{number}"
        command = [
            *("ip", "netns", "exec", name, sys.executable, "-m", "torch.distributed.run", "--nnodes", "2"),
            *("--node-rank", str(number), "--nproc-per-node", "1", "--master-addr", "10.77.0.1"),
            *("--master-port", "29511", "-m", "weft", *map(str, arguments)),
        ]
        with printed.open("wb") as file:
            process = subprocess.Popen(
                command, stdout=file, stderr=file, stdin=subprocess.DEVNULL, start_new_session=True,
                env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
            )  # fmt: skip
        jobs.append(Job(process, printed))
    return jobs


def test_two_machines_train_as_two_processes_on_one(
    machines: list[str], tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    run = tmp_path / "run"
    for job in start_on(machines, tmp_path, "train", write_job(tmp_path), "--out", run, "--resume"):
        assert job.end() == 0, job.printed.read_text()
    assert outcome(run) == undisturbed


def test_a_cut_cable_is_a_clear_error_within_the_timeout(machines: list[str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    file = write_job(tmp_path, {"training.epochs": 2000, "training.scheduler": None, "run.timeout": 12})
    jobs = start_on(machines, tmp_path, "train", file, "--out", run, "--resume")
    try:
        wait_until(lambda: any((run / "checkpoints").glob("last-*.pt")))
        ip("-n", machines[1], "link", "set", "cable", "down")
        cut = time.monotonic()
        wait_until(lambda: all("error: " in job.printed.read_text() for job in jobs), 60)
        assert time.monotonic() - cut < 12 + 10
        for job in jobs:
            text = job.printed.read_text()
            error = next(line for line in text.splitlines() if line.startswith("error: "))
            assert "the connection between them broke" in error or "cannot be reached" in error
    finally:
        for job in jobs:  # torchrun's agents would wait for one another for minutes
            os.killpg(job.process.pid, signal.SIGKILL)
            job.end()
        for number in left_behind(run):
            os.kill(number, signal.SIGKILL)
