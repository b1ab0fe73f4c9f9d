"""Starting real processes that train together."""

from __future__ import annotations

import atexit
import functools
import json
import os
import shutil
import socket
import tempfile
from pathlib import Path
from typing import Any

from tests.faults.nursery import Nursery


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def is_listening(port: int) -> bool:
    """Whether somebody on this machine waits for connections there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@functools.cache
def _nursery() -> Nursery:
    """The process that all others are forks of: importing takes longer than what they do."""
    folder = Path(tempfile.mkdtemp(prefix="weft-jobs-"))
    nursery = Nursery(folder, imports=("sklearn.datasets",))
    atexit.register(shutil.rmtree, folder)
    atexit.register(nursery.close)
    return nursery


def train(settings: dict[str, Any], world: int, folder: Path) -> list[dict[str, Any]]:
    """Run a job to its end; the outcome as each process saw it. Each has the variables that torchrun would set."""
    out = folder / f"outcome-{world}"
    text, port = json.dumps({**settings, "out": str(out)}), free_port()
    started = []
    for rank in range(world):
        variables = {
            "RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }  # fmt: skip
        started.append(
            _nursery().start(json.dumps(variables if world > 1 else {}), text, call="tests.processes.launch:job")
        )
    for process in started:
        ended = process.wait(240)
        assert ended.code == 0, ended.text
    return [json.loads(out.with_suffix(f".{rank}.json").read_text(encoding="utf-8")) for rank in range(world)]


def job(variables: str, settings: str) -> None:
    """Be one process of a job, in a child of the nursery."""
    from tests.processes.job import main

    os.environ.update(json.loads(variables))
    main(json.loads(settings))
