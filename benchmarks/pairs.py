"""Interleaved pairs: one contender and its reference in turns, in one process, so that both meet the same machine."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.cases import Prepared
from benchmarks.common import Outcome, Train
from benchmarks.terminal import hidden_terminal


@dataclass(frozen=True)
class Spread:
    """A median and its 90 % bootstrap interval."""

    median: float
    low: float
    high: float


@dataclass
class Pairs:
    """Outcomes of a contender beside those of its reference, pair by pair."""

    own: list[Outcome] = field(default_factory=list)
    reference: list[Outcome] = field(default_factory=list)

    @property
    def cpu(self) -> Spread:
        """Ratio of CPU times."""
        return spread([own.cpu / other.cpu for own, other in zip(self.own, self.reference, strict=True)])

    @property
    def wall(self) -> Spread:
        """Ratio of times by the clock on the wall."""
        return spread([own.wall / other.wall for own, other in zip(self.own, self.reference, strict=True)])


def spread(values: Sequence[float], resamples: int = 10_000) -> Spread:
    """Median with the 5 % and 95 % quantiles of its bootstrap distribution (Efron, 1979)."""
    numbers = np.asarray(values, dtype=np.float64)
    drawn = np.random.default_rng(0).choice(numbers, (resamples, len(numbers)))
    low, high = np.quantile(np.median(drawn, axis=1), (0.05, 0.95))
    return Spread(float(np.median(numbers)), float(low), float(high))


def run_once(train: Train, prepared: Prepared, folder: Path) -> Outcome:
    """One training in a folder of its own that is removed afterwards; nothing is shown."""
    folder.mkdir(parents=True)
    gc.collect()
    try:
        with hidden_terminal():
            return train(prepared, folder)
    finally:
        shutil.rmtree(folder)


def run_pairs(own: Train, reference: Train, prepared: Prepared, folder: Path, count: int) -> Pairs:
    """Run `count` pairs after one that is thrown away; who begins changes from pair to pair."""
    pairs = Pairs()
    for number in range(-1, count):
        both = [(own, pairs.own), (reference, pairs.reference)]
        for train, outcomes in both if number % 2 else reversed(both):
            outcome = run_once(train, prepared, folder / "run")
            if number >= 0:
                outcomes.append(outcome)
    return pairs
