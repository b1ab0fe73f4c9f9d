"""What is trained in the comparison: three problems of the sizes that Weft is for, and one whose model does nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from weft.nets import UNet

SEED = 7
LOG_EVERY = 50  # steps between two losses on the progress bar and in TensorBoard, for everybody


@dataclass(frozen=True)
class Case:
    """A training problem.

    Args:
        key: its letter in tables.
        title: model, input and batch in words.
        model: makes the network; torch's global generator is seeded before.
        data: makes (inputs, targets) of so many items from a generator.
        batch_size: of training and validation.
        train_items, validation_items: sizes of the splits.
        epochs: passes over the training split.
        task: the task as Weft's experiment names it.
        optimizer: name of torch's optimizer.
    """

    key: str
    title: str
    model: Callable[[], nn.Module]
    data: Callable[[int, torch.Generator], tuple[Tensor, Tensor]]
    batch_size: int
    train_items: int
    validation_items: int
    epochs: int
    task: Any = "classification"
    optimizer: str = "Adam"
    learning_rate: float = 1e-3

    @property
    def steps(self) -> int:
        """Optimizer steps of a run."""
        return self.epochs * -(-self.train_items // self.batch_size)

    def tensors(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Inputs and targets of each split; the same whenever it is called."""
        generator = torch.Generator().manual_seed(SEED)
        sizes = {"train": self.train_items, "validation": self.validation_items}
        return {name: self.data(count, generator) for name, count in sizes.items()}

    def smaller(self) -> Case:
        """Just enough to see that everything runs: two steps in each of two epochs."""
        return replace(self, train_items=2 * self.batch_size, validation_items=self.batch_size, epochs=2)


class Rows(Dataset[tuple[Tensor, Tensor]]):
    """A dataset as people write them: one item at a time, nothing known about what lies behind."""

    def __init__(self, inputs: str, targets: str) -> None:
        self.inputs = torch.from_numpy(np.load(inputs, allow_pickle=False))
        self.targets = torch.from_numpy(np.load(targets, allow_pickle=False))

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        return self.inputs[row], self.targets[row]


@dataclass(frozen=True)
class Prepared:
    """A case with its data, in memory and as files.

    Args:
        case: the case.
        tensors: inputs and targets by split.
        files: the same as `.npy` files by split.
    """

    case: Case
    tensors: dict[str, tuple[Tensor, Tensor]]
    files: dict[str, dict[str, str]]

    def dataset(self, split: str, *, row_by_row: bool) -> Dataset[Any]:
        """The split as a torch dataset."""
        return Rows(**self.files[split]) if row_by_row else TensorDataset(*self.tensors[split])


def prepare(case: Case, folder: Path) -> Prepared:
    """Make a case's data and write its files into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors, files = case.tensors(), {}
    for split, parts in tensors.items():
        files[split] = {}
        for name, values in zip(("inputs", "targets"), parts, strict=True):
            path = folder / f"{split}-{name}.npy"
            np.save(path, values.numpy())
            files[split][name] = str(path)
    return Prepared(case, tensors, files)


# --- the models -------------------------------------------------------------------------------------------------------


def mlp() -> nn.Module:
    """66-64-32-2 with dropout."""
    return nn.Sequential(
        nn.Linear(66, 64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 2)
    )


def cnn() -> nn.Module:
    """Three convolutions, each followed by halving, and two linear layers: 105,486 parameters."""
    stages: list[nn.Module] = []
    for before, after in ((1, 16), (16, 32), (32, 64)):
        stages += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*stages, nn.Flatten(), nn.Linear(576, 140), nn.ReLU(), nn.Linear(140, 10))


def unet() -> nn.Module:
    """Four levels of 16 to 128 channels, with batch normalisation and max pooling: 483,170 parameters."""
    return UNet(1, 2, channels=[16, 32, 64, 128], activation="relu", normalization="batch", downsampling="max_pool")


class NullModel(nn.Module):
    """Two logits that do not depend on the input: the least that can be trained."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(1, 2))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.logits.expand(inputs.shape[0], 2)


# --- the data ---------------------------------------------------------------------------------------------------------


def vectors(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Vectors of 66 numbers in two classes."""
    inputs = torch.randn(count, 66, generator=generator)
    return inputs, (inputs[:, :8].sum(1) > 0).long()


def pictures(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Pictures of 28 × 28 in ten classes, told by where a bright row lies."""
    targets = torch.randint(10, (count,), generator=generator)
    inputs = torch.randn(count, 1, 28, 28, generator=generator)
    inputs[torch.arange(count), 0, 2 * targets + 4] += 1.0
    return inputs, targets


def slices(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Slices of 128 × 128 with a bright disc to be found."""
    centres = 32 + 64 * torch.rand(count, 2, 1, 1, generator=generator)
    axis = torch.arange(128.0)
    distance = (axis[None, :, None] - centres[:, 0]) ** 2 + (axis[None, None, :] - centres[:, 1]) ** 2
    targets = (distance < 400).long()
    return targets[:, None] + torch.randn(count, 1, 128, 128, generator=generator), targets


SEGMENTATION = {"segmentation": {"classes": 2}}
CASES = {
    case.key: case
    for case in (
        Case("a", "MLP 66-64-32-2 with dropout, batch 16", mlp, vectors, 16, 2048, 512, 4),
        Case("b", "CNN (105 k parameters) on 28×28, batch 64", cnn, pictures, 64, 2048, 512, 3),
        Case("c", "U-Net (483 k parameters) on 128×128, batch 4", unet, slices, 4, 48, 16, 2, SEGMENTATION),
    )
}
NULL = Case("null", "null model, batch 16", NullModel, vectors, 16, 1024, 128, 4, optimizer="SGD")
