"""The answers of a model that does not look at its inputs: what every score has to be better than. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy

from weft.metrics.casetable import CaseTable
from weft.metrics.caseterms import Layout
from weft.metrics.formulas import Array
from weft.metrics.names import KNOWN
from weft.metrics.recipes import split_key
from weft.metrics.rescoring import Rescored


@dataclass(frozen=True, slots=True)
class Trivial:
    """A trivial model.

    Args:
        rule: what it does, in words that continue "a model that".
        rescored: its scores of a split.
    """

    rule: str
    rescored: Rescored

    def scores(self) -> dict[str, float]:
        """Its scores; nan where one is undefined or cannot be known."""
        return {name: self.rescored.value(name) for name in self.rescored.recipes}


def trivial_model(rescored: Rescored, training: CaseTable) -> Trivial | None:
    """The majority class, the mean, or nothing but background; None where the rows do not tell.

    Args:
        rescored: the scores of a split.
        training: rows of the training split, whose targets the trivial model knows.
    """
    columns, rule = _BY_KIND[rescored.layout.kind](rescored.table, training, rescored.layout)
    if not columns:
        return None
    own = [name for recipe in rescored.recipes.values() for name in _value_columns(recipe.family)]
    unknown = {name: numpy.full(len(rescored), numpy.nan) for name in own if name not in columns}
    return Trivial(rule, rescored.on(rescored.table.replaced({**unknown, **columns})))


_Answer = tuple[dict[str, Sequence[str] | Array], str]


def _value_columns(family: str) -> list[str]:
    return family.removeprefix("values ").split("|") if family.startswith("values ") else []


def _majority(table: CaseTable, training: CaseTable, layout: Layout) -> _Answer:
    targets = training.texts("target")
    counts = [targets.count(label) for label in layout.labels]
    if not sum(counts):
        return {}, ""
    shares = numpy.array(counts) / sum(counts)
    best = int(shares.argmax())
    length = len(table)
    columns: dict[str, Sequence[str] | Array] = {
        "prediction": [layout.labels[best]] * length,
        "probability": numpy.full(length, shares[best]),
    }
    for label, share in zip(layout.labels, shares):
        columns[f"probability_{label}"] = numpy.full(length, share)
    return columns, f"always answers “{layout.labels[best]}”, the most frequent class in training"


def _majority_of_each(table: CaseTable, training: CaseTable, layout: Layout) -> _Answer:
    columns: dict[str, Sequence[str] | Array] = {}
    for label in layout.labels:
        share = float(training.numbers(f"target_{label}").mean())
        columns[f"prediction_{label}"] = numpy.full(len(table), float(share > 0.5))
        columns[f"probability_{label}"] = numpy.full(len(table), share)
    return columns, "gives every label the answer that is more frequent in training"


def _mean(table: CaseTable, training: CaseTable, layout: Layout) -> _Answer:
    columns: dict[str, Sequence[str] | Array] = {}
    means = []
    for name in layout.labels:
        ending = f"_{name}" if name else ""
        means.append(float(training.numbers(f"target{ending}").mean()))
        columns[f"prediction{ending}"] = numpy.full(len(table), means[-1])
    told = f" ({means[0]:.4g})" if len(means) == 1 else ""
    return columns, f"always answers the mean of the training targets{told}"


def _background(table: CaseTable, training: CaseTable, layout: Layout) -> _Answer:
    """Overlaps with what is there are 0; distances to nothing are undefined."""
    columns: dict[str, Sequence[str] | Array] = {}
    for label in layout.labels:
        there = table.numbers(f"voxels_{label}") > 0
        columns[f"predicted_voxels_{label}"] = numpy.zeros(len(table))
        for column in table.columns:
            score = column.removesuffix(f"_{label}")
            if score != column and _is_overlap(score):
                columns[column] = numpy.where(there, 0.0, numpy.nan)
    return columns, "finds nothing but background"


def _is_overlap(score: str) -> bool:
    name, _ = split_key(score)
    return name in KNOWN and KNOWN[name].kinds == ("segmentation",) and KNOWN[name].mode == "max"


_BY_KIND = {"single": _majority, "multilabel": _majority_of_each, "regression": _mean, "values": _background}
