"""Running facts about inputs and targets: what is kept of samples that are looked at once and let go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Hashes = NDArray[np.uint64]
_MOST_FEATURES = 100_000  # vectors longer than this are no columns that anyone named
_AT_ONCE = 4_000_000  # numbers that are hashed at once


def content_hashes(values: Tensor) -> Hashes:
    """A 64-bit hash of each sample's content; equal samples have equal hashes, unlike ones next to never.

    Each 32-bit word is mixed and multiplied by a fixed random number, the products are summed modulo 2**64
    (multilinear hashing; Carter and Wegman, 1979).

    Args:
        values: samples `[n, ...]`.

    Returns:
        `[n]` uint64.
    """
    array = np.ascontiguousarray(values.detach().cpu().numpy())
    rows = array.reshape(len(array), -1)
    if rows.dtype.itemsize % 4:
        rows = rows.astype(np.int32)
    words = np.ascontiguousarray(rows).view(np.uint32)
    random = np.random.Generator(np.random.PCG64(0))
    factors = random.integers(1, 2**64, size=words.shape[1] or 1, dtype=np.uint64)
    step = max(_AT_ONCE // max(words.shape[1], 1), 1)
    hashes = np.empty(len(words), np.uint64)
    for start in range(0, len(words), step):
        mixed = words[start : start + step].astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
        hashes[start : start + step] = (mixed * factors[: words.shape[1]]).sum(1, dtype=np.uint64)
    shape = np.uint64(abs(hash(tuple(array.shape[1:]))) & 0xFFFFFFFF)
    return hashes + shape


@dataclass(slots=True)
class InputFacts:
    """What was seen of one input.

    Attributes:
        shapes, dtypes: those that occurred.
        lows, highs: smallest and largest value of each sample, as arrays that are joined later.
        hashes: content of each sample.
        broken: samples with values that are not finite: sample to (how many, the first of them).
        feature_low, feature_high: per feature over all samples, for vectors.
        values, total, squares: number, sum and sum of squares of all finite values.
    """

    shapes: set[tuple[int, ...]] = field(default_factory=set)
    dtypes: set[str] = field(default_factory=set)
    lows: list[Any] = field(default_factory=list)
    highs: list[Any] = field(default_factory=list)
    hashes: list[Hashes] = field(default_factory=list)
    broken: dict[int, tuple[int, float]] = field(default_factory=dict)
    broken_features: set[int] = field(default_factory=set)
    feature_low: Tensor | None = None
    feature_high: Tensor | None = None
    values: int = 0
    total: float = 0.0
    squares: float = 0.0

    def add(self, samples: Tensor, first: int) -> None:
        """Take in samples `[n, ...]`, the first of which has number `first`."""
        self.shapes.add(tuple(samples.shape[1:]))
        self.dtypes.add(str(samples.dtype).removeprefix("torch."))
        self.hashes.append(content_hashes(samples))
        numbers = samples.to(torch.float64) if samples.dtype != torch.float32 else samples
        flat = numbers.reshape(len(samples), -1)
        finite = torch.isfinite(flat)
        if not bool(finite.all()):
            self._add_broken(flat, finite, first)
            flat = flat.nan_to_num(0.0, 0.0, 0.0)
        if flat.shape[1]:
            self.lows.append(flat.amin(1).numpy())
            self.highs.append(flat.amax(1).numpy())
        self.values += int(finite.sum())
        self.total += float(flat.sum(dtype=torch.float64))
        self.squares += float(torch.linalg.vector_norm(flat, dtype=torch.float64)) ** 2
        if samples.ndim == 2 and samples.shape[1] <= _MOST_FEATURES:
            low, high = flat.amin(0), flat.amax(0)
            if self.feature_low is None or self.feature_high is None:
                self.feature_low, self.feature_high = low, high
            elif self.feature_low.shape == low.shape:
                self.feature_low = torch.minimum(self.feature_low, low)
                self.feature_high = torch.maximum(self.feature_high, high)

    def _add_broken(self, flat: Tensor, finite: Tensor, first: int) -> None:
        for sample in (~finite).any(1).nonzero().flatten().tolist():
            bad = flat[sample][~finite[sample]]
            self.broken[first + sample] = (len(bad), float(bad[0]))
        self.broken_features.update((~finite).any(0).nonzero().flatten().tolist()[:100])

    @property
    def mean(self) -> float:
        """Mean of all finite values."""
        return self.total / max(self.values, 1)

    @property
    def deviation(self) -> float:
        """Standard deviation of all finite values."""
        return float(max(self.squares / max(self.values, 1) - self.mean**2, 0.0) ** 0.5)

    @property
    def low(self) -> float:
        """The smallest value."""
        return min((float(low.min()) for low in self.lows), default=0.0)

    @property
    def high(self) -> float:
        """The largest value."""
        return max((float(high.max()) for high in self.highs), default=0.0)

    def constant_samples(self) -> NDArray[np.bool_]:
        """For each sample whether all its values are equal; never for a single number."""
        if not self.lows or all(int(np.prod(shape)) <= 1 for shape in self.shapes):
            return np.zeros(sum(len(part) for part in self.hashes), bool)
        return np.concatenate([low == high for low, high in zip(self.lows, self.highs)])

    def describe(self) -> dict[str, Any]:
        """Shapes, types and range, for JSON."""
        shapes = sorted(self.shapes)
        return {
            "shapes": [list(shape) for shape in shapes[:5]],
            "dtype": ", ".join(sorted(self.dtypes)),
            "range": [self.low, self.high],
            "mean": self.mean,
            "deviation": self.deviation,
        }


@dataclass(slots=True)
class TargetFacts:
    """What was seen of the targets.

    Attributes:
        numbers: every target that is a single number or a vector, joined later; empty for maps.
        counts: how often each value occurs (pixels of maps, items otherwise).
        holders: in how many samples it occurs.
        example: the first sample in which it occurs.
        fractions: samples with values that are not whole: sample to the first such value.
        broken: samples with values that are not finite.
    """

    shapes: set[tuple[int, ...]] = field(default_factory=set)
    dtypes: set[str] = field(default_factory=set)
    numbers: list[Tensor] = field(default_factory=list)
    counts: dict[float, int] = field(default_factory=dict)
    holders: dict[float, int] = field(default_factory=dict)
    example: dict[float, int] = field(default_factory=dict)
    fractions: dict[int, float] = field(default_factory=dict)
    broken: dict[int, float] = field(default_factory=dict)

    def add(self, samples: Tensor, first: int, *, labels: bool) -> None:
        """Take in targets `[n, ...]`; `labels` says that they are classes, whose values are counted."""
        self.shapes.add(tuple(samples.shape[1:]))
        self.dtypes.add(str(samples.dtype).removeprefix("torch."))
        flat = samples.reshape(len(samples), -1)
        if flat.is_floating_point():
            self._add_doubtful(flat, first)
        if flat.shape[1] <= 64:
            self.numbers.append(samples)
        if labels and samples.ndim > 2:
            for number, sample in enumerate(flat):
                values, amounts = torch.unique(sample, return_counts=True)
                self._count(values.tolist(), amounts.tolist(), [first + number])
        elif labels and flat.shape[1] == 1:
            values, amounts = torch.unique(flat, return_counts=True)
            for value, amount in zip(values.tolist(), amounts.tolist()):
                self._count([value], [amount], (flat[:, 0] == value).nonzero().flatten().add(first).tolist())

    def _add_doubtful(self, flat: Tensor, first: int) -> None:
        for kind, marks in (("broken", ~torch.isfinite(flat)), ("fractions", flat != flat.round())):
            kept: dict[int, float] = getattr(self, kind)
            for sample in marks.any(1).nonzero().flatten().tolist():
                kept[first + sample] = float(flat[sample][marks[sample]][0])

    def _count(self, values: Sequence[float], amounts: Sequence[int], samples: Sequence[int]) -> None:
        for value, amount in zip(values, amounts):
            self.counts[value] = self.counts.get(value, 0) + amount
            self.holders[value] = self.holders.get(value, 0) + len(samples)
            self.example.setdefault(value, samples[0])

    def joined(self) -> Tensor | None:
        """All targets as one tensor; None for maps, and where shapes differ."""
        if not self.numbers or len(self.shapes) > 1:
            return None
        return torch.cat(self.numbers)
