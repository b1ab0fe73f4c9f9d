"""Exponential moving average of the weights, kept as a module of its own and never swapped into the live one."""

from __future__ import annotations

import copy

import torch
from torch import nn


class MovingAverage:
    """EMA of a model's parameters; buffers are copied.

    After each optimizer step: average = decay * average + (1 - decay) * weights (Polyak and Juditsky, 1992).

    Args:
        model: the live model.
        decay: in (0, 1); values near 1 average over about 1 / (1 - decay) steps.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.module = copy.deepcopy(model).eval()
        self.module.requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module, steps: int = 1) -> None:
        """Take weights into the average.

        Args:
            model: the live model.
            steps: for so many steps they count, the last ones.
        """
        averages = [parameter.detach() for parameter in self.module.parameters()]
        live = [parameter.detach() for parameter in model.parameters()]
        torch._foreach_lerp_(averages, live, 1.0 - self.decay**steps)
        self.take_buffers(model)

    @torch.no_grad()
    def take_buffers(self, model: nn.Module) -> None:
        """Copy the live model's running statistics."""
        for average, live in zip(self.module.buffers(), model.buffers(), strict=True):
            average.copy_(live)
