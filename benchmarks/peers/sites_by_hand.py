"""Five sites in one process and thread, by hand: each computes its gradients, all take the mean. Nothing is scored,
saved or counted, and nobody is kept apart from the others: the least that simulating dSGD takes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap

from weft.nets import MLP

Table = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]


class SitesByHand:
    """Models that begin alike.

    Args:
        tables: training rows of each site.
        sizes: of the perceptron's layers.
        batch_size: of each site.
    """

    def __init__(self, tables: list[Table], sizes: list[int], batch_size: int) -> None:
        self.batch_size = batch_size
        self.tables = [(torch.from_numpy(inputs), torch.from_numpy(targets)) for inputs, targets in tables]
        self.models = [MLP(sizes[0], sizes[-1], sizes[1:-1]) for _ in tables]
        for model in self.models[1:]:
            model.load_state_dict(self.models[0].state_dict())
        self.optimizers = [torch.optim.Adam(model.parameters(), lr=1e-3) for model in self.models]

    def steps(self, count: int) -> list[float]:
        """Take so many steps; the seconds of each."""
        return _seconds(self._step, count)

    def gradients(self, count: int) -> list[float]:
        """Only compute the gradients of a step, so many times; the seconds of each."""
        return _seconds(self._backward, count)

    def together(self, count: int) -> list[float]:
        """Only compute the gradients of a step, those of all sites at once and each apart; the seconds of each.

        `torch.func.vmap` does that for any module that has no random numbers and no statistics of its batch.
        """
        weights = stack_module_state(self.models)[0]  # type: ignore[arg-type]

        def loss(own: dict[str, Tensor], inputs: Tensor, targets: Tensor) -> Tensor:
            return nn.functional.cross_entropy(functional_call(self.models[0], own, (inputs,)), targets)

        gradients = vmap(grad(loss))
        return _seconds(lambda: gradients(weights, *self._batches(torch.stack)), count)

    def pooled(self, count: int) -> list[float]:
        """Only one forward and backward pass of one model, over the rows of all sites; the seconds of each."""
        return _seconds(self._pooled, count)

    def _step(self) -> None:
        self._backward()
        for parameters in zip(*(model.parameters() for model in self.models), strict=True):
            gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
            mean = torch.stack(gradients).mean(0)
            for gradient in gradients:
                gradient.copy_(mean)
        for optimizer in self.optimizers:
            optimizer.step()

    def _pooled(self) -> None:
        inputs, targets = self._batches(torch.cat)
        self.optimizers[0].zero_grad()
        nn.functional.cross_entropy(self.models[0](inputs), targets).backward()

    def _batches(self, join: Callable[[list[Tensor]], Tensor]) -> tuple[Tensor, Tensor]:
        rows = [torch.randint(len(inputs), (self.batch_size,)) for inputs, _ in self.tables]
        inputs, targets = (
            join([table[part][chosen] for table, chosen in zip(self.tables, rows, strict=True)]) for part in (0, 1)
        )
        return inputs, targets

    def _backward(self) -> None:
        for (inputs, targets), model, optimizer in zip(self.tables, self.models, self.optimizers, strict=True):
            rows = torch.randint(len(inputs), (self.batch_size,))
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs[rows]), targets[rows]).backward()


def _seconds(work: Callable[[], object], count: int) -> list[float]:
    times = []
    for _ in range(count):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return times
