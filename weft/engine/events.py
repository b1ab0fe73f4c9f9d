"""What a run tells those who watch it. An observer sees everything and decides nothing: a run is the same without
it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from weft.errors import Stopped

logger = logging.getLogger("weft")


@dataclass(frozen=True, slots=True)
class Start:
    """The run is built and about to train.

    Args:
        run_path: its directory; None where nothing is written.
        name: the experiment's.
        epochs: how many there will be, from the beginning.
        steps_per_epoch: optimizer steps of an epoch.
        epoch: the first epoch that will be trained, from 0.
        step: optimizer steps done before.
        parameters: how many numbers those of the model are.
        device: where it trains.
        monitor: the score that the best epoch is chosen by.
        resumed: whether it goes on from a saved state.
    """

    run_path: Path | None
    name: str
    epochs: int
    steps_per_epoch: int
    epoch: int
    step: int
    parameters: int
    device: str
    monitor: str
    resumed: bool = False


@dataclass(slots=True)  # not frozen: made thousands of times a second, and a frozen one takes four times as long
class Step:
    """One optimizer step was taken.

    Args:
        epoch: the one it belongs to, from 0.
        step: optimizer steps of the run so far, this one included.
        batch: batches of the epoch so far.
        batches: of the epoch.
        items: that this participant had in the step.
        loss: their mean loss; given every `run.log_every` steps only, where there were items.
        learning_rate: of the first optimizer; given every `run.log_every` steps only.
    """

    epoch: int
    step: int
    batch: int
    batches: int
    items: int
    loss: float | None = None
    learning_rate: float | None = None


@dataclass(slots=True)
class Validation:
    """One batch of a validation pass was done.

    Args:
        batch: how many were done.
        batches: of the pass.
    """

    batch: int
    batches: int


@dataclass(frozen=True, slots=True)
class Epoch:
    """An epoch is over.

    Args:
        epoch: which one, from 0.
        step: optimizer steps of the run so far.
        row: its row in the history, by column.
        improved: whether it is the best epoch so far.
        best: the best monitored value so far; None where nothing was monitored.
    """

    epoch: int
    step: int
    row: dict[str, Any]
    improved: bool
    best: float | None


@dataclass(slots=True)
class RunResult:
    """What a run ends with.

    Args:
        status: "finished", or what `result.json` may say else.
        epochs, steps: how many were trained.
        seconds: that this process took; of a resumed run since it went on.
        scores: split to score name to value.
        best_epoch: from 1; None where nothing was monitored.
        best_value: of the monitored score, in that epoch.
        model_sha256: digest of the weights that were scored.
        skipped_items: names of the items of training that could not be loaded.
    """

    status: str
    epochs: int
    steps: int
    seconds: float
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    best_epoch: int | None = None
    best_value: float | None = None
    model_sha256: str | None = None
    skipped_items: list[str] = field(default_factory=list)


class Observer:
    """Base class of observers; every method is optional.

    Attributes:
        for_study: whether a study over several sites has one of it, told of what all sites agree on; else each site
            has one.
    """

    for_study = False

    def on_build(self, run: Any) -> None:
        """The run (a `weft.engine.run.Run`) is built: the place for hooks that look at what goes through it."""

    def on_start(self, start: Start) -> None:
        """The run begins or goes on; `start` says from where."""

    def on_step(self, step: Step) -> None:
        """An optimizer step was taken."""

    def on_validation(self, progress: Validation) -> None:
        """A batch of validation data was scored; `progress` says how many."""

    def on_epoch(self, epoch: Epoch) -> None:
        """An epoch was trained and, where it is due, validated."""

    def on_checkpoint(self, path: Path, kind: str) -> None:
        """A checkpoint lies safely on the disk.

        Args:
            path: the file.
            kind: "last" or "best".
        """

    def on_end(self, result: RunResult) -> None:
        """The run is over and scored: `result` has the scores."""

    def on_error(self, error: BaseException) -> None:
        """The run fails or stops with `error`."""

    def facts(self) -> dict[str, Any]:
        """What result.json shall say besides, by name; asked once, when the run is over and scored, before `on_end`."""
        return {}


class Observers:
    """Hands events to observers. One that raises is taken out with a warning: watching must not cost a night of
    training.
    """

    def __init__(self, observers: list[Observer]) -> None:
        self.observers = list(observers)
        self._listening: dict[str, list[Observer]] = {}
        self._count = -1

    def notify(self, event: str, *arguments: object) -> None:
        """Call method `event` of every observer."""
        self._ask(event, *arguments)

    def facts(self) -> dict[str, Any]:
        """What the observers add to the result."""
        found: dict[str, Any] = {}
        for answer in self._ask("facts"):
            found |= answer
        return found

    def listening(self, event: str) -> list[Observer]:
        """Those that do anything at an event: there may be thousands of events in a second."""
        if self._count != len(self.observers):  # one came or went
            self._listening, self._count = {}, len(self.observers)
        if event not in self._listening:
            idle = getattr(Observer, event)
            self._listening[event] = [one for one in self.observers if getattr(type(one), event) is not idle]
        return self._listening[event]

    def _ask(self, event: str, *arguments: object) -> list[Any]:
        answers = []
        for observer in self.listening(event):
            try:
                answers.append(getattr(observer, event)(*arguments))
            except Stopped:
                raise
            except Exception as error:
                self.observers.remove(observer)
                logger.warning(
                    "observer %s failed in %s and is left out from here on: %r", type(observer).__name__, event, error
                )
        return answers
