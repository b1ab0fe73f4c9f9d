"""Weft, by its Python interface with a complete run directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import weft
from benchmarks.cases import LOG_EVERY, SEED, Prepared, Rows
from benchmarks.common import Outcome, Stopwatch
from weft.config import Component
from weft.engine import Observer
from weft.engine.checkpoints import CheckpointFolder
from weft.engine.events import Epoch, Start
from weft.runs import RunDirectory


class Watch(Observer):
    """Starts the clock when the run is built and stops it after each epoch; comes after all other observers."""

    def __init__(self) -> None:
        self.stopwatch = Stopwatch()

    def on_start(self, start: Start) -> None:
        self.stopwatch.start()

    def on_epoch(self, epoch: Epoch) -> None:
        self.stopwatch.stop()


def train(
    prepared: Prepared, folder: Path, *, row_by_row: bool = False, fused: bool = False, channels_last: bool = False
) -> Outcome:
    """Train with Weft; the last checkpoint holds the weights of the last epoch."""
    watch = Watch()
    experiment = describe(prepared, row_by_row=row_by_row, fused=fused, channels_last=channels_last)
    weft.train(experiment, out=folder / "run", observers=[watch])
    state = CheckpointFolder(RunDirectory(folder / "run").checkpoints).load_last()
    assert state is not None
    return Outcome(watch.stopwatch.cpu, watch.stopwatch.wall, state["model"])


def describe(prepared: Prepared, *, row_by_row: bool, fused: bool, channels_last: bool) -> dict[str, Any]:
    """The experiment."""
    case = prepared.case
    dataset: dict[str, Any] = {"arrays": prepared.files}
    if row_by_row:
        dataset = {"class": {name: Component.of(Rows, **files) for name, files in prepared.files.items()}}
    return {
        "name": f"benchmark-{case.key}",
        "seed": SEED,
        "dataset": dataset,
        "model": case.model if isinstance(case.model, type) else Component.of(case.model),
        "training": {
            "task": case.task,
            "loss": "CrossEntropyLoss",
            "epochs": case.epochs,
            "batch_size": case.batch_size,
            "optimizer": {case.optimizer: {"lr": case.learning_rate}},
            "metrics": ["accuracy"],
            "fused": fused,
            "channels_last": channels_last,
        },
        "run": {"device": "cpu", "num_workers": 0, "threads": 1, "log_every": LOG_EVERY},
    }
