"""Inputs scaled by the mean and standard deviation of the training split."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from weft.data.samples import Sample
from weft.errors import DataError


@dataclass
class Moments:
    """Running sums of one input, float64.

    A vector has one mean per entry; an image `[channels, ...]` with at least three axes one per channel; a plane
    `[height, width]` one in all.
    """

    count: int = 0
    mean: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    squares: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    lowest: Tensor = field(default_factory=lambda: torch.tensor(torch.inf, dtype=torch.float64))
    highest: Tensor = field(default_factory=lambda: torch.tensor(-torch.inf, dtype=torch.float64))

    def add(self, items: Tensor) -> None:
        """Take in items `[n, ...]` (Chan, Golub, LeVeque 1983: sums of squares around the mean add up without loss)."""
        values = _by_entry(items.to(torch.float64))
        count = len(values)
        if count == 0:
            return
        mean = values.mean(dim=0)
        squares = ((values - mean) ** 2).sum(dim=0)
        total = self.count + count
        difference = mean - self.mean
        self.squares = self.squares + squares + difference**2 * self.count * count / total
        self.mean = self.mean + difference * count / total
        self.lowest = torch.minimum(self.lowest, values.amin(dim=0))
        self.highest = torch.maximum(self.highest, values.amax(dim=0))
        self.count = total

    def as_dict(self) -> dict[str, Any]:
        """`mean`, `scale` (1 where all values are equal) and the places that are `constant`, as numbers for JSON."""
        constant = self.lowest == self.highest
        deviation = torch.sqrt(self.squares / max(self.count, 1))
        scale = torch.where(constant | (deviation == 0), torch.ones_like(deviation), deviation)
        mean = torch.where(constant, self.lowest, self.mean)
        places = torch.nonzero(constant.reshape(-1)).flatten().tolist()
        return {"mean": mean.tolist(), "scale": scale.tolist(), "constant": places}


def _by_entry(items: Tensor) -> Tensor:
    """Items `[n, ...]` as `[values, entries]`: one row for each value that a mean is taken over."""
    if items.dim() <= 2:
        return items.reshape(len(items), -1) if items.dim() == 2 else items.reshape(-1, 1)
    if items.dim() == 3:
        return items.reshape(-1, 1)
    return items.transpose(0, 1).reshape(items.shape[1], -1).T


def fit(arrays: Any) -> list[Moments]:
    """Sums of each input array `[n, ...]`."""
    several = arrays if isinstance(arrays, tuple) else (arrays,)
    found = [Moments() for _ in several]
    for moments, array in zip(found, several, strict=True):
        moments.add(array)
    return found


def fit_items(items: Iterable[Any]) -> list[Moments]:
    """Sums of each input over items that are loaded one by one."""
    moments: list[Moments] = []
    for item in items:
        for sample in item if isinstance(item, list) else [item]:
            inputs = sample.inputs if isinstance(sample, Sample) else sample[0]
            several = inputs if isinstance(inputs, tuple) else (inputs,)
            moments = moments or [Moments() for _ in several]
            for moment, value in zip(moments, several, strict=True):
                moment.add(torch.as_tensor(value)[None])
    return moments


def apply(statistics: dict[str, Any], items: Tensor) -> Tensor:
    """Scale items `[n, ...]`, computed in float64 and given back as float32.

    Raises:
        DataError: the statistics were taken from inputs of another shape.
    """
    mean = torch.tensor(statistics["mean"], dtype=torch.float64)
    scale = torch.tensor(statistics["scale"], dtype=torch.float64)
    entries = items.shape[1] if items.dim() == 2 or items.dim() > 3 else 1
    if mean.numel() != entries:
        raise DataError(
            f"inputs have {entries} features or channels, but the statistics of the training data have {mean.numel()}",
            "use the columns that the model was trained on",
        )
    shape = [1, entries, *[1] * (items.dim() - 2)] if items.dim() != 3 else [1, 1, 1]
    shape = shape if items.dim() > 1 else [1]
    return ((items.to(torch.float64) - mean.reshape(shape)) / scale.reshape(shape)).to(torch.float32)
