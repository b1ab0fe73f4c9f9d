"""What rows of cases contribute to scores: terms of sums, and orders by a score. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy

from weft.metrics.casetable import CaseTable
from weft.metrics.formulas import Array

BINS = 15  # of calibration, where the score book does not say


@dataclass(frozen=True, slots=True)
class Layout:
    """What the columns of a table of cases mean.

    Args:
        kind: "single" (one class per case), "multilabel", "regression", or "values" (scores per case).
        labels: classes in the order of the confusion matrix; labels; names of outputs; foreground classes.
        bins: of calibration.
    """

    kind: str
    labels: tuple[str, ...]
    bins: int = BINS

    @classmethod
    def of(cls, table: CaseTable, labels: Sequence[str] | None = None, bins: int = BINS) -> Layout:
        """Read the layout off the columns; `labels` is the order of classes where it is known."""
        targets = [rest for rest in table.named("target_") if f"prediction_{rest}" in table]
        if {"target", "prediction", "probability"} <= set(table.columns):
            found = labels or list(table.named("probability_")) or sorted({*table.texts("target")})
            return cls("single", tuple(found), bins)
        if targets and all(f"probability_{rest}" in table for rest in targets):
            return cls("multilabel", tuple(targets), bins)
        if targets or {"target", "prediction"} <= set(table.columns):
            return cls("regression", tuple(targets) or ("",), bins)
        return cls("values", tuple(table.named("voxels_")), bins)


@dataclass(frozen=True, eq=False)
class Units:
    """What is drawn as a whole when cases are resampled: single cases, or groups of cases.

    Args:
        of: the unit of each case, int64 [n].
        count: how many units there are.
        grouped: whether cases of a unit belong together; else a unit is one case, or cases put together at random.
    """

    of: Array
    count: int
    grouped: bool = False


@dataclass(frozen=True, eq=False)
class Resamples:
    """Draws of units with replacement.

    Args:
        units: what was drawn.
        weights: how often each unit is in each resample, float64 [resamples, units].
    """

    units: Units
    weights: Array


@dataclass(frozen=True, slots=True)
class Terms:
    """Contributions of cases to sums, as a sparse matrix: `values[i]` of case `cases[i]` goes to sum `columns[i]`."""

    width: int
    cases: Array
    columns: Array
    values: Array

    @classmethod
    def of_columns(cls, columns: Sequence[Array]) -> Terms:
        """Every case contributes one number to every sum."""
        width, length = len(columns), len(columns[0])
        cases = numpy.tile(numpy.arange(length), width)
        return cls(width, cases, numpy.repeat(numpy.arange(width), length), numpy.concatenate(columns))

    @classmethod
    def joined(cls, parts: Sequence[Terms]) -> Terms:
        """Sums beside each other."""
        starts = numpy.cumsum([0, *(part.width for part in parts)])
        columns = [part.columns + start for part, start in zip(parts, starts)]
        cases, values = [part.cases for part in parts], [part.values for part in parts]
        return cls(int(starts[-1]), *(numpy.concatenate(each) for each in (cases, columns, values)))

    @classmethod
    def added(cls, parts: Sequence[Terms]) -> Terms:
        """Contributions to the same sums."""
        cases, columns = [part.cases for part in parts], [part.columns for part in parts]
        values = [part.values for part in parts]
        return cls(parts[0].width, *(numpy.concatenate(each) for each in (cases, columns, values)))

    @classmethod
    def one_hot(cls, place: Array, width: int, values: Array | None = None) -> Terms:
        """Every case contributes 1 (or its value) to the sum whose number it names."""
        weights = numpy.ones(len(place)) if values is None else values
        return cls(width, numpy.arange(len(place)), place, weights)

    def by_unit(self, units: Units) -> Array:
        """The sums of each unit, float64 [units, width]."""
        place = units.of[self.cases] * self.width + self.columns
        sums = numpy.bincount(place, weights=self.values, minlength=units.count * self.width)
        return sums.reshape(units.count, self.width)


@dataclass(frozen=True, slots=True)
class Order:
    """Samples in the order of a score, the highest first, in steps: a step holds the samples of one value, or of some
    values that no positive has (no area under a curve depends on the order of negatives among themselves).

    Args:
        cases: number of the case at each place [n].
        starts: places where steps begin [K].
        positives: the cases that are positive, in order [P].
        positive_starts: places in `positives` where a step begins [S].
        positive_steps: numbers of the steps with positives [S].
    """

    cases: Array
    starts: Array
    positives: Array
    positive_starts: Array
    positive_steps: Array

    @classmethod
    def by(cls, scores: Array, positive: Array) -> Order:
        """Sort samples by their score."""
        cases = numpy.argsort(-scores, kind="stable")
        falling, positive = scores[cases], positive[cases]
        starts = numpy.flatnonzero(numpy.concatenate(([True], falling[1:] != falling[:-1])))
        with_positives = numpy.add.reduceat(positive.astype(numpy.int64), starts) > 0
        starts = starts[with_positives | numpy.concatenate(([True], with_positives[:-1]))]
        steps = (numpy.searchsorted(starts, numpy.arange(len(cases)), side="right") - 1)[positive]
        positive_steps, positive_starts = numpy.unique(steps, return_index=True)
        return cls(cases, starts, cases[positive], positive_starts, positive_steps)

    def counts(self, weights: Array) -> tuple[Array, Array]:
        """Weights of positives and of negatives in each step [B, K], from weights of cases [B, n]."""
        both = numpy.add.reduceat(weights.take(self.cases, 1), self.starts, 1)
        positives = numpy.zeros_like(both)
        if len(self.positives):
            found = numpy.add.reduceat(weights.take(self.positives, 1), self.positive_starts, 1)
            positives[:, self.positive_steps] = found
        return positives, both - positives


# --- families: what each needs of the table ---------------------------------------------------------------------------


def labels_terms(table: CaseTable, layout: Layout) -> Terms:
    """True, predicted and hit cases of each class, then linear and quadratic cost of mistakes."""
    true, predicted = _codes(table, layout)
    classes = len(layout.labels)
    hit = numpy.flatnonzero(true == predicted)
    steps = numpy.abs(true - predicted).astype(numpy.float64)
    parts = [
        Terms.one_hot(true, classes),
        Terms.one_hot(predicted, classes),
        Terms(classes, hit, true[hit], numpy.ones(len(hit))),
        Terms.of_columns([steps, steps**2]),
    ]
    return Terms.joined(parts)


def _codes(table: CaseTable, layout: Layout) -> tuple[Array, Array]:
    """Numbers of the true and of the predicted classes."""
    return table.codes("target", layout.labels), table.codes("prediction", layout.labels)


def multilabel_terms(table: CaseTable, layout: Layout) -> Terms:
    """True, predicted and hit cases of each label, cases with every label right, cases."""
    true, predicted = _label_matrix(table, layout, "target"), _label_matrix(table, layout, "prediction")
    exact = (true == predicted).all(1).astype(numpy.float64)
    return Terms.of_columns([*true.T, *predicted.T, *(true * predicted).T, exact, numpy.ones(len(table))])


def _label_matrix(table: CaseTable, layout: Layout, what: str) -> Array:
    return numpy.stack([table.numbers(f"{what}_{label}") for label in layout.labels], 1)


def rank_terms(table: CaseTable, layout: Layout) -> Terms:
    """Cases whose true class has the first, second, … highest probability."""
    true, _ = _codes(table, layout)
    probabilities = _label_matrix(table, layout, "probability")
    of_true = probabilities[numpy.arange(len(true)), true]
    return Terms.one_hot((probabilities > of_true[:, None]).sum(1), len(layout.labels))


def class_probability_terms(table: CaseTable, layout: Layout) -> Terms:
    """Calibration of the predicted class; sums of squared errors and of negative log-probabilities; cases."""
    true, predicted = _codes(table, layout)
    confidence, hit = table.numbers("probability"), (true == predicted).astype(numpy.float64)
    if len(table.named("probability_")) == len(layout.labels):
        probabilities = _label_matrix(table, layout, "probability")
        of_true = probabilities[numpy.arange(len(true)), true]
        squared = (probabilities**2).sum(1) - 2 * of_true + 1
        costs = [squared, _minus_log(of_true)]
    else:  # many classes have no columns of their own
        costs = [numpy.full(len(table), numpy.nan)] * 2
    return _calibration(confidence, hit, layout.bins, [*costs, numpy.ones(len(table))])


def positive_probability_terms(table: CaseTable, layout: Layout) -> Terms:
    """The same of the positive class alone (binary)."""
    true, _ = _codes(table, layout)
    negative, positive = _label_matrix(table, layout, "probability").T
    of_true = numpy.where(true == 1, positive, negative)
    costs = [(positive - true) ** 2, _minus_log(of_true), numpy.ones(len(table))]
    return _calibration(positive, true.astype(numpy.float64), layout.bins, costs)


def label_probability_terms(table: CaseTable, layout: Layout) -> Terms:
    """The same of all labels together (multilabel)."""
    true, probabilities = _label_matrix(table, layout, "target"), _label_matrix(table, layout, "probability")
    squared = ((probabilities - true) ** 2).mean(1)
    of_true = numpy.where(true == 1, probabilities, 1 - probabilities)
    parts = [_calibration(p, t, layout.bins, []) for p, t in zip(probabilities.T, true.T)]
    return Terms.joined(
        [Terms.added(parts), Terms.of_columns([squared, _minus_log(of_true).mean(1), numpy.ones(len(table))])]
    )


def _minus_log(probabilities: Array) -> Array:
    with numpy.errstate(divide="ignore"):
        return -numpy.log(probabilities)


def _calibration(confidence: Array, hit: Array, bins: int, costs: Sequence[Array]) -> Terms:
    place = numpy.clip((numpy.nan_to_num(confidence) * bins).astype(numpy.int64), 0, bins - 1)
    parts = [Terms.one_hot(place, bins, confidence), Terms.one_hot(place, bins, hit)]
    return Terms.joined([*parts, Terms.of_columns(costs)] if costs else parts)


def regression_terms(table: CaseTable, layout: Layout) -> Terms:
    """Of each output t, o, t², o², t·o about the mean target, (o-t)², |o-t|; cases."""
    columns: list[Array] = []
    for name in layout.labels:
        ending = f"_{name}" if name else ""
        true, said = table.numbers(f"target{ending}"), table.numbers(f"prediction{ending}")
        shift = true.mean()
        t, o, error = true - shift, said - shift, said - true
        columns += [t, o, t * t, o * o, t * o, error * error, numpy.abs(error)]
    return Terms.of_columns([*columns, numpy.ones(len(table))])


def value_terms(table: CaseTable, names: Sequence[str]) -> Terms:
    """Of each column the sum of what is defined, and how much of it is."""
    columns = []
    for name in names:
        values = table.numbers(name)
        columns += [numpy.nan_to_num(values), (~numpy.isnan(values)).astype(numpy.float64)]
    return Terms.of_columns(columns)


def voxel_terms(table: CaseTable, layout: Layout) -> Terms:
    """Of each foreground class twice the overlap, and the voxels of truth and prediction together."""
    columns = []
    for name in layout.labels:
        both = table.numbers(f"voxels_{name}") + table.numbers(f"predicted_voxels_{name}")
        columns += [numpy.round(numpy.nan_to_num(table.numbers(f"dice_{name}")) * both), both]
    return Terms.of_columns(columns)


def orders(table: CaseTable, layout: Layout, kind: str) -> list[Order]:
    """The orders of all cases by each class that is ranked: the positive one (binary), or each against the rest."""
    return list(_orders(table, layout, kind))


def _orders(table: CaseTable, layout: Layout, kind: str) -> Iterator[Order]:
    if kind == "multilabel":
        for label in layout.labels:
            yield Order.by(table.numbers(f"probability_{label}"), table.numbers(f"target_{label}") == 1)
        return
    true, _ = _codes(table, layout)
    probabilities = _label_matrix(table, layout, "probability")
    for index in [1] if kind == "binary" else range(len(layout.labels)):
        rest = numpy.delete(probabilities, index, 1).sum(1)  # not 1 - p, which is 0 for sure predictions
        with numpy.errstate(divide="ignore"):
            odds = numpy.log(probabilities[:, index]) - numpy.log(rest)
        yield Order.by(odds, true == index)


TERMS: dict[str, Callable[[CaseTable, Layout], Terms]] = {
    "labels": labels_terms,
    "multilabel": multilabel_terms,
    "ranks": rank_terms,
    "probability of the class": class_probability_terms,
    "probability of the positive": positive_probability_terms,
    "probability of labels": label_probability_terms,
    "regression": regression_terms,
    "voxels": voxel_terms,
}
"""The sums that scores follow from, by family."""
