"""`weft profile`: where the time of training goes, phase by phase, and what else an epoch costs."""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from weft.actions.advice import advise
from weft.actions.batch_size import settle
from weft.actions.beginning import require_training_data
from weft.actions.checking.estimates import existing
from weft.actions.launching import launch, reported
from weft.actions.opening import Source, load, one_fold, open_experiment_data, open_run, threads_of
from weft.config import Experiment
from weft.data import Data
from weft.engine import CheckpointFolder, Membership, Observer, RunResult, build_run, drive_alone, pick_device
from weft.engine.collectives import Answer, Collective
from weft.engine.determinism import reproducible
from weft.engine.events import Step, Validation
from weft.engine.freezing import prepare_modules
from weft.engine.loop import train_epoch
from weft.engine.memory import PeakMemory
from weft.engine.phases import PHASES, Clock, measured, timed_exchange, watched
from weft.engine.processes import Place, drive_among_processes, find_place, joined
from weft.engine.run import Run
from weft.engine.scoring import score_split
from weft.engine.sharing import save, share_state
from weft.engine.state import EpochSums
from weft.errors import UsageError
from weft.report import write_report
from weft.runs import RunDirectory, is_run, read_json

STEPS = 50
_COLD = 3  # first steps: memory is asked for, kernels are chosen
_TRACED = 10  # steps of a trace: enough to see, and a file that a browser still opens
_VALIDATION_SECONDS = 10.0

Exchange = Generator[Collective, Answer, None]


@dataclass(frozen=True, slots=True)
class PhaseTime:
    """What a phase of a step takes: median and 90 % quantile over the measured steps in seconds, share of all time."""

    median: float
    p90: float
    share: float


@dataclass(slots=True)
class Profile:
    """What `weft profile` measured. All times are in seconds, memory in bytes.

    Args:
        name: of the experiment.
        device, threads, processes, num_workers, batch_size, accumulate, in_memory: under which circumstances; several
            processes are shown as the first of them saw it.
        steps: how many steps were measured, twice: left alone, and phase by phase.
        seconds_per_step: of steps that were left alone.
        items_per_second: likewise, of all processes together.
        phases: by name, in the order of a step; "step" is all of it.
        steps_per_epoch: optimizer steps.
        validation: seconds of scoring the validation split once, extrapolated where that takes long; None without one.
        checkpoint: seconds that training stands still for a checkpoint.
        epoch: seconds of an epoch with its share of validation and checkpoints.
        shares: of validation and checkpoints in an epoch.
        memory: most in use while training.
        hints: what to do, in words.
    """

    name: str
    device: str
    threads: int
    processes: int
    num_workers: int
    batch_size: int
    accumulate: int
    in_memory: bool
    steps: int
    seconds_per_step: float = math.nan
    items_per_second: float = math.nan
    phases: dict[str, PhaseTime] = field(default_factory=dict)
    steps_per_epoch: int = 0
    validation: float | None = None
    checkpoint: float = 0.0
    epoch: float = 0.0
    shares: dict[str, float] = field(default_factory=dict)
    memory: int = 0
    hints: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, written: Mapping[str, Any]) -> Profile:
        """What `as_dict` gave."""
        phases = {name: PhaseTime(**times) for name, times in written["phases"].items()}
        return cls(**{**written, "phases": phases})


def profile(
    source: Source,
    overrides: Sequence[str] = (),
    *,
    steps: int = STEPS,
    trace: Path | str | None = None,
) -> Profile:
    """Train some steps of an experiment, throw them away, and say where their time went.

    Args:
        source: experiment file, dict, `Experiment`, or the directory of a run, which then keeps the result as
            `profile.json` and shows it in its report. Of folds the first one is taken.
        overrides: `key=value` texts as for `--set`.
        steps: how many optimizer steps are measured, at least 1.
        trace: where to write a trace of further ten steps for a browser's tracing page (`chrome://tracing`, Perfetto).

    Returns:
        what was measured, by the first of several processes.

    Raises:
        ConfigError, DataError: the experiment or its data are wrong.
        RunDirectoryError: there is no run, or another process writes there.
    """
    place = find_place()
    first = place is None or place.first
    directory: RunDirectory | None = None
    if isinstance(source, str | Path) and is_run(source):
        opened = open_run(source, overrides, writing=first)
        experiment, directory = opened.experiment, opened.directory
    else:
        experiment = load(source, overrides)
    with directory if directory is not None and first else nullcontext():
        if place is None and experiment.run.processes > 1:
            found = _among_processes(source, overrides, experiment.run.processes, steps, trace)
        else:
            found = _profile(experiment, place, steps, trace)
        if directory is not None and first:
            directory.write_json(directory.profile_file, found.as_dict())
            if directory.report.exists():
                write_report(directory.path)
    return found


def _among_processes(
    source: Source, overrides: Sequence[str], processes: int, steps: int, trace: Path | str | None
) -> Profile:
    """Start the processes; the first of them writes what it measured."""
    if not isinstance(source, str | Path):
        raise UsageError(
            "several processes need an experiment file", "write the experiment to a file, or profile one process"
        )
    with tempfile.TemporaryDirectory(prefix="weft-profile-") as folder:
        result = Path(folder) / "profile.json"
        arguments = ["profile", str(source), "--steps", str(steps), "--out", str(result)]
        arguments += [] if trace is None else ["--trace", str(trace)]
        changes = [word for text in overrides for word in ("--set", text)]
        launch([*arguments, *changes], Path(folder), processes=processes)
        return Profile.from_dict(read_json(result))


def _profile(experiment: Experiment, place: Place | None, steps: int, trace: Path | str | None) -> Profile:
    experiment = one_fold(experiment)
    with _joined(place, experiment):
        data = open_experiment_data(experiment)
        require_training_data(data)
        experiment = settle(experiment, data=data)
        threads, device = threads_of(experiment, data), pick_device(experiment.run.device)
        with (
            reproducible(threads=threads, deterministic=experiment.training.deterministic, device=device),
            tempfile.TemporaryDirectory(prefix=".weft-profile-", dir=existing(_output(experiment))) as folder,
        ):
            session = _Session(experiment, data, threads, steps, trace, Path(folder))
            try:
                generator = session.measure()
                if place is None:
                    drive_alone(generator)
                else:
                    drive_among_processes(generator, place, lambda: session.run.state.position)
            finally:
                session.run.close()
    session.profile.hints = advise(experiment, session.profile)
    return session.profile


@contextmanager
def _joined(place: Place | None, experiment: Experiment) -> Iterator[None]:
    if place is None:
        yield
        return
    with reported(place.rank, experiment.run.timeout), joined(place, timeout=experiment.run.timeout):
        yield


def _output(experiment: Experiment) -> Path:
    return experiment.path(experiment.run.output)


class _Session:
    """One profile in the making: the run, and what was measured of it so far."""

    def __init__(
        self, experiment: Experiment, data: Data, threads: int, steps: int, trace: Path | str | None, folder: Path
    ) -> None:
        self.experiment, self.trace = experiment, trace
        self.run = run = build_run(
            experiment, data, checkpoints=CheckpointFolder(folder), membership=Membership.of(find_place())
        )
        assert run.train is not None
        self.profile = Profile(
            experiment.name, str(run.plan.device), threads, run.participants, run.train.num_workers,
            run.plan.batch_size, run.plan.accumulate, data.splits["train"].arrays is not None, steps,
            steps_per_epoch=run.steps_per_epoch,
        )  # fmt: skip

    def measure(self) -> Generator[Collective, Answer, RunResult]:
        """All that is measured, one after the other: the generator for drivers."""
        run, found, memory = self.run, self.profile, PeakMemory(self.run.plan.device)
        yield from share_state(run)
        if run.state.strategy is not None:
            run.state.strategy.watch(run.state.model)
        self._hold_rates()
        memory.restart()
        yield from self._cold_steps()
        yield from self._undisturbed()
        found.memory = memory.peak
        yield from self._phases()
        if "validation" in run.splits:
            yield from self._validation()
        yield from self._checkpoint()
        if self.trace is not None:
            yield from self._traced(Path(self.trace))
        self._sum_up()
        return RunResult("profiled", run.state.position.epoch, run.state.position.step, 0.0)

    def _hold_rates(self) -> None:
        """A schedule that would be over before all is measured, and then might raise, is not stepped."""
        run, plan = self.run, self.run.plan
        wanted = 2 * (self._cold + self.profile.steps) + (_TRACED if self.trace is not None else 0)
        if wanted > min(plan.epochs * run.steps_per_epoch, math.inf if plan.steps is None else plan.steps):
            for schedule in run.state.schedules.values():
                schedule.per_step = False

    @property
    def _cold(self) -> int:
        assert self.run.train is not None
        return _COLD + 2 * self.run.train.num_workers

    def _cold_steps(self) -> Exchange:
        yield from train_steps(self.run, self._cold)

    def _undisturbed(self) -> Exchange:
        run, clock = self.run, Clock(self.run.plan.device)
        counted = _Items()
        with watched(run, counted):
            began = clock.now()
            yield from train_steps(run, self.profile.steps)
            seconds = clock.now() - began
        self.profile.seconds_per_step = seconds / self.profile.steps
        self.profile.items_per_second = counted.items * run.participants / seconds

    def _phases(self) -> Exchange:
        clock = Clock(self.run.plan.device)
        with measured(self.run, clock):
            yield from self._cold_steps()
            clock.steps.clear()
            clock.begin()
            yield from timed_exchange(train_steps(self.run, self.profile.steps), clock)
        whole = sum(step["step"] for step in clock.steps)
        for name in (*PHASES, "step"):
            seconds = [step.get(name, 0.0) for step in clock.steps]
            if any(seconds):
                tail = sorted(seconds)[math.ceil(0.9 * len(seconds)) - 1]
                self.profile.phases[name] = PhaseTime(statistics.median(seconds), tail, sum(seconds) / whole)

    def _validation(self) -> Exchange:
        """Scoring is stopped, as by a signal, when it takes long."""
        run = self.run
        began = time.perf_counter()
        limit = _Limit(run, began + _VALIDATION_SECONDS)
        with watched(run, limit):
            yield from score_split(run, "validation")
        seconds = time.perf_counter() - began
        run.interruption.received = None
        self.profile.validation = seconds * limit.batches / max(limit.batch, 1)

    def _checkpoint(self) -> Exchange:
        began = time.perf_counter()
        yield from save(self.run)
        self.profile.checkpoint = time.perf_counter() - began

    def _traced(self, target: Path) -> Exchange:
        run = self.run
        with torch.profiler.profile(profile_memory=True) as profiler:
            yield from train_steps(run, _TRACED)
        if run.participant == 0:
            profiler.export_chrome_trace(str(target))

    def _sum_up(self) -> None:
        """An epoch's seconds, and the shares of what is not a step."""
        found, every = self.profile, self.experiment.run.checkpoint_every
        steps = found.steps_per_epoch * found.seconds_per_step
        validation = (found.validation or 0.0) / self.experiment.training.evaluate_every
        saves = 1 / every.epochs if every.epochs is not None else 0.0
        if every.steps is not None:
            saves = max(saves, found.steps_per_epoch / every.steps)
        if every.minutes is not None:
            saves = max(saves, (steps + validation) / (60 * every.minutes))
        saving = saves * found.checkpoint
        found.epoch = steps + validation + saving
        found.shares = {"validation": validation / found.epoch, "checkpoints": saving / found.epoch}


def train_steps(run: Run, count: int) -> Exchange:
    """Train some optimizer steps, over as many epochs as that takes; nothing is validated or saved."""
    run.plan = replace(
        run.plan, steps=run.state.position.step + count, save_steps=None, save_seconds=None, save_epochs=None
    )
    position = run.state.position
    assert run.plan.steps is not None
    while position.step < run.plan.steps:
        prepare_modules(run)
        yield from train_epoch(run)
        if position.step < run.plan.steps:
            position.epoch, position.batch = position.epoch + 1, 0
            run.state.sums = EpochSums()


class _Items(Observer):
    items = 0

    def on_step(self, step: Step) -> None:
        self.items += step.items


class _Limit(Observer):
    """Ends scoring at a time."""

    def __init__(self, run: Run, end: float) -> None:
        self.run, self.end = run, end
        self.batch, self.batches = 0, 0

    def on_validation(self, progress: Validation) -> None:
        self.batch, self.batches = progress.batch, progress.batches
        if time.perf_counter() > self.end and progress.batch < progress.batches:
            self.run.interruption.request("the profile")
