"""How far a run is: one line that moves on a terminal, plain lines in a log."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar as Bar
from rich.table import Table
from rich.text import Text

from weft.engine.events import Epoch, Observer, RunResult, Start, Step, Validation
from weft.monitor.words import duration, epoch_words, number

_REDRAW_AFTER = 0.2  # seconds on a terminal
_LINE_AFTER = 10.0  # seconds between plain lines inside an epoch
_LARGEST_SHARE = 0.01  # of the time that drawing may take: a slow terminal is drawn less often


@dataclass(slots=True)
class Progress:
    """What is known of a run at the moment something is shown."""

    start: Start
    epoch: int = 0
    share: float = 0.0  # of the epoch
    loss: float | None = None
    learning_rate: float | None = None
    speed: float | None = None  # items per second
    best: float | None = None
    best_epoch: int | None = None
    validating: str = ""
    seconds_left: float | None = None


class Display(Protocol):
    """Shows progress; `every` is the least time in seconds between two `show`."""

    every: float

    def show(self, progress: Progress) -> None: ...
    def epoch(self, progress: Progress, event: Epoch) -> None: ...
    def close(self) -> None: ...


class ProgressBar(Observer):
    """Shows epoch, loss, learning rate, speed, best score and time left on standard error.

    On a terminal one line that is redrawn some times a second; elsewhere a line per epoch and, in long epochs, one
    every ten seconds. A step costs a look at the clock.

    Args:
        console: where to write; standard error by default.
        beside: makes what a terminal shows below the line, whenever it is drawn.
    """

    def __init__(self, console: Console | None = None, beside: Callable[[], RenderableType] | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._beside = beside
        self._display: Display | None = None

    def on_start(self, start: Start) -> None:
        self._progress = Progress(start, epoch=start.epoch)
        terminal = self._console.is_terminal
        self._display = TerminalLine(self._console, self._beside) if terminal else PlainLines(self._console)
        self._began = self._window_began = time.monotonic()
        self._next = self._began + self._display.every
        self._items = 0
        self._display.show(self._progress)

    def on_step(self, step: Step) -> None:
        self._items += step.items
        self._progress.epoch = step.epoch
        if step.loss is not None:
            self._progress.loss = step.loss
        if step.learning_rate is not None:
            self._progress.learning_rate = step.learning_rate
        now = time.monotonic()
        if now >= self._next:
            self._progress.share = min(1.0, step.batch / max(step.batches, 1))
            self._measure_speed(now)
            self._show(now)

    def on_validation(self, progress: Validation) -> None:
        now = time.monotonic()
        self._items, self._window_began = 0, now  # time spent here says nothing about the speed of training
        if now >= self._next:
            self._progress.share = 1.0
            self._progress.validating = f"validating {progress.batch}/{progress.batches}"
            self._show(now)

    def on_epoch(self, epoch: Epoch) -> None:
        if self._display is None:
            return
        progress = self._progress
        progress.epoch, progress.share, progress.validating = epoch.epoch, 1.0, ""
        if epoch.improved:
            progress.best_epoch = epoch.epoch
        progress.best = epoch.best
        progress.speed = epoch.row.get("items_per_second", progress.speed)
        self._estimate(time.monotonic())
        self._display.epoch(progress, epoch)
        self._items, self._window_began = 0, time.monotonic()

    def on_end(self, result: RunResult) -> None:
        self._close()

    def on_error(self, error: BaseException) -> None:
        self._close()

    def _show(self, now: float) -> None:
        if self._display is None:
            return
        self._estimate(now)
        self._display.show(self._progress)
        after = time.monotonic()
        self._next = after + max(self._display.every, (after - now) / _LARGEST_SHARE)

    def _measure_speed(self, now: float) -> None:
        if now > self._window_began and self._items:
            self._progress.speed = self._items / (now - self._window_began)
        self._items, self._window_began = 0, now

    def _estimate(self, now: float) -> None:
        progress, start = self._progress, self._progress.start
        begun_at = start.step / max(start.steps_per_epoch, 1)  # in epochs, also when resumed inside one
        done = progress.epoch + progress.share - begun_at
        if done > 0:
            left = max(0.0, start.epochs - progress.epoch - progress.share)
            progress.seconds_left = (now - self._began) / done * left

    def _close(self) -> None:
        if self._display is not None:
            self._display.close()
            self._display = None


class TerminalLine:
    """One line at the bottom of a terminal, and below it what `beside` makes."""

    every = _REDRAW_AFTER

    def __init__(self, console: Console, beside: Callable[[], RenderableType] | None = None) -> None:
        self._beside = beside
        # refreshed by us, so that no thread takes time from training; standard output is left to the command
        self._live = Live(console=console, auto_refresh=False, redirect_stdout=False)
        self._live.start()
        self._last: Progress | None = None
        console.show_cursor(True)  # a killed run would leave the terminal without one

    def show(self, progress: Progress) -> None:
        line = _line(progress, self._live.console.width)
        self._live.update(line if self._beside is None else Group(line, self._beside()), refresh=True)

    def epoch(self, progress: Progress, event: Epoch) -> None:
        self._last = progress  # drawn with the next step that is due, or at the end

    def close(self) -> None:
        if self._last is not None:
            self.show(self._last)
        self._live.stop()


class PlainLines:
    """Lines for a log or a pipe."""

    every = _LINE_AFTER

    def __init__(self, console: Console) -> None:
        self._console = console

    def show(self, progress: Progress) -> None:
        if progress.share == 0:
            self._print(_opening(progress.start))
            return
        parts = [f"{progress.share:4.0%}", progress.validating, *_measurements(progress)]
        self._print(f"{_epoch_of(progress)}: " + " · ".join(part for part in parts if part))

    def epoch(self, progress: Progress, event: Epoch) -> None:
        self._print(f"{_epoch_of(progress)}: {epoch_words(event, progress.start.monitor)}{_left(progress)}")

    def close(self) -> None:
        """Nothing is open."""

    def _print(self, text: str) -> None:
        self._console.file.write(text + "\n")  # epochs may be short and many: rich's printing would be felt
        self._console.file.flush()


def _opening(start: Start) -> str:
    verb = f"resumed after {start.step:,} steps" if start.resumed else f"{start.epochs} epochs"
    size = f"{start.steps_per_epoch:,} steps each, {start.parameters:,} parameters"
    return f"{start.name}: {verb}, {size}, on {start.device}"


def _epoch_of(progress: Progress) -> str:
    width = len(str(progress.start.epochs))
    return f"epoch {progress.epoch + 1:>{width}}/{progress.start.epochs}"


def _measurements(progress: Progress) -> list[str]:
    """The most important first: a narrow terminal shows the first ones."""
    parts = []
    if progress.loss is not None:
        parts.append(f"loss {number(progress.loss)}")
    if progress.best is not None:
        where = "" if progress.best_epoch is None else f" (epoch {progress.best_epoch + 1})"
        parts.append(f"best {progress.start.monitor} {number(progress.best)}{where}")
    if progress.seconds_left is not None:
        parts.append(f"{duration(progress.seconds_left)} left")
    if progress.speed is not None:
        parts.append(f"{progress.speed:,.0f} items/s")
    if progress.learning_rate is not None:
        parts.append(f"lr {number(progress.learning_rate)}")
    return parts


def _left(progress: Progress) -> str:
    return "" if not progress.seconds_left else f", {duration(progress.seconds_left)} left"


def _line(progress: Progress, width: int) -> Table:
    """The moving line: epoch, bar of the whole run, share of the epoch, and as many measurements as fit."""
    head = f"{_epoch_of(progress)} {progress.share:4.0%}"
    bar_width = 20 if width >= 100 else 10
    room = width - len(head) - bar_width - 4  # the gaps between them
    shown = ""
    for part in [progress.validating, *_measurements(progress)]:
        longer = f"{shown} · {part}" if shown and part else shown or part
        if len(longer) <= room:
            shown = longer
    done = (progress.epoch + progress.share) / max(progress.start.epochs, 1)
    line = Table.grid(padding=(0, 1), expand=True)
    line.add_column(no_wrap=True)
    line.add_column(no_wrap=True)
    line.add_column(ratio=1, no_wrap=True)
    bar = Bar(total=1.0, completed=min(done, 1.0), width=bar_width)
    line.add_row(Text(head, style="bold"), bar, Text(shown))
    return line
