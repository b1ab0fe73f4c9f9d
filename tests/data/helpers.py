"""Small datasets and comparisons that several tests of the data room use."""

from __future__ import annotations

import csv
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from weft.config import DatasetConfig, Namespace
from weft.data import Batch, Data, SplitData, open_data


def config(**fields: Any) -> DatasetConfig:
    """A dataset section, as it would stand in a file."""
    return DatasetConfig.model_validate(fields)


def opened(
    base: Path, *, seed: int = 0, fold: int | None = None, more: dict[str, Any] | None = None, **fields: Any
) -> Data:
    """Open data that are described by the fields of a dataset section."""
    return open_data(config(**fields), Namespace(), seed=seed, fold=fold, base=base, **(more or {}))


def split_of(dataset: Any, name: str = "train", **more: Any) -> SplitData:
    """A split over a map-style dataset."""
    return SplitData(name, dataset, [f"case{row}" for row in range(len(dataset))], **more)


def assert_same(left: Iterable[Batch], right: Iterable[Batch]) -> None:
    """The batches are equal to the bit."""
    left, right = list(left), list(right)
    assert len(left) == len(right)
    for one, other in zip(left, right, strict=True):
        assert one.size == other.size
        assert torch.equal(one.index, other.index)
        for mine, theirs in ((one.inputs, other.inputs), (one.targets, other.targets)):
            assert isinstance(mine, Tensor)
            assert mine.dtype == theirs.dtype
            assert torch.equal(mine, theirs)


def volumes(folder: Path, count: int = 6) -> dict[str, Any]:
    """NIfTI images with labels and a table of them in a folder, and the dataset section for it; skips without MONAI."""
    pytest.importorskip("monai")
    nibabel = pytest.importorskip("nibabel")
    rng = np.random.default_rng(0)
    affine = np.diag([1.5, 2.0, 3.0, 1.0])
    with (folder / "train.csv").open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["image", "label"])
        for case in range(count):
            label = np.zeros((12, 13, 14), np.uint8)
            label[4:8, 4:8, 4:8] = 1
            volume = rng.normal(size=label.shape).astype(np.float32) + label
            for kind, values in (("image", volume), ("label", label)):
                nibabel.save(nibabel.Nifti1Image(values, affine), folder / f"{kind}{case}.nii.gz")
            rows.writerow([f"image{case}.nii.gz", f"label{case}.nii.gz"])
    return {"table": {"train": "train.csv"}, "inputs": ["image"], "targets": ["label"]}


def global_states() -> tuple[bytes, str, object]:
    """The states of torch's, NumPy's and Python's global generators."""
    return torch.get_rng_state().numpy().tobytes(), repr(np.random.get_state(legacy=False)), random.getstate()


class Rows:
    """Rows of random tensors: (x [features], label)."""

    def __init__(self, length: int = 50, features: int = 6) -> None:
        generator = torch.Generator().manual_seed(length)
        self.x = torch.randn(length, features, generator=generator)
        self.y = torch.randint(0, 3, (length,), generator=generator)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        return self.x[row], self.y[row]


class TorchNoise(Rows):
    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        return self.x[row] + torch.randn(self.x.shape[1]), self.y[row]


class NumPyNoise(Rows):
    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        return self.x[row] + float(np.random.randn()), self.y[row]


class PythonNoise(Rows):
    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        return self.x[row] + random.gauss(0, 1), self.y[row]


class AllNoise(Rows):
    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        noise = torch.rand(()) + float(np.random.rand()) + random.random()
        return self.x[row] + noise, self.y[row]


class SometimesNoise(Rows):
    """Draws from one generator or another at some rows only."""

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        x = self.x[row].clone()
        if row % 7 == 3:
            x += torch.randn(())
        if row % 11 == 5:
            x += float(np.random.rand())
        if row % 13 == 8:
            x += random.random()
        return x, self.y[row]


class OwnGenerators(Rows):
    """Draws from generators of every kind that it holds, some well hidden."""

    def __init__(self, length: int = 50) -> None:
        super().__init__(length)
        self.torch_generator = torch.Generator().manual_seed(1)
        self.nested = {"numpy": [np.random.default_rng(2), (np.random.RandomState(3),)]}
        self.python_generator = random.Random(4)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        noise = torch.rand((), generator=self.torch_generator) + self.python_generator.random()
        noise += float(self.nested["numpy"][0].normal()) + float(self.nested["numpy"][1][0].rand())
        return self.x[row] + noise, self.y[row]


class LateGenerator(Rows):
    """Makes its generator with the first item."""

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        if not hasattr(self, "generator"):
            self.generator = np.random.default_rng(5)
        return self.x[row] + float(self.generator.normal()), self.y[row]


class RandomizableTransform:
    """Randomness in MONAI's style."""

    def __init__(self) -> None:
        self.R = np.random.RandomState()

    def set_random_state(self, seed: int | None = None, state: Any = None) -> RandomizableTransform:
        self.R = np.random.RandomState(seed)
        return self

    def __call__(self, x: Tensor) -> Tensor:
        return x + float(self.R.normal())


class MonaiStyle(Rows):
    def __init__(self, length: int = 50) -> None:
        super().__init__(length)
        self.transforms = [RandomizableTransform(), RandomizableTransform()]

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        x = self.x[row]
        for transform in self.transforms:
            x = transform(x)
        return x, self.y[row]


class Registered(Rows):
    """A generator that only `generators()` tells of."""

    def __init__(self, length: int = 50) -> None:
        super().__init__(length)
        hidden = np.random.default_rng(6)
        self.reveal = {hidden}  # sets are not looked through: their order differs between processes

    def generators(self) -> list[Any]:
        return list(self.reveal)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        return self.x[row] + float(next(iter(self.reveal)).normal()), self.y[row]


_module_generator = np.random.default_rng(7)


class ModuleGenerator(Rows):
    """Draws from a generator that is a global name of its module, inside a closure."""

    def __init__(self, length: int = 50) -> None:
        super().__init__(length)
        inner = random.Random(8)
        self.noise = lambda: inner.random()

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        return self.x[row] + float(_module_generator.normal()) + self.noise(), self.y[row]


RANDOM_DATASETS = (
    TorchNoise,
    NumPyNoise,
    PythonNoise,
    AllNoise,
    SometimesNoise,
    OwnGenerators,
    LateGenerator,
    MonaiStyle,
    Registered,
    ModuleGenerator,
)
