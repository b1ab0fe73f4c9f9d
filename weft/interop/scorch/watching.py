"""What scorch-train prints and writes: observers of a run."""

from __future__ import annotations

import socket
import time
from contextvars import ContextVar
from datetime import datetime
from pathlib import Path
from typing import Any

from weft.engine import Epoch, Observer, Run, RunResult, Start, Step, Validation
from weft.interop.scorch.checkpoints import write_content
from weft.interop.scorch.scores import MAIN, ScorchScores
from weft.monitor.tensorboard import EventFile
from weft.runs import write_atomically

# Set while scorch-train runs: reproducing its run, or training its experiment elsewhere, must not write over its files.
commanded: ContextVar[bool] = ContextVar("scorch-train runs", default=False)


class ScorchPrinter(Observer):
    """scorch's lines on standard output.

    Args:
        verbosity: -1 for none, 0 for a line per epoch, n > 0 for one per n-th step as well.
        first_epoch: epochs that a checkpoint was trained before.
    """

    def __init__(self, verbosity: int, first_epoch: int = 0) -> None:
        self.verbosity, self.first_epoch = verbosity, first_epoch
        self._run: Run | None = None
        self._trains = False

    def on_build(self, run: Run) -> None:
        self._run = run

    def on_start(self, start: Start) -> None:
        self._epochs = start.epochs
        if start.epoch < start.epochs:
            self._begin(start.epoch)

    def _begin(self, epoch: int) -> None:
        self._epoch = epoch + 1 + self.first_epoch
        self._trains = True
        self._ended = time.monotonic()
        self._time, self._data, self._loss = Mean(), Mean(), Mean()
        self._say(f"Training epoch  {self._epoch}")

    def _say(self, line: str) -> None:
        if self.verbosity >= 0:
            print(line, flush=True)

    def on_step(self, step: Step) -> None:
        if self.verbosity < 1 or self._run is None:
            return
        now = time.monotonic()
        self._time.add(now - self._ended)
        self._data.add(max(getattr(self._run.task, "began", now) - self._ended, 0.0))
        self._ended = now
        if step.loss is not None:
            self._loss.add(step.loss)
        if (step.batch - 1) % self.verbosity == 0:
            rate = next(iter(self._run.state.optimizers.values())).param_groups[-1]["lr"]
            self._say(
                f"Ep {self._epoch}[{step.batch}/{step.batches}]\t"
                f"Time  {self._time.mean:.2f}({self._time.last:.2f})\t"
                f"Data  {self._data.mean:.2f}({self._data.last:.2f})\t"
                f"Loss  {self._loss.mean:.2e}({self._loss.last:.2e})\t"
                f"LR {rate:.2e}"
            )

    def on_validation(self, progress: Validation) -> None:
        if self._trains:
            self._trains = False
            self._say(f"Validating epoch {self._epoch}")

    def on_epoch(self, epoch: Epoch) -> None:
        if self._run is None:
            return
        for number, scores in enumerate(measured(self._run)):
            if number:
                self._say(f"Validating epoch {self._epoch}")
            self._say(metrics_line(scores))
        if not self._run.state.finished:
            self._begin(epoch.epoch + 1)

    def on_end(self, result: RunResult) -> None:
        book = self._run.splits["test"].book if self._run is not None and "test" in self._run.splits else None
        if isinstance(book, ScorchScores) and book.filled:
            self._say("Testing")
            self._say(metrics_line(book.measured()))


class ScorchFiles(Observer):
    """scorch's checkpoints and TensorBoard curves, of runs that scorch-train begins and of those that are resumed.

    Args:
        folder: where scorch-train was started.
        prefix: what names of checkpoints begin with.
        dump_period: epochs between checkpoints.
        verbosity: is kept in checkpoints.
        first_epoch: epochs that a checkpoint was trained before.
        best: main score that a best checkpoint must beat.
        strict: look for the best only among the epochs that are written.
    """

    def __init__(
        self,
        folder: str,
        prefix: str = "",
        dump_period: int = 1,
        verbosity: int = -1,
        first_epoch: int = 0,
        best: float | None = None,
        strict: bool = False,
    ) -> None:
        self.folder, self.prefix, self.dump_period = Path(folder), prefix, dump_period
        self.verbosity, self.first_epoch, self.best, self.strict = verbosity, first_epoch, best, strict
        self._run: Run | None = None
        self._curves: Path | None = None
        self._writes = False
        self._files: dict[Path, EventFile] = {}

    def on_build(self, run: Run) -> None:
        self._run = run

    def on_start(self, start: Start) -> None:
        self._writes = start.resumed or commanded.get()
        host = socket.gethostname()
        self._curves = self.folder / "runs" / f"{datetime.now():%b%d_%H-%M-%S}_{host}"
        rows = self._run.state.history if self._run is not None else []
        before = [row[f"validation_{MAIN}"] for row in rows if self._counts(row["epoch"] - 1)]
        self.best = max([value for value in (self.best, *before) if value is not None], default=None)

    def _dumps(self, epoch: int) -> bool:
        return epoch % self.dump_period == 0

    def _counts(self, epoch: int) -> bool:
        return self._dumps(epoch) or not self.strict

    def on_epoch(self, epoch: Epoch) -> None:
        if self._run is None or not self._writes:
            return
        *train, valid = measured(self._run)
        number = epoch.epoch + 1 + self.first_epoch
        self._draw(number, valid, train[0] if train else {})
        improved = self._counts(epoch.epoch) and (self.best is None or valid[MAIN] > self.best)
        if improved:
            self.best = valid[MAIN]
        if not (improved or self._dumps(epoch.epoch) or self._run.state.finished):
            return
        model: Any = self._run.state.model
        content = write_content(
            self.folder / f"{self.prefix}checkpoint.pth.tar",
            {
                "epoch": number,
                "model_state": model.network.state_dict(),
                "optimizer_state": next(iter(self._run.state.optimizers.values())).state_dict(),
                "verbosity": self.verbosity,
                "info": valid,
                "metrics": valid,
            },
        )
        if improved:
            write_atomically(self.folder / f"{self.prefix}checkpoint_best.pth.tar", content)

    def _draw(self, epoch: int, valid: dict[str, float], train: dict[str, float]) -> None:
        """A file per curve: `metrics/<name>/<prefix>/{valid,train}`, all under the tag `metrics/<name>/<prefix>`."""
        if self._curves is None:
            return
        for name, value in valid.items():
            tag = f"metrics/{name}/{self.prefix}"
            values = {"valid": value} | ({"train": train[name]} if name in train else {})
            for curve, point in values.items():
                folder = self._curves / tag / curve
                if folder not in self._files:
                    self._files[folder] = EventFile(folder)
                self._files[folder].add(epoch, {tag: point})
                self._files[folder].flush()

    def on_end(self, result: RunResult) -> None:
        self._close()

    def on_error(self, error: BaseException) -> None:
        self._close()

    def _close(self) -> None:
        for file in self._files.values():
            file.close()
        self._files = {}


class Mean:
    """The last of some numbers, and their mean."""

    def __init__(self) -> None:
        self.last, self._sum, self._count = 0.0, 0.0, 0

    def add(self, value: float) -> None:
        """Take the next."""
        self.last, self._sum, self._count = value, self._sum + value, self._count + 1

    @property
    def mean(self) -> float:
        """0 before the first."""
        return self._sum / self._count if self._count else 0.0


def metrics_line(scores: dict[str, float]) -> str:
    """The line that scores are printed in."""
    return "Metrics:\t " + "\t\t".join(f"{name}:{value:.2e}" for name, value in scores.items())


def measured(run: Run) -> list[dict[str, float]]:
    """The scores that an epoch just had: of the training split, where it is scored, and last of validation."""
    books = [run.splits[name].book for name in ("train", "validation") if name in run.splits]
    found = [book.measured() for book in books if isinstance(book, ScorchScores) and book.filled]
    return found
