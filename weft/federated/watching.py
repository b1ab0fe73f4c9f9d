"""Who watches a study through one of its sites: what all sites agree on is the same at each."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from weft.engine import Epoch, Observer, RunResult, Start, Step, Validation
from weft.runs import History


class ShownAsStudy(Observer):
    """Shows what happens at the first site as what happens in the study.

    Args:
        name: of the study.
        shown: who shows it.
    """

    def __init__(self, name: str, shown: Observer) -> None:
        self._name = name
        self._shown = shown

    def on_start(self, start: Start) -> None:
        self._shown.on_start(replace(start, name=self._name))

    def on_step(self, step: Step) -> None:
        self._shown.on_step(step)

    def on_validation(self, progress: Validation) -> None:
        self._shown.on_validation(progress)

    def on_epoch(self, epoch: Epoch) -> None:
        self._shown.on_epoch(epoch)

    def on_end(self, result: RunResult) -> None:
        self._shown.on_end(result)

    def on_error(self, error: BaseException) -> None:
        self._shown.on_error(error)


class PooledHistory(Observer):
    """Writes the rows that all sites agree on to the study's history."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._run: Any = None

    def on_build(self, run: Any) -> None:
        self._run = run

    def on_start(self, start: Start) -> None:
        self._history.restore(self._run.state.history)

    def on_epoch(self, epoch: Epoch) -> None:
        self._history.append(epoch.row)
