"""Positives and negatives in order of their score: areas under curves, and the curves. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy

from weft.metrics.formulas import Array, ratio

POINTS = 200  # of a curve in a report


@dataclass(frozen=True, slots=True)
class Ranked:
    """Positives and negatives at each distinct score, highest score first (float64 counts)."""

    positives: Array
    negatives: Array

    @property
    def judged(self) -> bool:
        """Whether there are positives and negatives."""
        return bool(self.positives.sum() > 0 and self.negatives.sum() > 0)

    def auroc(self) -> tuple[float, float]:
        """Area under the ROC curve with ties counted half, and how far breaking the ties could move it."""
        if not self.judged:
            return float("nan"), float("nan")
        pairs = self.positives.sum() * self.negatives.sum()
        return float(auroc(self.positives, self.negatives)), float(self.positives @ self.negatives / 2 / pairs)

    def average_precision(self) -> tuple[float, float]:
        """Sum of precision times gain in recall, and how far breaking the ties could move it."""
        if not self.positives.sum():
            return float("nan"), float("nan")
        p, q = self.positives, self.negatives
        end_p, start_q = p.cumsum(), q.cumsum() - q
        value = float(average_precision(p, q)) * p.sum()
        best = (p * end_p / numpy.maximum(end_p + start_q, 1)).sum()
        total = p.sum()
        return float(value / total), float(max(best - value, value - self.worst_precision(), 0.0) / total)

    def worst_precision(self) -> float:
        """Sum over positives of their precision where the negatives of a tie come first, then its positives one by
        one.
        """
        from scipy.special import digamma  # SciPy costs more to import than the rest of this package

        p, end_p, end_q = self.positives, self.positives.cumsum(), self.negatives.cumsum()
        # of a tie the sum over i of (start_p + i) / (start_p + i + end_q)
        harmonic = digamma(end_p + end_q + 1) - digamma(end_p - p + end_q + 1)
        return float((p - end_q * harmonic)[p > 0].sum())

    def curves(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """ROC and precision-recall curves with at most 200 points each."""
        true = numpy.concatenate(([0.0], self.positives.cumsum()))
        false = numpy.concatenate(([0.0], self.negatives.cumsum()))
        positives, negatives = max(true[-1], 1.0), max(false[-1], 1.0)
        pick = thinned(true / positives + false / negatives)
        roc = {"fpr": false[pick] / negatives, "tpr": true[pick] / positives}
        pick = thinned(true[1:] / positives + false[1:] / negatives) + 1
        precision = true[pick] / numpy.maximum(true[pick] + false[pick], 1.0)
        return roc, {"recall": true[pick] / positives, "precision": precision}


def auroc(positives: Array, negatives: Array) -> Array:
    """Area under the ROC curve, ties counted half; nan without positives or without negatives.

    Args:
        positives, negatives: counts at each distinct score [..., K], highest score first.
    """
    total = negatives.sum(-1)
    lower = total[..., None] - negatives.cumsum(-1)  # negatives with a lower score
    return ratio((positives * (lower + negatives / 2)).sum(-1), positives.sum(-1) * total)


def average_precision(positives: Array, negatives: Array) -> Array:
    """Sum of precision times gain in recall; nan without positives. Arguments as for `auroc`."""
    found, passed = positives.cumsum(-1), negatives.cumsum(-1)
    precision = found / numpy.maximum(found + passed, 1)
    return ratio((positives * precision).sum(-1), positives.sum(-1))


def thinned(way: Array) -> Array:
    """Indices of at most 200 points, spread evenly along a rising quantity, first and last included."""
    if way.size <= POINTS:
        return numpy.arange(way.size)
    goals = numpy.linspace(way[0], way[-1], POINTS)
    return numpy.unique(
        numpy.concatenate(([0], numpy.searchsorted(way, goals).clip(0, way.size - 1)[1:-1], [way.size - 1]))
    )


def ranked_scores(scores: Array, positive: Array) -> Ranked:
    """Counts at each distinct score.

    Args:
        scores: float [n].
        positive: bool [n].
    """
    _, place = numpy.unique(-scores, return_inverse=True)
    count = int(place.max()) + 1 if place.size else 0
    positives = numpy.bincount(place[positive], minlength=count).astype(numpy.float64)
    return Ranked(positives, numpy.bincount(place, minlength=count) - positives)
