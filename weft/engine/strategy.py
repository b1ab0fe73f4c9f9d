"""Strategies: what participants of a run exchange, written as generators over collectives.

A strategy is a class with five small methods, all optional. Its memory changes only after its last yield of a step, so
that a participant that dies inside a step can be started again at the boundary and fed the answers it had.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from weft.engine.collectives import Answer, Collective, Sum

Exchange = Generator[Collective, Answer, None]


@dataclass(slots=True)
class Gradients:
    """The gradients of one update, to be averaged in place.

    Args:
        network: which network they belong to.
        parameters: those that are trained, in the model's order; a missing gradient counts as zero.
        weight: this participant's normaliser of the update, 0 when it has no data left; among processes of one run it
            is not a number where the loss was not.
        failed: set by a strategy that learns from the others' weights that one of them failed.
        flags: small whole numbers of this participant, to be replaced by their sums where `Strategy.carries_flags`.
        scaler: what the loss was scaled by, where it was.
    """

    network: str
    parameters: list[nn.Parameter]
    weight: float
    failed: bool = False
    flags: list[int] = field(default_factory=list)
    scaler: torch.amp.GradScaler | None = None

    @property
    def scale(self) -> float:
        """What the gradients are multiples of; a strategy that keeps some for later keeps them without it."""
        return self.scaler.get_scale() if self.scaler is not None else 1.0

    def tensors(self) -> list[Tensor]:
        """The gradients themselves (written in place by strategies), created as zeros where there are none."""
        for parameter in self.parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        return [parameter.grad for parameter in self.parameters if parameter.grad is not None]


def all_finite(tensors: Sequence[Tensor]) -> bool:
    """Whether there is no infinity and no nan; an accelerator is waited for once. All lie on one device."""
    if not tensors or bool(torch.stack(torch._foreach_norm(list(tensors))).sum().isfinite()):
        return True
    return bool(torch.stack([tensor.isfinite().all() for tensor in tensors]).all())  # norms may be too large


class Strategy:
    """Base class: exchanges nothing. Subclasses say what participants agree on, and when.

    Attributes:
        steps_per_round: a round is this many optimizer steps, or what is left of them when an epoch ends; None for an
            epoch.
        buffers: what happens to running statistics at the end of an epoch: "average" makes them equal everywhere,
            weighted by items; "private" leaves each participant its own.
        carries_flags: whether the gradients' flags are summed on the way, so that participants need not agree on each
            step apart. All must then have as many steps in an epoch.
        shows_gradients: whether what it sends shows whoever sums it that gradients are not finite. Where it does not, a
            site looks at its own before each step, and counts nothing in one in which they are not.
        participant, participants: which participant this is (from 0), of how many; told before it watches.
    """

    steps_per_round: int | None = None
    buffers: Literal["average", "private"] = "average"
    carries_flags: bool = False
    shows_gradients: bool = False
    participant: int = 0
    participants: int = 1

    def takes_part(self, participant: int, participants: int) -> None:
        """Learn which participant this is (from 0), of how many."""
        self.participant, self.participants = participant, participants

    def watch(self, model: nn.Module) -> None:
        """Look at the model before training, for example to register hooks.

        Args:
            model: under the names of the user's model, not compiled.
        """

    def loss_term(self, model: nn.Module) -> Tensor | None:
        """A term added to every loss of this participant (FedProx): a scalar that gradients flow from, or None.

        Args:
            model: with the weights before the step.
        """
        return None

    def last_backward(self, parameters: list[nn.Parameter]) -> None:
        """Called before the backward pass after which the gradients of an update are complete; not where there are no
        items.

        Args:
            parameters: those that the update trains.
        """

    def average_gradients(self, gradients: Gradients) -> Exchange:
        """Called once per update and accumulation window, before unscaling and clipping; writes gradients in place.

        Args:
            gradients: of one network, with the weight of what they are from; a participant without items has weight 0.
        """
        return
        yield  # makes this a generator

    def after_step(self, model: nn.Module) -> None:
        """Called after every optimizer step of this participant, with the new weights in `model`."""

    def end_of_round(self, model: nn.Module) -> Exchange:
        """Called at the end of every round; writes the parameters of `model` in place."""
        return
        yield

    def has_rounds(self) -> bool:
        """Whether participants train by themselves in between, and have the same weights when a round ends only."""
        return type(self).end_of_round is not Strategy.end_of_round

    def own_tensors(self, model: nn.Module) -> frozenset[str]:
        """Names of the parameters and buffers that never leave a participant and may differ between them.

        Args:
            model: under the names of the user's model.
        """
        return frozenset(name for name, _ in model.named_buffers()) if self.buffers == "private" else frozenset()

    def returned(self) -> None:
        """Called when a participant that was away begins again, with the others' memory under "shared" and its own
        elsewhere: forget what belongs to the round that it left.
        """

    def state_dict(self) -> dict[str, Any]:
        """Memory of the strategy: tensors, numbers, strings, lists and dicts only. What is the same at all participants
        stands under "shared"; everything else is each one's own and never leaves it.
        """
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken."""

    def private_state_dict(self) -> dict[str, Any]:
        """Memory that each of the processes that share a run has of its own, where `state_dict` is the same in all."""
        return {}

    def load_private_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `private_state_dict` was taken."""


class PooledGradients(Strategy):
    """The mean over the global batch, for processes that share one: each has weighed its loss before the backward pass.

    Weighing before, not after, is what makes it exact where the forward passes depend on one another (batch
    statistics of the global batch): gradients that flow between processes carry the weight of the loss they come
    from.
    """

    carries_flags = True

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size

    def average_gradients(self, gradients: Gradients) -> Exchange:
        """Replace the gradients by their sum over all processes, divided by the items that the batch really had.

        What no process's items reached has no gradient, as with one process: an optimizer with momentum would move it.
        """
        said = torch.tensor(self.said(gradients), dtype=torch.float64)
        *sums, told = yield Sum(f"gradients {gradients.network}", [*self.sent(gradients), said])
        self.hear(gradients, sums, told.tolist())

    def said(self, gradients: Gradients) -> list[float]:
        """What goes with the gradients: their weight, the flags, and for each parameter whether items reached it."""
        return [gradients.weight, *gradients.flags, *(parameter.grad is not None for parameter in gradients.parameters)]

    def hear(self, gradients: Gradients, sums: list[Tensor], told: list[float]) -> None:
        """Make the sums the gradients, and those of what all said the flags."""
        total, *counts = told
        flags, reached = counts[: len(gradients.flags)], counts[len(gradients.flags) :]
        gradients.failed, gradients.flags = not math.isfinite(total), [int(flag) for flag in flags]
        self.take(gradients, sums, total / self.batch_size)
        for parameter, processes in zip(gradients.parameters, reached, strict=True):
            if not processes:
                parameter.grad = None

    def sent(self, gradients: Gradients) -> list[Tensor]:
        """What is summed over the processes."""
        return gradients.tensors()

    def take(self, gradients: Gradients, sums: list[Tensor], share: float) -> None:
        """Make the sums, divided by `share` of a full batch, the gradients."""
        for tensor, summed in zip(gradients.tensors(), sums, strict=True):
            tensor.copy_(summed if share in (0.0, 1.0) else summed / share)


class AverageGradients(Strategy):
    """Weighted mean of all participants' gradients at every step: pooled training, seen from inside one participant.

    Each participant sends its gradients times the weight of its batch, and the weight: (parameters + 1) numbers per
        step.
    """

    shows_gradients = True

    def average_gradients(self, gradients: Gradients) -> Exchange:
        """Replace the gradients by the mean over all participants, weighted by items."""
        tensors = gradients.tensors()
        weight = torch.tensor([gradients.weight], dtype=torch.float64)
        if gradients.weight <= 0:  # 0 * inf would be nan: a participant without a say sends exact zeros
            for tensor in tensors:
                tensor.zero_()
        elif tensors:
            torch._foreach_mul_(tensors, gradients.weight)
        *sums, total = yield Sum(f"gradients {gradients.network}", [*tensors, weight], borrows=True)
        for tensor, summed in zip(tensors, sums, strict=True):
            torch.div(summed, float(total) or 1.0, out=tensor)
