"""The user's code of the experiments that are killed here: data with every kind of randomness, models, an observer."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from weft.data import Batch
from weft.engine import Observer
from weft.engine.events import Epoch, RunResult, Start, Step, Validation
from weft.tasks import Classification, Update


class Hidden:
    """A generator where nobody looks for it; the dataset names it."""

    __slots__ = ()
    generator = torch.Generator()


class Noisy(Dataset[tuple[Tensor, Tensor]]):
    """Points of three classes; augmented with torch, NumPy, `random` and generators of its own.

    Args:
        items: how many.
        augment: draw the noise.
        broken: the item of this row is not a number.
        width: numbers of an item are repeated so often.
    """

    def __init__(self, items: int, augment: bool = True, broken: int | None = None, width: int = 1) -> None:
        source = np.random.default_rng(items)
        self.labels = torch.from_numpy(source.integers(0, 3, items))
        centres = torch.from_numpy(np.random.default_rng(0).normal(size=(3, 12))).float()
        self.points = centres[self.labels] + torch.from_numpy(source.normal(size=(items, 12))).float()
        self.points = self.points.repeat(1, width)
        self.cases = [f"case-{items}-{row}" for row in range(items)]
        self.augment = augment
        if broken is not None:
            self.points[broken] = float("nan")
        self.own = np.random.default_rng(0)

    def generators(self) -> list[torch.Generator]:
        return [Hidden.generator]

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        point = self.points[row].clone()
        if self.augment:
            point += 0.3 * torch.randn(len(point))
            point *= float(1 + 0.2 * np.random.rand())
            point += random.gauss(0, 0.2)
            point += float(self.own.normal(0, 0.2))
            point += 0.2 * torch.rand(len(point), generator=Hidden.generator)
        return point, self.labels[row]


def points(items: int) -> tuple[np.ndarray, np.ndarray]:
    """The same points as arrays."""
    data = Noisy(items)
    return data.points.numpy(), data.labels.numpy()


class Shaken:
    """A transform as MONAI's are: it draws from a state that `set_random_state` replaces."""

    def __init__(self, amount: float) -> None:
        self.amount = amount
        self.R = np.random.RandomState()

    def set_random_state(self, seed: int | None = None, state: Any = None) -> Shaken:
        self.R = np.random.RandomState(seed) if state is None else state
        return self

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        moved = item["inputs"] + torch.from_numpy(self.R.normal(0, self.amount, len(item["inputs"]))).float()
        return {**item, "inputs": moved}


class Net(nn.Module):
    """Dropout and batch statistics, so that randomness and buffers must be resumed too.

    Args:
        features, hidden: widths.
        dropout: probability.
        steep: the output is multiplied by it; in half precision a large one makes the scaler skip steps.
    """

    def __init__(self, features: int = 12, hidden: int = 16, dropout: float = 0.3, steep: float = 1.0) -> None:
        super().__init__()
        self.steep = steep
        self.body = nn.Sequential(
            nn.Linear(features, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, 3)
        )

    def forward(self, points: Tensor) -> Tensor:
        scores: Tensor = self.body(points)
        return self.steep * scores


class Pair(nn.Module):
    """Two networks, each with an optimizer of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = Net(), Net(hidden=8)

    def forward(self, points: Tensor) -> Tensor:
        scores: Tensor = self.one(points) + self.other(points)
        return scores


class Opponents(Classification):
    """Each network of a `Pair` learns the classes, the second one also what the first one says by now."""

    updates = ("one", "other")

    def networks(self, model: nn.Module) -> dict[str, nn.Module]:
        return {"one": model.get_submodule("one"), "other": model.get_submodule("other")}

    def training_step(self, model: nn.Module, batch: Batch) -> Iterator[Update]:
        one, other = model.get_submodule("one"), model.get_submodule("other")
        loss = nn.functional.cross_entropy(one(batch.inputs), batch.targets)
        yield Update(loss, batch.size, "one")
        answer = other(batch.inputs)
        told = one(batch.inputs).detach().softmax(1)
        loss = nn.functional.cross_entropy(answer, batch.targets) + nn.functional.cross_entropy(answer, told)
        yield Update(loss, batch.size, "other")


class Trap(Observer):
    """Tells the trap of its process (tests/faults/trap.py) where the run is."""

    def on_start(self, start: Start) -> None:
        self.run = start.run_path

    def on_step(self, step: Step) -> None:
        self._reached("step", epoch=step.epoch, step=step.step)

    def on_validation(self, progress: Validation) -> None:
        self._reached("validation")

    def on_epoch(self, epoch: Epoch) -> None:
        self._reached("epoch")

    def on_end(self, result: RunResult) -> None:
        self._reached("end")

    def _reached(self, moment: str, **place: int) -> None:
        from tests.faults.trap import reached

        reached(moment, run=self.run, **place)
