"""Inputs that a network does not use."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from weft.actions.checking.trial import forward
from weft.data import Batch
from weft.engine.run import Run

_MOST_PERMUTED = 64


def ignored_inputs(trial: Run, model: nn.Module, batch: Batch) -> list[tuple[int, int | None]]:
    """Inputs, and features of inputs that are vectors, which do not change the outputs of a model in evaluation mode.

    Returns:
        place of the input and of the feature; None for all of an input.
    """
    inputs = batch.inputs if isinstance(batch.inputs, tuple) else (batch.inputs,)
    if batch.size < 2 or not all(isinstance(part, Tensor) for part in inputs):
        return []
    candidates = _without_gradient(trial, model, batch, inputs)
    with torch.no_grad():
        before = forward(trial, model, batch)[0]
        if not torch.equal(before, forward(trial, model, batch)[0]):
            return []  # it draws random numbers: nothing can be said
        return [
            (place, feature)
            for place, feature in candidates[:_MOST_PERMUTED]
            if _is_ignored(trial, model, batch, inputs, place, feature, before)
        ]


def _without_gradient(
    trial: Run, model: nn.Module, batch: Batch, inputs: tuple[Tensor, ...]
) -> list[tuple[int, int | None]]:
    """Inputs and features without a gradient: few, so that trying each out is cheap."""
    leaves = tuple(part.detach().clone().requires_grad_(part.is_floating_point()) for part in inputs)
    asked = Batch(leaves if isinstance(batch.inputs, tuple) else leaves[0], batch.targets, batch.index, batch.size)
    outputs = forward(trial, model, asked)[0]
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(outputs.shape, generator=generator).to(outputs.device)
    if outputs.requires_grad:
        (outputs * weights).sum().backward()  # type: ignore[no-untyped-call]
    model.zero_grad(set_to_none=True)
    candidates: list[tuple[int, int | None]] = []
    for place, leaf in enumerate(leaves):
        if leaf.grad is None or not bool(leaf.grad.any()):
            candidates.append((place, None))
        elif leaf.ndim == 2:
            candidates += [(place, int(f)) for f in (~leaf.grad.any(0)).nonzero().flatten()]
    return candidates


def _is_ignored(
    trial: Run,
    model: nn.Module,
    batch: Batch,
    inputs: tuple[Tensor, ...],
    place: int,
    feature: int | None,
    before: Tensor,
) -> bool:
    """Whether outputs stay the same when the samples swap this input (or are given another value)."""
    changed = inputs[place].clone()
    part = changed if feature is None else changed[:, feature]
    swapped = part.roll(1, 0)
    if torch.equal(swapped, part):
        return False  # it does not vary in this batch
    if feature is None:
        changed = swapped
    else:
        changed[:, feature] = swapped
    several = tuple(changed if number == place else part for number, part in enumerate(inputs))
    asked = Batch(several if isinstance(batch.inputs, tuple) else several[0], batch.targets, batch.index, batch.size)
    return torch.equal(before, forward(trial, model, asked)[0])
