"""Where the time of a training step goes, measured from outside: the loop itself is the one that trains.

What is wrapped: the loader's batches, their move to the device, the task's step, the loss (whose backward pass tells
when it begins and ends), the optimizers (through torch's own hooks), and the collectives between two yields.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Variable

from weft.data import Batch
from weft.engine.collectives import Answer, Collective
from weft.engine.events import Observer, Observers, Step
from weft.engine.run import Run
from weft.tasks import Update

PHASES = ("loading", "transfer", "forward", "backward", "optimizer", "exchange", "rest")


@dataclass(slots=True)
class Clock:
    """Seconds of each phase, step by step. An accelerator is waited for at every mark, so that its work counts where it
    was asked for.

    Args:
        device: where the model computes.
        steps: phase to seconds, one dict per finished step; "rest" is what no phase took.
    """

    device: torch.device
    steps: list[dict[str, float]] = field(default_factory=list)
    _running: dict[str, float] = field(default_factory=dict)
    _began: float = 0.0

    def now(self) -> float:
        """The time, when all that was asked for is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def begin(self) -> None:
        """A step begins."""
        self._running, self._began = {}, self.now()

    def add(self, phase: str, seconds: float) -> None:
        """Count time for a phase of the running step."""
        self._running[phase] = self._running.get(phase, 0.0) + seconds

    def end(self) -> None:
        """The step is over, and the next one begins."""
        now = self.now()
        spent, total = self._running, now - self._began
        self.steps.append({**spent, "rest": total - sum(spent.values()), "step": total})
        self._running, self._began = {}, now

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """What happens inside belongs to a phase."""
        began = self.now()
        try:
            yield
        finally:
            self.add(name, self.now() - began)


@contextmanager
def watched(run: Run, observer: Observer) -> Iterator[None]:
    """Inside, an observer more watches the run."""
    before = run.observers
    run.observers = Observers([*before.observers, observer])
    try:
        yield
    finally:
        run.observers = before


class _Paced(Observer):
    """Ends the clock's steps."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_step(self, step: Step) -> None:
        self.clock.end()


@contextmanager
def measured(run: Run, clock: Clock) -> Iterator[None]:
    """Inside, the steps of a run are noted by the clock; afterwards the run is as it was."""
    optimizers = list(run.state.optimizers.values())
    watch = _Paced(clock)
    handles = [handle for optimizer in optimizers for handle in _time_optimizer(optimizer, clock)]
    loader, task = run.train, run.task
    assert loader is not None
    whole_epoch, training_step = loader.epoch, task.training_step
    loader.epoch = lambda epoch, skip=0: _timed_batches(whole_epoch(epoch, skip), clock)  # type: ignore[method-assign]
    task.training_step = lambda model, batch: _timed_updates(training_step, model, batch, clock)  # type: ignore[method-assign]
    try:
        with watched(run, watch):
            yield
    finally:
        del loader.epoch, task.training_step  # what the classes have is in force again
        for handle in handles:
            handle.remove()


def timed_exchange(steps: Generator[Collective, Answer, Any], clock: Clock) -> Generator[Collective, Answer, Any]:
    """The same generator; the time between its questions and their answers counts as exchange."""
    answer: Answer | None = None
    while True:
        try:
            collective = next(steps) if answer is None else steps.send(answer)
        except StopIteration as end:
            return end.value
        began = clock.now()
        answer = yield collective
        clock.add("exchange", clock.now() - began)


class _TimedBatch(Batch):
    """A batch whose move to the device is timed."""

    __slots__ = ("clock",)
    clock: Clock

    def to(self, *arguments: Any, **settings: Any) -> Batch:
        with self.clock.phase("transfer"):
            return super().to(*arguments, **settings)


def _timed_batches(batches: Iterator[Batch], clock: Clock) -> Iterator[Batch]:
    while True:
        with clock.phase("loading"):
            batch = next(batches, None)
        if batch is None:
            return
        timed = _TimedBatch(**{field.name: getattr(batch, field.name) for field in fields(Batch)})
        timed.clock = clock
        yield timed


def _timed_updates(
    training_step: Callable[[nn.Module, Batch], Iterable[Update]], model: nn.Module, batch: Batch, clock: Clock
) -> Iterator[Update]:
    """Forward passes and losses; a task that is a generator computes each one when it is asked for."""
    with clock.phase("forward"):
        updates = iter(training_step(model, batch))
    while True:
        with clock.phase("forward"):
            update = next(updates, None)
        if update is None:
            return
        _time_backward(update.loss, clock)
        yield update


def _time_backward(loss: Tensor, clock: Clock) -> None:
    """From the gradient of the loss to the end of the pass that it is part of."""
    if not loss.requires_grad:
        return

    def begun(gradient: Tensor) -> None:
        began = clock.now()
        engine: Any = Variable._execution_engine
        engine.queue_callback(lambda: clock.add("backward", clock.now() - began))

    loss.register_hook(begun)  # type: ignore[no-untyped-call]


def _time_optimizer(optimizer: torch.optim.Optimizer, clock: Clock) -> list[Any]:
    began: list[float] = []

    def before(*_: Any) -> None:
        began.append(clock.now())

    def after(*_: Any) -> None:
        clock.add("optimizer", clock.now() - began.pop())

    return [optimizer.register_step_pre_hook(before), optimizer.register_step_post_hook(after)]
