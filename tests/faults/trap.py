"""Traps: what befalls a child process at a chosen moment of its run.

A trap is a dict, given to `Nursery.start`, or as JSON in the variable WEFT_TEST_TRAP:

    at      "step", "validation", "epoch" or "end" (seen by the observer `Trap` of patch.py), or a moment of a file's
            writing: "opened" (nothing written yet), "half" (half of it), "written" (before it is synced), "synced"
            (before it is renamed), "renamed" (before its folder is synced)
    count   at which of them, from 1
    file    only files whose name contains this (for moments of writing)
    run     only runs whose path ends with this (for an observer's moments)
    do      "kill" (SIGKILL to itself), "SIGTERM", "SIGINT", "SIGINT twice" (to its workers too, as terminals do),
            "raise", "hold" (until `release` exists), "kill worker", "few files", "fill disk" (with a file `filler`), or
            a list of these; default "kill"
    log     file that gets a line of JSON when it happens: moment, count, and the step and epoch of the run
"""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import resource
import signal
from collections import Counter
from pathlib import Path
from typing import Any

from tests.faults.nursery import wait_until

_trap: dict[str, Any] = json.loads(os.environ.get("WEFT_TEST_TRAP", "{}"))
_seen: Counter[str] = Counter()
_place: dict[str, int] = {"epoch": 0, "step": 0}


def set_trap(trap: dict[str, Any]) -> None:
    """Set the trap of this process; an empty one never snaps."""
    _trap.update(trap)
    if trap.get("at") in ("opened", "half", "written", "synced", "renamed"):
        _watch_files()


def reached(moment: str, *, run: Path | None = None, file: str = "", **place: int) -> None:
    """Tell that a moment is reached; the trap snaps where it is the one it waits for."""
    _place.update(place)
    if moment != _trap.get("at") or _trap.get("file", "") not in file:
        return
    if run is not None and not str(run).endswith(_trap.get("run", "")):
        return
    _seen[moment] += 1
    if _seen[moment] != _trap.get("count", 1):
        return
    if "log" in _trap:
        line = json.dumps({"at": moment, "count": _seen[moment], "file": file, **_place}) + "\n"
        descriptor = os.open(_trap["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, line.encode())
        os.close(descriptor)
    deeds = _trap.get("do", "kill")
    for deed in [deeds] if isinstance(deeds, str) else deeds:
        _do(deed)


def _do(deed: str) -> None:
    if deed == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif deed == "SIGINT twice":
        os.killpg(0, signal.SIGINT)
        os.killpg(0, signal.SIGINT)
    elif deed.startswith("SIG"):
        os.killpg(0, signal.Signals[deed])
    elif deed == "raise":
        raise ArithmeticError("the observer's own mistake")
    elif deed == "hold":
        wait_until(Path(_trap["release"]).exists)
    elif deed == "kill worker":
        worker = multiprocessing.active_children()[0]
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGKILL)
    elif deed == "few files":
        open_now = len(os.listdir("/proc/self/fd"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (open_now + 1, open_now + 1))
    elif deed == "fill disk":
        _fill(Path(_trap["filler"]))
    else:
        raise ValueError(deed)


def _fill(filler: Path) -> None:
    with filler.open("ab", buffering=0) as file:
        while True:
            try:
                file.write(bytes(4096))
            except OSError as error:
                if error.errno == errno.ENOSPC:
                    return
                raise


def _watch_files() -> None:
    """Put the moments of writing around the calls by which files are written whole or not at all."""
    real_open, real_sync, real_replace = Path.open, os.fsync, os.replace
    names: dict[int, str] = {}

    def open_file(self: Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        file = real_open(self, mode, *arguments, **options)
        if mode != "wb" or not self.name.endswith(".tmp"):
            return file
        names[file.fileno()] = self.name
        reached("opened", file=self.name)
        return _Halved(file, self.name)

    def sync(descriptor: int) -> None:
        name = names.pop(descriptor, None)
        if name is not None:
            reached("written", file=name)
        real_sync(descriptor)

    def replace(source: Any, target: Any, **options: Any) -> None:
        reached("synced", file=os.path.basename(target))
        real_replace(source, target, **options)
        reached("renamed", file=os.path.basename(target))

    Path.open, os.fsync, os.replace = open_file, sync, replace  # type: ignore[method-assign,assignment]


class _Halved:
    """A file that is written in two halves, with a moment between them."""

    def __init__(self, file: Any, name: str) -> None:
        self._file, self._name = file, name

    def __enter__(self) -> _Halved:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, data: bytes) -> int:
        middle = len(data) // 2
        self._file.write(data[:middle])
        self._file.flush()
        reached("half", file=self._name)
        self._file.write(data[middle:])
        return len(data)
