"""What each site of a simulated study costs while it runs: computing, waiting, messages, memory; and its own scores.

All sites share one process here, so what is measured is what each does between two messages. `computing` is the time
from an answer to the next question, reading data included. `waiting` is what it would be if all sites computed at once
on machines like this one and messages took no time: in every turn each waits for the slowest.

What is done for the first time takes longer, above all where it is the first time in the process: libraries are loaded,
memory is taken. The site that comes first by name would seem slow. So what a turn took longer than the next one of its
kind at the same site is told apart, as `startup`. What those who watch the whole study do with what they hear through
one of the sites is nobody's.

A driver need not know of it: the clock is wound around what a site does.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from types import TracebackType
from typing import Any

from rich.table import Table
from torch import Tensor

from weft.engine import Collective, Epoch, Observer, RunResult, Start, Step, Validation
from weft.engine.collectives import Answer
from weft.engine.drivers import Steps
from weft.engine.memory import lifetime_peak
from weft.engine.run import Run
from weft.federated.traffic import LARGEST, count_step, summary, trained
from weft.monitor.words import duration
from weft.report.words import size
from weft.runs import History, Row, RunDirectory

_EVERY = 7  # messages; reading the processors' clock costs microseconds: it is read for one of so many
_MOST_SHOWN = 8  # sites of the live table


@dataclass(slots=True)
class Spent:
    """What a site spent on a part of the study: seconds, steps with items, items, messages and bytes.

    `startup` are seconds by which what it did for the first time took longer than the next time; they are not in
    `computing`.
    `processor` counts the seconds of all threads of the process while the site was computing, estimated from one of
    every seven messages.
    """

    computing: float = 0.0
    waiting: float = 0.0
    startup: float = 0.0
    processor: float = 0.0
    steps: int = 0
    items: int = 0
    messages: int = 0
    sent: int = 0
    received: int = 0

    def plus(self, other: Spent) -> Spent:
        """Both together."""
        return Spent(*(getattr(self, key) + getattr(other, key) for key in SPENT))

    def as_row(self) -> dict[str, float]:
        """For a table: seconds to the microsecond."""
        return {key: round(getattr(self, key), 6) for key in SPENT}


SPENT = tuple(field.name for field in fields(Spent))


def _sum(rows: Sequence[Row]) -> Spent:
    return functools.reduce(Spent.plus, (Spent(*(row[key] for key in SPENT)) for row in rows), Spent())  # type: ignore[arg-type]


class Profile:
    """The profile of all sites; a row per site and epoch goes to the study's `profile.csv`.

    Args:
        directory: of the study.
        names: of the sites.
    """

    def __init__(self, directory: RunDirectory, names: list[str]) -> None:
        self.rows = History(directory.sites_profile_file)
        self.sites = {name: SiteClock(self, name) for name in names}
        self._first: dict[str, dict[str, tuple[float, int]]] = {}  # by kind of turn, when it first came: what each site
        # took, and how many rows of it there were
        self._settled: set[str] = set()  # kinds of turns that have come again

    def turn_over(self) -> None:
        """Everybody has computed: those who were done early waited for the slowest."""
        clocks = self.sites.values()
        slowest = max(clock.turn for clock in clocks)
        computed = [clock for clock in clocks if clock.turn]
        if len({clock.kind for clock in computed}) == 1:
            self._separate(computed[0].kind, {clock.name: clock.turn for clock in computed})
        for clock in clocks:
            if clock.turn:
                clock.spent.waiting += slowest - clock.turn
                clock.turn = 0.0
            if clock.due is not None:
                clock.write_row(clock.due)
                clock.due = None

    def _separate(self, kind: str, turns: Mapping[str, float]) -> None:
        """When a kind of turn comes again, it is known what the first one took longer, and others waited for it."""
        if kind not in self._first:
            self._first[kind] = {name: (seconds, self.sites[name].written) for name, seconds in turns.items()}
            return
        first = self._first[kind]
        if kind in self._settled or first.keys() != turns.keys():
            return
        self._settled.add(kind)
        usual = {name: min(seconds, turns[name]) for name, (seconds, _) in first.items()}
        slowest, later = max(seconds for seconds, _ in first.values()), max(usual.values())
        for name, (seconds, written) in first.items():
            waited = (slowest - seconds) - (later - usual[name])
            self.sites[name].set_apart(seconds - usual[name], waited, written)
        if any(self.sites[name].written > written for name, (_, written) in first.items()):
            self.rows.restore(list(self.rows.rows))

    def finish(self) -> None:
        """Write what came after the last epoch: the final scores."""
        self.turn_over()
        for clock in self.sites.values():
            if clock.begun:
                clock.write_row("end")

    def forget_after(self, name: str, epoch: int) -> tuple[Spent, Spent]:
        """Remove what is written of a site's later epochs.

        Returns:
            what it spent until then in all, and what of it before training.
        """
        kept = [row for row in self.rows.rows if row["site"] != name or int(row["epoch"]) <= epoch]
        if len(kept) < len(self.rows.rows):
            self.rows.restore(kept)
        own = [row for row in kept if row["site"] == name]
        return _sum(own), _sum([row for row in own if row["part"] == "opening"])

    def table(self) -> Table:
        """The sites at this moment, for a terminal: of many those that compute most."""
        table = Table(box=None, pad_edge=False, header_style="dim")
        table.add_column("site")
        for name in ("computing", "waiting", "sent", "received", "model and optimizer"):
            table.add_column(name, justify="right")
        clocks = sorted(self.sites.values(), key=lambda clock: -clock.now().computing)
        shown = [clock for clock in clocks if clock.in_training][:_MOST_SHOWN]
        for clock in sorted(shown, key=lambda clock: clock.name):
            now = clock.now()
            moved = map(size, (now.sent, now.received, clock.held))
            table.add_row(clock.name, duration(now.computing), duration(now.waiting), *moved)
        if shown and len(clocks) > len(shown):
            table.add_row(f"and {len(clocks) - len(shown)} more")
        return table


class SiteClock(Observer):
    """Watches one site. It is wound around what the site does, and sees its epochs as an observer.

    Args:
        profile: of all sites.
        name: of the site.
    """

    def __init__(self, profile: Profile, name: str) -> None:
        self.name = name
        self.turn = 0.0  # seconds computed since everybody was answered last
        self.kind = ""  # of this turn: what was answered, and what was asked then
        self.spent, self.total, self.opening = Spent(), Spent(), Spent()  # since the last row, in all, before training
        self.due: str | None = None  # the part that a row is due of
        self.epoch, self.held = 0, 0
        self._profile = profile
        self._run: Run | None = None
        self._own: History | None = None
        self._memory: dict[str, int] = {}
        self._loss: float | None = None
        self._began = self._processor = self._heard = 0.0
        self._asked = ""
        self._advances, self._looks, self._started = 0, False, False
        self._sampled = [0.0, 0.0]  # seconds, and seconds of processors, of the messages that were looked at

    def timed(self, start: Callable[[], Steps]) -> Callable[[], Steps]:
        """What a site does, with the clock around it."""
        return lambda: _Timed(start(), self)

    def __enter__(self) -> None:
        if self.turn:  # it was answered: the turn in which it asked is over
            self._profile.turn_over()
        self._looks = self._advances % _EVERY == 0
        self._advances += 1
        if self._looks:
            self._processor = time.process_time()
        self._heard = 0.0
        self._began = time.perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        seconds = time.perf_counter() - self._began - self._heard
        self.turn += seconds
        self.spent.computing += seconds
        if self._looks:
            self._sampled[0] += seconds
            self._sampled[1] += max(0.0, time.process_time() - self._processor - self._heard)

    def asks(self, tag: str) -> None:
        """What it has come to: the next question."""
        self.kind, self._asked = f"{self._asked} to {tag}", tag

    @contextmanager
    def not_its_own(self) -> Iterator[None]:
        """What happens inside is told through this site, but is not its work."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._heard += time.perf_counter() - began

    def set_apart(self, startup: float, waited: float, written: int) -> None:
        """Take what the first turn of a kind took longer from what was computed, and what it made this site wait from
        its waiting.

        Args:
            startup, waited: seconds.
            written: how many rows of this site were written before that turn.
        """
        own = [row for row in self._profile.rows.rows if row["site"] == self.name][written:]
        changes = {"computing": -startup, "startup": startup, "waiting": -waited}
        if own and own[0]["computing"]:  # of what is not yet written it is estimated with the row
            whole, processor = float(own[0]["computing"]), float(own[0]["processor"] or 0)
            changes["processor"] = -processor * min(1.0, startup / whole)
        for key, change in changes.items():
            if own:
                before = float(own[0][key] or 0)
                own[0][key] = round(max(0.0, before + change), 6)
                for spent in [self.total, *([self.opening] if own[0]["part"] == "opening" else [])]:
                    setattr(spent, key, getattr(spent, key) + float(own[0][key]) - before)
            else:
                setattr(self.spent, key, max(0.0, getattr(self.spent, key) + change))

    @property
    def written(self) -> int:
        """How many rows of this site are written."""
        return sum(row["site"] == self.name for row in self._profile.rows.rows)

    def on_build(self, run: Run) -> None:
        self._run = run
        self._own = History(RunDirectory(run.path).own_history_file) if run.path is not None else None

    def on_start(self, start: Start) -> None:
        """A study that goes on passes again through the epochs after its boundary: what was written of them goes."""
        self.epoch = start.epoch
        self.total, self.opening = self._profile.forget_after(self.name, start.epoch)
        if self._own is not None:
            self._own.restore([row for row in self._own.rows if int(row["epoch"]) <= start.epoch])
        self._loss = None
        self._measure_memory()
        if not self._started:  # a site that comes back does so in the middle of an epoch
            self.due, self._started = "opening", True

    def on_step(self, step: Step) -> None:
        if step.items:
            count_step(self.run.state.beside, step.items)
        self._note_loss()

    def on_validation(self, progress: Validation) -> None:
        self._note_loss()  # by now the losses of all steps have come from the accelerator

    def on_epoch(self, epoch: Epoch) -> None:
        self.epoch = epoch.epoch + 1
        self._measure_memory()
        self.due = "epoch"
        if self._own is not None:
            self._own.append(
                {"epoch": self.epoch, "step": epoch.step, "train_loss": self._loss, **self._validation(epoch)}
            )

    @property
    def in_training(self) -> bool:
        """Whether it has come to its first step, which is when there is something to tell."""
        return self.total.messages > 0

    @property
    def begun(self) -> bool:
        """Whether the site has built its run: one that was refused never does."""
        return self._run is not None

    @property
    def run(self) -> Run:
        """The site's run, once it is built."""
        assert self._run is not None
        return self._run

    def now(self) -> Spent:
        """What was spent so far, computing and waiting from the first step on."""
        spent, before = self.total.plus(self._since_last_row()), self.opening
        return replace(spent, computing=spent.computing - before.computing, waiting=spent.waiting - before.waiting)

    def write_row(self, part: str) -> None:
        """Write what was spent since the last row.

        Args:
            part: "opening" until training begins, "epoch", "end" after the last one.
        """
        spent = self._since_last_row()
        self._profile.rows.append(
            {"site": self.name, "epoch": self.epoch, "part": part, **spent.as_row(), **self._memory,
             "journal_bytes": self.run.state.beside.get(LARGEST, 0), "process_peak_bytes": lifetime_peak()}
        )  # fmt: skip
        self.total, self.spent = self.total.plus(spent), Spent()
        if part == "opening":
            self.opening = self.opening.plus(spent)
        self._sampled = [0.0, 0.0]

    def _since_last_row(self) -> Spent:
        """Counts are kept with the site's state, in all: what is new is what no row tells yet."""
        whole, processor = self._sampled
        spent = replace(self.spent, processor=self.spent.computing * processor / whole if whole else 0.0)
        if self._run is None:
            return spent
        counts, told = self._run.state.beside, self.total
        moved, done = summary(counts), trained(counts)
        return replace(
            spent,
            steps=done["steps"] - told.steps,
            items=done["items"] - told.items,
            messages=sum(kind["messages"] for kind in moved["by_kind"].values()) - told.messages,
            sent=moved["sent"] - told.sent,
            received=moved["received"] - told.received,
        )

    def _note_loss(self) -> None:
        self._loss = self.run.state.sums.mean_loss

    def _validation(self, epoch: Epoch) -> dict[str, Any]:
        """Scores of this site's validation items alone, where the epoch was validated and it has some."""
        split = self.run.splits.get("validation")
        if "validation_loss" not in epoch.row or split is None or not split.cases:
            return {}
        with split.book.own():
            return {f"validation_{name}": value for name, value in split.book.compute().items()}

    def _measure_memory(self) -> None:
        state = self.run.state
        parts = {
            "model": [*state.model.parameters(), *state.model.buffers()],
            "optimizer": [optimizer.state for optimizer in state.optimizers.values()],
            "strategy": [] if state.strategy is None else state.strategy.state_dict(),
        }
        self._memory = {f"{name}_bytes": _size_of(part) for name, part in parts.items()}
        self.held = sum(self._memory.values())


class _Timed(Generator[Collective, Answer, RunResult]):
    """What a site does, with its clock running while it does it."""

    def __init__(self, steps: Steps, clock: SiteClock) -> None:
        self._steps, self._clock = steps, clock

    def send(self, answer: Answer) -> Collective:
        with self._clock:
            asked = self._steps.send(answer)
        self._clock.asks(asked.tag)
        return asked

    def throw(self, *error: Any) -> Collective:
        return self._steps.throw(*error)


def _size_of(value: object) -> int:
    """Bytes of all tensors in nested lists and dicts."""
    if isinstance(value, Tensor):
        return value.numel() * value.itemsize
    if isinstance(value, Mapping):
        return sum(_size_of(part) for part in value.values())
    if isinstance(value, list | tuple):
        return sum(_size_of(part) for part in value)
    return 0
