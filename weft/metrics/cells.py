"""Bins of predictions with so many items that no single one shows: what leaves a participant of them, and the areas
under curves that follow. Imports no torch.

A bin with fewer items than the minimum is put together with its neighbours, separately for positives and negatives.
What is told of such a cell is how many items it has, and the first and the last bin where there are some of them. Cells
of several participants differ, so each tells two histograms: its cells at their first bins, and at their last ones.
These add up, and between the two every item lies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy

from weft.metrics.formulas import Array
from weft.metrics.ranks import Ranked


def cells_of(counts: Array, minimum: int) -> tuple[Array, Array, bool]:
    """The cells of a histogram.

    Args:
        counts: of items in each bin, int64 [bins].
        minimum: number of items that a cell has at least.

    Returns:
        the items of each cell at its first bin [bins], likewise at its last one, and whether there are items, but too
        few for a cell: these are left out.
    """
    first, last = numpy.zeros_like(counts), numpy.zeros_like(counts)
    cells: list[list[int]] = []  # items, first and last bin
    begun = [0, -1, -1]
    for place in numpy.flatnonzero(counts).tolist():
        begun = [begun[0] + int(counts[place]), begun[1] if begun[0] else place, place]
        if begun[0] >= minimum:
            cells.append(begun)
            begun = [0, -1, -1]
    if begun[0] and cells:  # what is left over goes to the last cell
        cells[-1] = [cells[-1][0] + begun[0], cells[-1][1], begun[2]]
    for items, start, end in cells:
        first[start], last[end] = items, items
    return first, last, bool(begun[0]) and not cells


@dataclass(frozen=True, slots=True)
class Spread:
    """Positives and negatives of which is known between which bins they lie, highest bin first (float64 counts).

    Args:
        highest: positives and negatives at the highest bin that each may lie in.
        lowest: likewise at the lowest one.
        left_out: how many further positives and negatives there may be, of which nothing is known.
    """

    highest: Ranked
    lowest: Ranked
    left_out: tuple[float, float] = (0.0, 0.0)

    @property
    def judged(self) -> bool:
        """Whether there are positives and negatives."""
        return self.highest.judged

    @property
    def unknown(self) -> bool:
        """Whether it could be judged but for what was left out."""
        classes = zip((self.highest.positives, self.highest.negatives), self.left_out, strict=True)
        return not self.judged and all(counts.sum() + more > 0 for counts, more in classes)

    def auroc(self) -> tuple[float, float]:
        """Area under the ROC curve, between what it is at the highest and at the lowest bins, and how far it may be
        off: were all positives as high and all negatives as low as they can be, or the other way round.
        """
        if not self.judged:
            return float("nan"), float("nan")
        value = (self.highest.auroc()[0] + self.lowest.auroc()[0]) / 2
        best, worst = self._crossed()
        positives, negatives = best.positives.sum(), best.negatives.sum()
        pairs = positives * negatives
        known = pairs / ((positives + self.left_out[0]) * (negatives + self.left_out[1]))
        upper, lower = (ranked.auroc()[0] + sign * ranked.auroc()[1] for ranked, sign in ((best, 1), (worst, -1)))
        return value, max(1 - (1 - upper) * known - value, value - lower * known, 0.0)

    def average_precision(self) -> tuple[float, float]:
        """Sum of precision times gain in recall, likewise."""
        if not self.highest.positives.sum():
            return float("nan"), float("nan")
        value = (self.highest.average_precision()[0] + self.lowest.average_precision()[0]) / 2
        best, worst = self._crossed()
        more_positives, more_negatives = self.left_out
        positives = best.positives.sum()
        # A positive may be counted at any bin below its highest one: the best precision of them is a bound.
        found = best.positives.cumsum() + more_positives
        passed = best.negatives.cumsum() - best.negatives
        precision = numpy.maximum.accumulate((found / numpy.maximum(found + passed, 1))[::-1])[::-1]
        upper = (best.positives @ precision + more_positives) / (positives + more_positives)
        beaten = Ranked(
            numpy.concatenate(([0.0], worst.positives)), numpy.concatenate(([more_negatives], worst.negatives))
        )
        lower = beaten.worst_precision() / (positives + more_positives)
        return value, float(max(upper - value, value - lower, 0.0))

    def curves(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """ROC and precision-recall curves of counts in the middle between highest and lowest."""
        pairs = zip(
            (self.highest.positives, self.highest.negatives),
            (self.lowest.positives, self.lowest.negatives),
            strict=True,
        )
        positives, negatives = ((one + other) / 2 for one, other in pairs)
        there = positives + negatives > 0
        return Ranked(positives[there], negatives[there]).curves()

    def _crossed(self) -> tuple[Ranked, Ranked]:
        best = Ranked(self.highest.positives, self.lowest.negatives)
        return best, Ranked(self.lowest.positives, self.highest.negatives)
