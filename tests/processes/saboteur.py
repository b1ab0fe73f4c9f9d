"""A patch of experiments whose processes come to grief: any of them, at a chosen step, not the first one alone.

The variable WEFT_TEST_SABOTAGE holds a list of {"rank", "attempt", "at", "do"}: in its start number `attempt` (from 0)
the process, after it has done step `at`, or at its batch number -`at` of validation, does "kill", "stop" or "term"
(itself, by SIGKILL, SIGSTOP or SIGTERM), or "sleep" (for hours). Each is done once at most. "fold" restricts it to one
fold.
"""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

from weft.actions.stopping import LAUNCHED
from weft.engine.events import Step, Validation
from weft.monitor.heartbeat import Heartbeat


class Rotten(Dataset[tuple[Tensor, Tensor]]):
    """A dataset that cannot load one of its items, or not at its first try where it may leave a `mark`."""

    def __init__(self, dataset: Any, row: int, mark: str | None = None) -> None:
        self.dataset, self.row, self.mark = dataset, row, None if mark is None else Path(mark)
        self.cases = dataset.cases

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        if row == self.row and (self.mark is None or not self.mark.exists()):
            if self.mark is not None:
                self.mark.touch()
            raise OSError(f"cannot read scan number {row}")
        item: tuple[Tensor, Tensor] = self.dataset[row]
        return item


class Saboteur(Heartbeat):
    """The heartbeat that every process has, with what befalls it."""

    def on_step(self, step: Step) -> None:
        super().on_step(step)
        self._sabotage(step.step)
        if "WEFT_TEST_CRAWL" in os.environ:
            self._crawl(step.step, **json.loads(os.environ["WEFT_TEST_CRAWL"]))

    def _crawl(self, step: int, *, begin: int, until: str) -> None:
        """Take half a second for each step from `begin` on, until the file `until` exists."""
        end = time.monotonic() + 0.5
        while self._rank == 0 and step >= begin and not Path(until).exists() and time.monotonic() < end:
            time.sleep(0.01)

    def on_validation(self, progress: Validation) -> None:
        self.validated = getattr(self, "validated", 0) + 1
        self._sabotage(-self.validated)

    def _sabotage(self, at: int) -> None:
        attempt = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
        for one in json.loads(os.environ.get("WEFT_TEST_SABOTAGE", "[]")):
            if (one["rank"], one.get("attempt", 0), one["at"]) != (self._rank, attempt, at):
                continue
            if one.get("fold") != self._fold.get("fold"):
                continue
            Path(os.environ["WEFT_TEST_LOG"]).write_text(str(time.time()))
            if one["do"] == "sleep":
                sleep_for_hours()
            os.kill(os.getpid(), {"kill": signal.SIGKILL, "stop": signal.SIGSTOP, "term": signal.SIGTERM}[one["do"]])


class Wrapping(Dataset[tuple[Tensor, Tensor]]):
    """A dataset as it is."""

    def __init__(self, dataset: Any) -> None:
        self.dataset, self.cases = dataset, dataset.cases

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        item: tuple[Tensor, Tensor] = self.dataset[row]
        return item


class Interrupted(Wrapping):
    """A dataset that is asked to stop while it is opened, the first time; then it would take hours."""

    def __init__(self, dataset: Any, mark: str) -> None:
        super().__init__(dataset)
        if not Path(mark).exists():
            Path(mark).touch()
            os.kill(os.getppid() if LAUNCHED in os.environ else os.getpid(), signal.SIGTERM)
            sleep_for_hours()


class Stuck(Wrapping):
    """A dataset that one of several processes never gets opened."""

    def __init__(self, dataset: Any, rank: int) -> None:
        super().__init__(dataset)
        if os.environ.get("RANK") == str(rank):
            sleep_for_hours()


def sleep_for_hours() -> None:
    time.sleep(10_000)


def _take_the_place_of_heartbeat() -> None:
    import weft.actions.single

    weft.actions.single.Heartbeat = Saboteur


_take_the_place_of_heartbeat()
