"""A sign of life of each of several processes, for those who ask which one died, and where."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path

from weft.engine.events import Observer, Start, Step

HEARTBEATS = ".heartbeats"  # folder in the run directory
_EVERY = 0.5  # seconds


class Heartbeat(Observer):
    """Writes the step that this process has done into a small file of the run directory, twice a second at most.

    Args:
        rank: number of the process.
    """

    def __init__(self, rank: int) -> None:
        self._rank = rank
        self._file: Path | None = None
        self._last = 0.0

    def on_start(self, start: Start) -> None:
        if start.run_path is not None:
            folder = start.run_path / HEARTBEATS
            with contextlib.suppress(OSError):  # a run without this sign of life is as good
                folder.mkdir(exist_ok=True)
                self._file = folder / f"{self._rank}.json"
                self._write(start.epoch, start.step)

    def on_step(self, step: Step) -> None:
        now = time.monotonic()
        if self._file is not None and now - self._last >= _EVERY:
            self._last = now
            self._write(step.epoch, step.step)

    def _write(self, epoch: int, step: int) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.write_text(json.dumps({"epoch": epoch, "step": step}), encoding="utf-8")
