"""Scores as functions of counts. Imports no torch: training and the report compute with the same formulas.

Counts may have leading axes: those of one evaluation are [C], those of a thousand resamples [1000, C]; a formula keeps
them. A class that occurs neither in truth nor in prediction is left out of means; a ratio without a denominator counts
0 where the class occurs on the other side (scikit-learn's convention), and is nan where there is nothing to judge.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy
from numpy.typing import NDArray

Array = NDArray[Any]


def ratio(top: Array, bottom: Array) -> Array:
    """top / bottom, nan where the bottom is 0."""
    top, bottom = numpy.asarray(top, numpy.float64), numpy.asarray(bottom, numpy.float64)
    result: Array = numpy.full(numpy.broadcast_shapes(top.shape, bottom.shape), numpy.nan)
    return numpy.divide(top, bottom, out=result, where=bottom != 0)


def mean_defined(values: Array) -> Array:
    """Mean over the last axis without nan; nan where nothing is defined."""
    values = numpy.asarray(values, numpy.float64)
    return ratio(numpy.nansum(values, -1), (~numpy.isnan(values)).sum(-1))


def mean_of_defined(values: Array) -> float:
    """Mean of a vector without nan; nan when nothing is defined."""
    return float(mean_defined(numpy.ravel(values)))


@dataclass(frozen=True, slots=True)
class Counts:
    """Per class (or label) true and false positives and negatives, float64 [..., C].

    Args:
        tp, fp, fn, tn: the counts.
        exclusive: whether every sample has one class; False for labels that may hold together.
    """

    tp: Array
    fp: Array
    fn: Array
    tn: Array
    exclusive: bool = True

    @classmethod
    def of_matrix(cls, matrix: Array) -> Counts:
        """One-against-the-rest counts of confusion matrices [..., C, C], truth by prediction."""
        tp = numpy.diagonal(matrix, axis1=-2, axis2=-1).astype(numpy.float64)
        return cls.of_margins(tp, matrix.sum(-1), matrix.sum(-2), matrix.sum((-2, -1)))

    @classmethod
    def of_margins(cls, tp: Array, true: Array, predicted: Array, samples: Array) -> Counts:
        """From hits, true and predicted samples per class [..., C], and the number of samples [...]."""
        fp, fn = predicted - tp, true - tp
        return cls(tp, fp, fn, numpy.asarray(samples)[..., None] - tp - fp - fn)

    @classmethod
    def of_labels(cls, tables: Array) -> Counts:
        """Counts of label tables [..., C, 2, 2]."""
        tables = tables.astype(numpy.float64)
        return cls(tables[..., 1, 1], tables[..., 0, 1], tables[..., 1, 0], tables[..., 0, 0], exclusive=False)

    def only(self, index: int) -> Counts:
        """The counts of one class."""
        tp, fp, fn, tn = (part[..., index : index + 1] for part in (self.tp, self.fp, self.fn, self.tn))
        return Counts(tp, fp, fn, tn, self.exclusive)

    def pooled(self) -> Counts:
        """All classes as one (micro average)."""
        tp, fp, fn, tn = (part.sum(-1, keepdims=True) for part in (self.tp, self.fp, self.fn, self.tn))
        return Counts(tp, fp, fn, tn, self.exclusive)

    @property
    def decisions(self) -> Array:
        """How many decisions were made: samples, for labels that may hold together samples times labels."""
        each = self.tp + self.fp + self.fn + self.tn
        return each[..., 0] if self.exclusive else each.sum(-1)


def _share(top: Array, bottom: Array, missed: Array) -> Array:
    values = ratio(top, bottom)
    values[(bottom == 0) & (missed > 0)] = 0.0
    return values


PER_CLASS: dict[str, Callable[[Counts], Array]] = {
    "precision": lambda c: _share(c.tp, c.tp + c.fp, c.fn),
    "recall": lambda c: _share(c.tp, c.tp + c.fn, c.fp),
    "sensitivity": lambda c: _share(c.tp, c.tp + c.fn, c.fp),
    "specificity": lambda c: _share(c.tn, c.tn + c.fp, c.fn),
    "negative_predictive_value": lambda c: _share(c.tn, c.tn + c.fn, c.fp),
    "f1": lambda c: ratio(2 * c.tp, 2 * c.tp + c.fp + c.fn),
    "jaccard": lambda c: ratio(c.tp, c.tp + c.fp + c.fn),
}


def averaged(name: str, counts: Counts, average: str) -> Array:
    """Mean of a per-class score: macro, micro or weighted by support."""
    if average == "micro":
        return PER_CLASS[name](counts.pooled())[..., 0]
    values = PER_CLASS[name](counts)
    occurs = counts.tp + counts.fp + counts.fn > 0
    values = numpy.where(occurs | (counts.tp.shape[-1] == 1), values, numpy.nan)
    if average == "weighted":
        support = numpy.where(numpy.isnan(values), 0.0, counts.tp + counts.fn)
        return ratio(numpy.nansum(values * support, -1), support.sum(-1))
    return mean_defined(values)


def accuracy(counts: Counts) -> Array:
    """Share of right labels; of labels that may hold together: of right decisions."""
    right = counts.tp if counts.exclusive else counts.tp + counts.tn
    return ratio(right.sum(-1), counts.decisions)


def balanced_accuracy(counts: Counts) -> Array:
    """Mean recall of the classes that occur; of labels that may hold together the mean of both recalls of each."""
    sensitivity = ratio(counts.tp, counts.tp + counts.fn)
    if counts.exclusive:
        return mean_defined(sensitivity)
    specificity = ratio(counts.tn, counts.tn + counts.fp)
    return mean_defined(mean_defined(numpy.stack((sensitivity, specificity), -1)))


def label_score(name: str, counts: Counts, average: str) -> Array:
    """A score of counts by its name.

    Args:
        name: of `PER_CLASS`, or accuracy, balanced_accuracy, mcc.
        counts: the counts.
        average: macro, micro, weighted, or "positive" for that of the second class alone (binary).
    """
    if name in PER_CLASS:
        return averaged(name, counts.only(1), "macro") if average == "positive" else averaged(name, counts, average)
    return {"accuracy": accuracy, "balanced_accuracy": balanced_accuracy, "mcc": mcc}[name](counts)


def costs(classes: int, weights: str) -> Array:
    """What mistakes cost in kappa, [C, C]: none (1 each), linear or quadratic in the distance of the classes."""
    steps = numpy.abs(numpy.subtract.outer(numpy.arange(classes), numpy.arange(classes))).astype(numpy.float64)
    return {"none": (steps > 0).astype(numpy.float64), "linear": steps, "quadratic": steps**2}[weights]


def kappa(disagreement: Array, true: Array, predicted: Array, weights: str) -> Array:
    """Cohen's kappa (1960), or weighted kappa with linear or quadratic disagreement (1968).

    Args:
        disagreement: sum over samples of the cost of their mistake [...].
        true, predicted: samples of each class [..., C].
        weights: none, linear or quadratic.
    """
    cost = costs(true.shape[-1], weights)
    expected = ((true @ cost) * predicted).sum(-1) / numpy.maximum(true.sum(-1), 1.0)
    return 1.0 - ratio(disagreement, expected)


def mcc(counts: Counts) -> Array:
    """Matthews correlation, multiclass form (Gorodkin 2004); nan with one true class, 0 with one predicted."""
    truth, predicted, total = counts.tp + counts.fn, counts.tp + counts.fp, counts.decisions
    spread_truth = total**2 - (truth * truth).sum(-1)
    spread_predicted = total**2 - (predicted * predicted).sum(-1)
    covariance = counts.tp.sum(-1) * total - (truth * predicted).sum(-1)
    value = ratio(covariance, numpy.sqrt(spread_truth) * numpy.sqrt(spread_predicted))
    return numpy.where(spread_truth == 0, numpy.nan, numpy.where(spread_predicted == 0, 0.0, value))


def calibration_error(confidence: Array, hits: Array, samples: Array) -> Array:
    """Expected calibration error over bins (Naeini et al. 2015; Guo et al. 2017, arXiv:1706.04599).

    Args:
        confidence: sum of the probabilities in each bin [..., bins].
        hits: what came true in each bin [..., bins].
        samples: judged probabilities [...].
    """
    return ratio(numpy.abs(confidence - hits).sum(-1), samples)
