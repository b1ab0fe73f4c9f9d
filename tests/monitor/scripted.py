"""A run without training: the events that the engine sends, in the order in which it sends them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from weft.engine import Epoch, Observer, RunResult, Start, Step, Validation

STEPS = 10  # per epoch
SCORES = {"validation": {"loss": 0.25, "accuracy": 0.9}, "train": {"loss": 0.2, "accuracy": 0.95}}


def events(path: Path | None, epochs: int, first_step: int = 0, last_step: int | None = None) -> Iterator[object]:
    """Yield the events of a run that begins after `first_step` and is killed after `last_step`."""
    yield Start(path, "digits", epochs, STEPS, first_step // STEPS, first_step, 1234, "cpu", "accuracy", first_step > 0)
    best = 0.0
    for epoch in range(first_step // STEPS, epochs):
        for batch in range(first_step % STEPS if epoch == first_step // STEPS else 0, STEPS):
            step = epoch * STEPS + batch + 1
            logged = step % 2 == 0
            yield Step(epoch, step, batch + 1, STEPS, 16, 1 / step if logged else None, 0.001 if logged else None)
            if step == last_step:
                return
        yield Validation(1, 1)
        accuracy = 0.5 + 0.1 * (epoch % 4)
        improved, best = accuracy > best, max(best, accuracy)
        row = {
            "epoch": epoch, "step": step, "learning_rate": 0.001, "train_loss": 1 / step, "validation_loss": 2 / step,
            "validation_accuracy": accuracy, "seconds_train": 0.5, "items_per_second": 320.0,
        }  # fmt: skip
        yield Epoch(epoch, step, row, improved, best)
    yield RunResult("finished", epochs, epochs * STEPS, 65.0, SCORES, best_epoch=4)


def play(observers: Sequence[Observer], stream: Iterator[object]) -> None:
    """Hand the events to the observers as the engine does."""
    methods = {
        Start: "on_start",
        Step: "on_step",
        Validation: "on_validation",
        Epoch: "on_epoch",
        RunResult: "on_end",
    }
    for event in stream:
        for observer in observers:
            getattr(observer, methods[type(event)])(event)
