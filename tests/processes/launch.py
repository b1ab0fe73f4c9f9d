"""Starting real processes that train together."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def start(settings: dict[str, Any], world: int) -> list[subprocess.Popen[str]]:
    """Start the processes of a job, each with the variables that torchrun would set."""
    port = free_port()
    started = []
    for rank in range(world):
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
        if world > 1:
            environment |= {
                "RANK": str(rank),
                "WORLD_SIZE": str(world),
                "LOCAL_RANK": str(rank),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
            }
        started.append(
            subprocess.Popen(
                [sys.executable, "-m", "tests.processes.job", json.dumps(settings)],
                cwd=REPOSITORY,
                env=environment,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        )
    return started


def train(settings: dict[str, Any], world: int, folder: Path) -> list[dict[str, Any]]:
    """Run a job to its end; the outcome as each process saw it."""
    out = folder / f"outcome-{world}"
    processes = start({**settings, "out": str(out)}, world)
    ended = [process.communicate(timeout=240) for process in processes]
    for process, (_, errors) in zip(processes, ended, strict=True):
        assert process.returncode == 0, errors
    return [json.loads(out.with_suffix(f".{rank}.json").read_text(encoding="utf-8")) for rank in range(world)]
