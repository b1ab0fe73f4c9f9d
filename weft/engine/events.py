"""What a run tells those who watch it. An observer sees everything and decides nothing: a run is the same without
it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Start:
    """The run is built and about to train (again, when `resumed`)."""

    run_path: Path | None
    name: str
    epochs: int
    steps_per_epoch: int
    epoch: int  # the first epoch that will be trained, from 0
    step: int  # optimizer steps done before
    parameters: int
    device: str
    monitor: str
    resumed: bool = False


@dataclass(slots=True)  # not frozen: made thousands of times a second, and a frozen one takes four times as long
class Step:
    """One optimizer step was taken. `loss` and `learning_rate` are given every `run.log_every` steps only, `loss` where
    there were items.
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
    """One batch of a validation pass was done."""

    batch: int
    batches: int


@dataclass(frozen=True, slots=True)
class Epoch:
    """An epoch is over; `row` is its row in the history, `best` the best monitored value so far."""

    epoch: int
    step: int
    row: dict[str, Any]
    improved: bool
    best: float | None


@dataclass(slots=True)
class RunResult:
    """What a run ends with.

    `scores` maps split to score name to value; `model_sha256` is the digest of the weights that were scored.
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
        """The run begins or goes on."""

    def on_step(self, step: Step) -> None:
        """An optimizer step was taken."""

    def on_validation(self, progress: Validation) -> None:
        """A batch of validation data was scored."""

    def on_epoch(self, epoch: Epoch) -> None:
        """An epoch was trained and, where it is due, validated."""

    def on_checkpoint(self, path: Path, kind: str) -> None:
        """A checkpoint (`kind` is "last" or "best") lies safely on the disk."""

    def on_end(self, result: RunResult) -> None:
        """The run is over and scored."""

    def on_error(self, error: BaseException) -> None:
        """The run fails or stops with `error`."""

    def facts(self) -> dict[str, Any]:
        """What result.json shall say besides, by name; asked once, when the run is over and scored, before `on_end`."""
        return {}
