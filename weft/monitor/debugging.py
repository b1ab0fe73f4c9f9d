"""What goes through a network, for `weft train --debug`: statistics of batches, and gradients layer by layer."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from weft.data import Batch, Loader
from weft.engine.events import Observer, Start, Step
from weft.engine.run import Run
from weft.errors import NotFiniteError
from weft.monitor.words import number

logger = logging.getLogger("weft.debug")
logger.setLevel(logging.INFO)  # whoever asks for it wants it in log.txt, also from Python

_DISTINCT = 20  # so many values are listed, of more only their number is told


class Debugging(Observer):
    """Logs batches and gradients of the first steps, and of a step with values that are not finite.

    Messages go to the run's `log.txt` and, on the command line, to standard error. Only a run that has this observer
    pays for it; what it trains stays the same.

    Args:
        steps: how many steps are told of, counted from where the run begins or goes on.
        where: stands before what is told, where several runs are told of.
    """

    def __init__(self, steps: int = 3, where: str = "") -> None:
        self.steps, self.where = steps, where
        self._run: Run | None = None
        self._batches: deque[Batch] = deque()
        self._until = 0
        self._told = False

    def on_build(self, run: Any) -> None:
        """Watch what the training loader gives."""
        self._run = run
        self._batches = deque(maxlen=run.plan.accumulate)
        if run.train is not None:
            run.train = _Watched(run.train, self._batches)

    def on_start(self, start: Start) -> None:
        self._until = start.step + self.steps
        self._told = False
        logger.info("debug: %sbatches and gradients of the first %d steps follow", self.where, self.steps)

    def on_step(self, step: Step) -> None:
        if self._run is None:
            return
        model = self._run.state.model
        broken = not math.isfinite(_norm([p.grad for p in model.parameters() if p.grad is not None]))
        if step.step <= self._until:
            self._tell(f"step {step.step}")
        elif broken and not self._told:
            self._told = True
            self._tell(f"step {step.step}, whose gradients are not finite")

    def on_error(self, error: BaseException) -> None:
        if isinstance(error, NotFiniteError) and self._run is not None:
            self._tell("the step before the run ended")

    def _tell(self, title: str) -> None:
        assert self._run is not None
        lines = [f"debug: {self.where}{title}"]
        for number_of, batch in enumerate(self._batches):
            lines.append(f"  batch {number_of + 1} of {len(self._batches)}: {batch.size} samples")
            lines += [f"    inputs{place}: {describe(part)}" for place, part in _parts(batch.inputs)]
            lines += [f"    targets{place}: {describe(part)}" for place, part in _parts(batch.targets)]
        logger.info("%s", "\n".join([*lines, *gradient_lines(self._run.state.model)]))


class _Watched:
    """A loader whose batches are remembered on their way."""

    def __init__(self, loader: Loader, seen: deque[Batch]) -> None:
        self._loader = loader
        self._seen = seen

    def epoch(self, epoch: int, skip: int = 0) -> Iterator[Batch]:
        """As the loader's own."""
        for batch in self._loader.epoch(epoch, skip=skip):
            self._seen.append(batch)
            yield batch

    def __len__(self) -> int:
        return len(self._loader)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)


def _parts(value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, tuple | list):
        return [(f" {place}", part) for place, part in enumerate(value)]
    if isinstance(value, dict):
        return [(f" {key}", part) for key, part in value.items()]
    return [("", value)]


def describe(value: Any) -> str:
    """Shape, type and statistics of a tensor in a line; whole numbers with the values that occur."""
    if not isinstance(value, Tensor):
        return type(value).__name__
    kind = str(value.dtype).removeprefix("torch.")
    told = [f"{list(value.shape)} {kind}"]
    if not value.numel():
        return told[0]
    numbers = value.detach().to(torch.float64)
    finite = numbers[torch.isfinite(numbers)]
    if len(finite) < numbers.numel():
        told.append(f"{numbers.numel() - len(finite):,} NOT FINITE")
    if len(finite):
        deviation = float(finite.std(correction=0))
        told.append(f"mean {number(float(finite.mean()))}, std {number(deviation)}")
        told.append(f"min {number(float(finite.min()))}, max {number(float(finite.max()))}")
    if not value.is_floating_point():
        values, counts = torch.unique(value, return_counts=True)
        shown = ", ".join(f"{v}: {c}" for v, c in zip(values.tolist()[:_DISTINCT], counts.tolist()))
        told.append(f"{len(values)} distinct" + (f" ({shown}{', …' if len(values) > _DISTINCT else ''})"))
    return ", ".join(told)


def gradient_lines(model: nn.Module) -> list[str]:
    """A line for each parameter that is trained: norm and largest entry of its gradient, norm of its weights."""
    lines = ["  gradients: norm, largest entry, norm of the weights"]
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if parameter.grad is None:
            lines.append(f"    {name}: none")
            continue
        gradient, weights = parameter.grad.detach().float(), parameter.detach().float()
        mark = "" if bool(torch.isfinite(gradient).all()) else ", NOT FINITE"
        mark += "" if bool(torch.isfinite(weights).all()) else ", WEIGHTS NOT FINITE"
        sizes = (gradient.norm(), gradient.abs().max(), weights.norm())
        lines.append(f"    {name}: {', '.join(number(float(size)) for size in sizes)}{mark}")
    return lines


def _norm(gradients: list[Tensor]) -> float:
    if not gradients:
        return 0.0
    return float(torch.stack([norm.float() for norm in torch._foreach_norm(gradients)]).norm())
