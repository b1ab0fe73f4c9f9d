"""Whether a network can learn a handful of samples by heart: the quickest proof that its parts fit together."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from weft.actions.checking.facts import content_hashes
from weft.actions.checking.trial import narrowed, ready
from weft.data import Batch
from weft.engine.run import Run
from weft.engine.uncompiled import step_of
from weft.tasks import Classification, Regression

_RATES = (3e-3, 3e-2, 3e-4)  # of Adam; the experiment's own rate is judged elsewhere
_STEPS = 120  # with each rate
_SAMPLES = 8
_SMOOTH = 0.8
_ENOUGH_STEPS = 60
_NO_BETTER = 0.97  # of the loss of a constant prediction: this is no progress
_FAR = 0.5  # of the first loss: this will do


@dataclass(frozen=True, slots=True)
class Fit:
    """How far a few samples could be learned by heart.

    Args:
        outcome: "fitted"; "partly" (the loss fell, but not far); "stuck" (it did not); "no time" (too few steps).
        first, last: the loss before and the lowest one.
        steps: how many steps were taken.
        samples: of how many samples.
        right: share of samples whose class was told rightly in the end; None where there are no classes.
    """

    outcome: str
    first: float
    last: float
    steps: int
    samples: int
    right: float | None = None

    def words(self) -> str:
        """In a sentence."""
        right = "" if self.right is None else f", {self.right:.0%} of the classes right"
        return f"loss {self.first:.4g} to {self.last:.4g} in {self.steps} steps on {self.samples} samples{right}"


def overfit(run: Run, batch: Batch, seconds: float) -> Fit:
    """Try to learn a few samples of a batch by heart, with Adam and without dropout; weights are changed by it.

    Args:
        run: a trial run of a task with one network; its weights are put back by the caller.
        batch: the batch, where the model lives.
        seconds: how long to try at most.
    """
    few = narrowed(batch, _choose(run, batch))
    start = {name: tensor.clone() for name, tensor in run.state.model.state_dict().items()}
    end = time.monotonic() + seconds
    best = Fit("no time", math.nan, math.inf, 0, few.size)
    for rate in _RATES:
        run.state.model.load_state_dict(start)
        fit = _fit(run, few, rate, end)
        steps = best.steps + fit.steps
        if not fit.last >= best.last:
            best = fit
        best = Fit(best.outcome, best.first, best.last, steps, few.size, best.right)
        if best.outcome == "fitted" or time.monotonic() > end:
            break
    if best.outcome == "fitted" or best.steps < _ENOUGH_STEPS:
        return best
    outcome = best.outcome
    if best.last > _NO_BETTER * min(best.first, constant_loss(run, few)):
        outcome = "stuck"
    elif best.last <= _FAR * best.first:
        outcome = "fitted"
    return Fit(outcome, best.first, best.last, best.steps, best.samples, best.right)


def constant_loss(run: Run, batch: Batch) -> float:
    """The loss of the best constant prediction where that is the entropy of the classes; else infinite."""
    targets, loss = batch.targets, run.task.loss
    plain = isinstance(run.task, Classification) and run.task.kind != "multilabel"
    if plain and isinstance(targets, Tensor) and getattr(loss, "weight", None) is None:
        shares = torch.unique(targets.cpu(), return_counts=True)[1].double() / batch.size
        return float(-(shares * shares.log()).sum()) or math.inf
    return math.inf


def _choose(run: Run, batch: Batch) -> list[int]:
    """A few samples that differ, of as many classes as there are; of vectors no more than even a linear model can tell
    apart.
    """
    inputs = batch.inputs if isinstance(batch.inputs, tuple) else (batch.inputs,)
    rows, seen = [], set()
    hashes = zip(*(content_hashes(part).tolist() for part in inputs if isinstance(part, Tensor)))
    for row, content in enumerate(hashes):
        if content not in seen:
            rows.append(row)
            seen.add(content)
    targets = batch.targets
    if isinstance(run.task, Classification) and isinstance(targets, Tensor) and targets.ndim == 1:
        by_class: dict[float, list[int]] = {}
        for row in rows:
            by_class.setdefault(float(targets[row]), []).append(row)
        rows = [some[turn] for turn in range(batch.size) for some in by_class.values() if turn < len(some)]
    vectors = len(inputs) == 1 and inputs[0].ndim == 2
    most = min(_SAMPLES, inputs[0].shape[1] + 1) if vectors else _SAMPLES
    return sorted(rows[:most]) or list(range(min(_SAMPLES, batch.size)))


def _fit(run: Run, batch: Batch, rate: float, end: float) -> Fit:
    model = ready(run)
    _without_chance(run.state.model, batch)
    parameters = [parameter for parameter in run.state.model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=rate)
    enough = _is_enough(run, batch)
    first = last = math.nan
    right: float | None = None
    for step in range(_STEPS):
        with run.plan.precision.autocast():
            (update,) = run.task.training_step(model, batch)
        loss = float(update.loss.detach())
        if step == 0:
            first = loss
        last = loss if step == 0 else _SMOOTH * last + (1 - _SMOOTH) * loss  # noise is no progress
        if not math.isfinite(loss):
            return Fit("stuck", first, math.inf, step + 1, batch.size)
        done = enough(first, loss)
        if done or step % 20 == 19:
            right = _right(run, model, batch)
        if done or right == 1.0:
            return Fit("fitted", first, loss, step + 1, batch.size, right)
        if time.monotonic() > end:
            return Fit("no time", first, last, step + 1, batch.size, right)
        optimizer.zero_grad()
        update.loss.backward()  # type: ignore[no-untyped-call]
        step_of(optimizer)
    return Fit("partly", first, last, _STEPS, batch.size, right)


def _is_enough(run: Run, batch: Batch) -> Callable[[float, float], bool]:
    if isinstance(run.task, Regression) and isinstance(batch.targets, Tensor):
        spread = float(batch.targets.cpu().double().var(correction=0)) if batch.targets.numel() > 1 else 0.0
        return lambda first, loss: loss <= max(0.1 * first, 0.02 * spread) if first > 0 else False
    return lambda first, loss: loss <= 0.1 * first if first > 0 else False


def _without_chance(model: nn.Module, batch: Batch) -> None:
    """No dropout; and no batch statistics where there is one sample only."""
    for module in model.modules():
        dropout = isinstance(module, nn.modules.dropout._DropoutNd)
        statistics = isinstance(module, nn.modules.batchnorm._BatchNorm) and batch.size < 2
        if dropout or statistics:
            module.eval()


@torch.no_grad()
def _right(run: Run, model: nn.Module, batch: Batch) -> float | None:
    """Share of samples whose class is told rightly."""
    if not isinstance(run.task, Classification) or run.task.kind == "multilabel":
        return None
    with run.plan.precision.autocast():
        outputs, _ = run.task.forward(model, batch)
    told = run.task.predictions(outputs)["prediction"]
    return float((told == batch.targets.to(told.device)).float().mean())
