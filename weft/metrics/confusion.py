"""The confusion matrix of labels and every score that follows from it.

Rows are the truth, columns the prediction. A class that occurs in neither is left out of means; a ratio without a
denominator counts 0 where the class occurs on the other side (scikit-learn's convention), and is nan where there is
nothing to judge.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy
import torch
from torch import Tensor

from weft.errors import UsageError
from weft.metrics.values import Accumulator, Array, BatchView, added, host, mean_of_defined, out_of_range, ratio

SMALL = 1 << 14  # up to so many cells a bincount per batch costs less than scattered additions


@dataclass(frozen=True, slots=True)
class Counts:
    """Per class (or label): true and false positives and negatives; `matrix` is None for multilabel."""

    tp: Array
    fp: Array
    fn: Array
    tn: Array
    matrix: Array | None = None

    @classmethod
    def of_matrix(cls, matrix: Array) -> Counts:
        """One-against-the-rest counts of a [C, C] matrix."""
        tp = numpy.diagonal(matrix).astype(numpy.float64)
        fp, fn = matrix.sum(0) - tp, matrix.sum(1) - tp
        return cls(tp, fp, fn, matrix.sum() - tp - fp - fn, matrix)

    @classmethod
    def of_labels(cls, tables: Array) -> Counts:
        """Counts of [C, 2, 2] tables."""
        tables = tables.astype(numpy.float64)
        return cls(tables[:, 1, 1], tables[:, 0, 1], tables[:, 1, 0], tables[:, 0, 0])

    def only(self, index: int) -> Counts:
        """The counts of one class."""
        part = slice(index, index + 1)
        return Counts(self.tp[part], self.fp[part], self.fn[part], self.tn[part], self.matrix)

    def pooled(self) -> Counts:
        """All classes as one (micro average)."""
        return Counts(*(numpy.atleast_1d(part.sum()) for part in (self.tp, self.fp, self.fn, self.tn)))


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


def averaged(name: str, counts: Counts, average: str) -> float:
    """Mean of a per-class score: macro, micro or weighted by support."""
    if average == "micro":
        return float(PER_CLASS[name](counts.pooled())[0])
    values = PER_CLASS[name](counts)
    occurs = counts.tp + counts.fp + counts.fn > 0
    values = numpy.where(occurs | (counts.tp.size == 1), values, numpy.nan)
    if average == "weighted":
        support = numpy.where(numpy.isnan(values), 0.0, counts.tp + counts.fn)
        return float(ratio(numpy.nansum(values * support), support.sum()))
    return mean_of_defined(values)


def accuracy(counts: Counts) -> float:
    """Share of right labels; multilabel: of right decisions."""
    if counts.matrix is not None:
        return float(ratio(numpy.trace(counts.matrix), counts.matrix.sum()))
    everything = counts.tp + counts.fp + counts.fn + counts.tn
    return float(ratio((counts.tp + counts.tn).sum(), everything.sum()))


def balanced_accuracy(counts: Counts) -> float:
    """Mean recall of the classes that occur; multilabel: mean over labels of (sensitivity + specificity) / 2."""
    sensitivity = ratio(counts.tp, counts.tp + counts.fn)
    if counts.matrix is not None:
        return mean_of_defined(sensitivity)
    specificity = ratio(counts.tn, counts.tn + counts.fp)
    both = numpy.stack((sensitivity, specificity), 1)
    return mean_of_defined(numpy.array([mean_of_defined(pair) for pair in both]))


def kappa(matrix: Array, weights: str) -> float:
    """Cohen's kappa (1960), or weighted kappa with linear or quadratic disagreement (1968)."""
    steps = numpy.abs(numpy.subtract.outer(numpy.arange(len(matrix)), numpy.arange(len(matrix)))).astype(numpy.float64)
    cost = {"none": (steps > 0).astype(numpy.float64), "linear": steps, "quadratic": steps**2}[weights]
    expected = numpy.outer(matrix.sum(1), matrix.sum(0)) / max(float(matrix.sum()), 1.0)
    return 1.0 - float(ratio((cost * matrix).sum(), (cost * expected).sum()))


def mcc(matrix: Array) -> float:
    """Matthews correlation, multiclass form (Gorodkin 2004); nan with one true class, 0 with one predicted."""
    matrix = matrix.astype(numpy.float64)
    truth, predicted, total = matrix.sum(1), matrix.sum(0), matrix.sum()
    spread_truth, spread_predicted = total**2 - truth @ truth, total**2 - predicted @ predicted
    if spread_truth == 0:
        return float("nan")
    if spread_predicted == 0:
        return 0.0
    covariance = numpy.trace(matrix) * total - truth @ predicted
    return float(covariance / numpy.sqrt(spread_truth) / numpy.sqrt(spread_predicted))


class ConfusionScores(Accumulator):
    """Scores of label counts; what is shared by the matrix of single labels and the tables of many."""

    def __init__(self, setting: Any, requests: Sequence[Any]) -> None:
        super().__init__(setting, requests)
        for request in self.requests:
            _check(request.name, request.arguments)

    def counts(self, states: Sequence[Array]) -> Counts:
        """Per-class counts of pooled states."""
        raise NotImplementedError

    def values(self, states: Sequence[Array]) -> dict[str, float]:
        counts = self.counts(states)
        return {request.key: self._value(request.name, request.arguments, counts, states) for request in self.requests}

    def _value(self, name: str, arguments: Any, counts: Counts, states: Sequence[Array]) -> float:
        if name in PER_CLASS:
            average = arguments["average"]
            if average == "auto" and self.setting.kind == "binary":
                return averaged(name, counts.only(1), "macro")
            return averaged(name, counts, "macro" if average == "auto" else average)
        if name == "accuracy":
            return accuracy(counts)
        if name == "balanced_accuracy":
            return balanced_accuracy(counts)
        if name == "exact_match":
            return float(ratio(states[1][0], states[1][1]))
        assert counts.matrix is not None
        return mcc(counts.matrix) if name == "mcc" else kappa(counts.matrix, arguments["weights"])

    def per_class(self, counts: Counts) -> dict[str, dict[str, float]]:
        """Every per-class score and the support, by class name."""
        columns = {name: function(counts) for name, function in PER_CLASS.items() if name != "sensitivity"}
        columns["support"] = counts.tp + counts.fn
        return {
            label: {name: float(column[index]) for name, column in columns.items()}
            for index, label in enumerate(self.setting.class_names)
        }


class LabelCounts(ConfusionScores):
    """Confusion matrix [C, C] of binary and multiclass labels."""

    def reset(self) -> None:
        classes = self.setting.classes
        self._matrix = torch.zeros(classes * classes, dtype=torch.int64)

    def update(self, batch: BatchView) -> None:
        classes, cells = self.setting.classes, self._matrix.shape[0]
        labels = batch.labels
        index = torch.add(batch.predicted, labels, alpha=classes)
        if cells <= SMALL:
            try:
                part = torch.bincount(index, minlength=cells)
            except RuntimeError as error:  # bincount refuses negative numbers: the check costs nothing on good data
                raise out_of_range(labels, classes) from error
            if part.shape[0] != cells:
                raise out_of_range(labels, classes)
            self._matrix = added(self._matrix, part)
            return
        if bool(((labels < 0) | (labels >= classes)).any()):
            raise out_of_range(labels, classes)
        self._matrix = self._matrix.to(index.device).index_add_(0, index, torch.ones_like(index))

    def states(self) -> list[Tensor]:
        return [host(self._matrix).view(self.setting.classes, self.setting.classes)]

    def restore(self, snapshot: Sequence[Tensor]) -> None:
        self._matrix = snapshot[0].reshape(-1).clone()

    def counts(self, states: Sequence[Array]) -> Counts:
        return Counts.of_matrix(states[0])

    def details(self, states: Sequence[Array]) -> dict[str, Any]:
        counts = self.counts(states)
        matrix = {"labels": list(self.setting.class_names), "counts": states[0].tolist()}
        return {"confusion_matrix": matrix, "per_class": self.per_class(counts)}


class LabelTables(ConfusionScores):
    """A 2 x 2 table for each label [C, 2, 2], and the samples with every label right."""

    def reset(self) -> None:
        self._sums = torch.zeros(3, self.setting.classes, dtype=torch.int64)  # true positives, predicted, true
        self._exact = torch.zeros((), dtype=torch.int64)
        self._samples = 0

    def update(self, batch: BatchView) -> None:
        labels, predicted = batch.labels, batch.predicted
        true = labels.bool()
        if bool((labels != true).any()):
            raise out_of_range(labels, 2, "multilabel")
        self._sums = added(self._sums, torch.stack(((true & predicted).sum(0), predicted.sum(0), true.sum(0))))
        self._exact = added(self._exact, (true == predicted).all(1).sum())
        self._samples += batch.size

    def states(self) -> list[Tensor]:
        both, predicted, true = host(self._sums)
        none = self._samples - predicted - true + both
        tables = torch.stack((none, predicted - both, true - both, both), 1).view(-1, 2, 2)
        return [tables, torch.stack((host(self._exact), torch.tensor(self._samples)))]

    def restore(self, snapshot: Sequence[Tensor]) -> None:
        tables, self._samples = snapshot[0], int(snapshot[1][1])
        self._sums = torch.stack((tables[:, 1, 1], tables[:, :, 1].sum(1), tables[:, 1].sum(1)))
        self._exact = snapshot[1][0].clone()

    def counts(self, states: Sequence[Array]) -> Counts:
        return Counts.of_labels(states[0])

    def details(self, states: Sequence[Array]) -> dict[str, Any]:
        return {"per_class": self.per_class(self.counts(states)), "label_tables": states[0].tolist()}


_CHOICES = {"average": ("auto", "macro", "micro", "weighted"), "weights": ("none", "linear", "quadratic")}


def _check(name: str, arguments: Any) -> None:
    for argument, value in arguments.items():
        if argument in _CHOICES and value not in _CHOICES[argument]:
            raise UsageError(f"metric '{name}': {argument} is {value!r}", f"it can be {', '.join(_CHOICES[argument])}")
