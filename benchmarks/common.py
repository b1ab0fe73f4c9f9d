"""What all contenders share: the clock, the loaders, and the form of an outcome."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from benchmarks.cases import SEED, Case, Prepared


@dataclass(frozen=True)
class Outcome:
    """What one run gave.

    Args:
        cpu: CPU time of all threads from before the first epoch to after the last, in seconds.
        wall: the same by the clock on the wall.
        weights: the weights after the last epoch.
    """

    cpu: float
    wall: float
    weights: dict[str, Tensor]

    def same_weights(self, other: Outcome) -> bool:
        """Whether both ended with the same weights, to the bit."""
        return self.weights.keys() == other.weights.keys() and all(
            torch.equal(value, other.weights[name]) for name, value in self.weights.items()
        )


Train = Callable[[Prepared, Path], Outcome]


class Stopwatch:
    """CPU and wall time between two moments; everybody starts it before the first epoch, with everything built."""

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Begin (again)."""
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def stop(self) -> None:
        """Note the time since the start; it may be called again later."""
        self.cpu, self.wall = time.process_time() - self._cpu, time.perf_counter() - self._wall

    def outcome(self, model: nn.Module) -> Outcome:
        """The outcome with the model's weights as they are."""
        return Outcome(self.cpu, self.wall, {name: value.clone() for name, value in model.state_dict().items()})


@dataclass(frozen=True)
class Loaders:
    """Loaders as a tutorial makes them; `generator` decides the order of the training items."""

    train: DataLoader[Any]
    validation: DataLoader[Any]
    generator: torch.Generator


def make_loaders(prepared: Prepared, *, row_by_row: bool = False) -> Loaders:
    """Plain DataLoaders; neither draws from the global generator, which dropout needs for itself."""
    generator, size = torch.Generator(), prepared.case.batch_size
    train = DataLoader(prepared.dataset("train", row_by_row=row_by_row), size, shuffle=True, generator=generator)
    validation = DataLoader(prepared.dataset("validation", row_by_row=row_by_row), size, generator=torch.Generator())
    return Loaders(train, validation, generator)


def make_model(
    case: Case, *, fused: bool = False, memory_format: torch.memory_format = torch.preserve_format
) -> tuple[nn.Module, torch.optim.Optimizer]:
    """The seeded model and its optimizer."""
    torch.manual_seed(SEED)
    model = case.model().to(memory_format=memory_format)
    make = getattr(torch.optim, case.optimizer)
    options = {"fused": True} if fused else {}
    return model, make(model.parameters(), lr=case.learning_rate, **options)
