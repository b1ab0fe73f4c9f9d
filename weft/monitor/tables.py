"""What is kept of the steps, and what is printed at the end."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from weft.engine.events import Observer, RunResult, Start, Step
from weft.errors import UsageError
from weft.monitor.words import duration, number
from weft.runs import RunDirectory, StepLog

_SPLITS = ("train", "validation", "test")


class StepsCSV(Observer):
    """Writes the logged steps to the run's `steps.csv`: step, epoch (from 1), loss, learning rate."""

    def __init__(self) -> None:
        self._log: StepLog | None = None

    def on_start(self, start: Start) -> None:
        if start.run_path is None:
            raise UsageError("StepsCSV has no file: this run has no directory", "leave this observer out")
        self._log = RunDirectory(start.run_path).steps()
        self._log.truncate_after(start.step)  # a killed run passes again through the steps after its checkpoint

    def on_step(self, step: Step) -> None:
        logged = step.loss is not None or step.learning_rate is not None  # a step without items has no loss
        if logged and self._log is not None:
            epoch = step.epoch + 1  # as in history.csv
            row = {"step": step.step, "epoch": epoch, "loss": step.loss, "learning_rate": step.learning_rate}
            self._log.append(row)

    def on_end(self, result: RunResult) -> None:
        self._close()

    def on_error(self, error: BaseException) -> None:
        self._close()

    def _close(self) -> None:
        if self._log is not None:
            self._log.close()


class ConsoleSummary(Observer):
    """Prints a table of the final scores on standard error.

    Args:
        console: where to write; standard error by default.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._name = ""

    def on_start(self, start: Start) -> None:
        self._name = start.name

    def on_end(self, result: RunResult) -> None:
        facts = [
            f"{result.status} after {duration(result.seconds)}",
            f"{result.epochs} epochs",
            f"{result.steps:,} steps",
        ]
        if result.best_epoch is not None:
            facts.append(f"best epoch {result.best_epoch}")
        self._console.print(f"{self._name}: {', '.join(facts)}", markup=False, highlight=False, soft_wrap=True)
        if result.scores:
            self._console.print(score_table(result.scores))


def score_table(scores: dict[str, dict[str, float]]) -> Table:
    """The scores as a table, a row per score and a column per split."""
    splits = sorted(scores, key=lambda split: (_SPLITS.index(split) if split in _SPLITS else len(_SPLITS), split))
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("score")
    for split in splits:
        table.add_column(split, justify="right")
    for name in dict.fromkeys(name for split in splits for name in scores[split]):
        cells = (scores[split].get(name) for split in splits)
        table.add_row(name, *("" if value is None else number(value) for value in cells))
    return table
