"""A patch of experiments whose processes are not alike: networks, data or decisions depend on the rank."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from weft.data import Batch
from weft.tasks import Classification, Update

RANK = int(os.environ.get("RANK", "0"))


def some_points(more: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """60 points of three classes; each process may have `more` than the one before."""
    count = 60 + more * RANK
    source = np.random.default_rng(0)
    return source.normal(size=(count, 12)).astype("float32"), np.arange(count) % 3


class OddNet(nn.Module):
    """A network that is `wider` in each process than in the one before."""

    def __init__(self, hidden: int = 8, wider: int = 0) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(12, hidden + wider * RANK), nn.ReLU(), nn.Linear(hidden + wider * RANK, 3))

    def forward(self, points: Tensor) -> Tensor:
        scores: Tensor = self.body(points)
        return scores


class RememberingNet(OddNet):
    """Keeps what its first forward pass makes, as positions of tokens often are, beside what is saved."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("signs", None, persistent=False)

    def forward(self, points: Tensor) -> Tensor:
        if self.signs is None:
            self.signs = 1.0 - 2.0 * (torch.arange(points.shape[1]) % 2)
        return super().forward(points * self.signs)


class Eager(Classification):
    """Begins to train a layer in the second process alone, in the fifth step."""

    count = 0

    def networks(self, model: nn.Module) -> dict[str, nn.Module]:
        model.get_submodule("body.0").requires_grad_(False)
        return super().networks(model)

    def training_step(self, model: nn.Module, batch: Batch) -> Iterator[Update]:
        self.count += 1
        if self.count == 5 and RANK == 1:
            model.get_submodule("body.0").requires_grad_(True)
        yield from super().training_step(model, batch)
