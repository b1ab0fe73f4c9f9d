"""Scores computed again from rows of cases: of all cases, of groups of them, of resamples. Imports no torch.

A recipe is trusted only where it gives the value that the score book gave for all cases; scores that cannot be computed
so are listed in `Rescored.missing`, each with the reason.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy

from weft.metrics.casetable import CaseTable
from weft.metrics.caseterms import TERMS, Layout, Order, Resamples, Terms, Units, orders, value_terms
from weft.metrics.formulas import Array, mean_defined
from weft.metrics.recipes import Recipe, candidates

_TOLERANCE = 1e-6  # relative; the loss was summed in single precision
_LOSS_TOLERANCE = 2e-5
_CHUNK = 250_000  # weights that are ordered at a time: they fit in a processor's cache


@dataclass(slots=True)
class Rescored:
    """Scores of a table of cases.

    Args:
        table: the rows.
        layout: what they hold.
        recipes: by score; only those that may be trusted.
        missing: scores without a recipe, and why.
    """

    table: CaseTable
    layout: Layout
    recipes: dict[str, Recipe] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    _terms: dict[str, Terms] = field(default_factory=dict)
    _orders: dict[str, list[Order]] = field(default_factory=dict)
    _sums: dict[tuple[str, Units], Array] = field(default_factory=dict)
    _values: dict[str, float] = field(default_factory=dict)
    _totals: dict[tuple[str, Resamples], Array] = field(default_factory=dict)
    _drawn: dict[tuple[str, Resamples, int], Array] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.table)

    def on(self, table: CaseTable) -> Rescored:
        """The same scores of other rows."""
        return Rescored(table, self.layout, self.recipes, self.missing)

    def value(self, name: str) -> float:
        """A score of all cases."""
        if name not in self._values:
            self._values[name] = float(self.by_unit(name, Units(numpy.zeros(len(self), numpy.int64), 1))[0])
        return self._values[name]

    def sums(self, name: str, units: Units) -> Array:
        """Sums over the cases of each unit, [units, width], from which a score follows that needs no order."""
        family = self.recipes[name].family
        key = (family, units)
        if key not in self._sums:
            self._sums[key] = self._terms_of(family).by_unit(units)
        return self._sums[key]

    def by_unit(self, name: str, units: Units) -> Array:
        """A score of the cases of each unit by themselves, [units]."""
        recipe = self.recipes[name]
        if not recipe.ranks:
            return recipe.formula(self._terms_of(recipe.family).by_unit(units))
        parts = [self.ordered(recipe, (units.of == unit)[None].astype(numpy.float64)) for unit in range(units.count)]
        return numpy.concatenate(parts) if parts else numpy.zeros(0)

    def resampled(self, name: str, resamples: Resamples, count: int | None = None) -> Array:
        """A score of resamples, float64 [count].

        Args:
            name: the score.
            resamples: of the units of these cases.
            count: how many of them; None for all.
        """
        count = len(resamples.weights) if count is None else min(count, len(resamples.weights))
        key = (name, resamples, count)
        if key not in self._drawn:
            compute = self._resampled_order if self.recipes[name].ranks else self._resampled_sums
            self._drawn[key] = compute(name, resamples, count)
        return self._drawn[key]

    def _resampled_sums(self, name: str, resamples: Resamples, count: int) -> Array:
        recipe = self.recipes[name]
        key = (recipe.family, resamples)
        if key not in self._totals:
            self._totals[key] = resamples.weights @ self.sums(name, resamples.units)
        return recipe.formula(self._totals[key][:count])

    def _resampled_order(self, name: str, resamples: Resamples, count: int) -> Array:
        size = max(1, _CHUNK // max(len(self), 1))
        weights = resamples.weights[:count].astype(numpy.float32)  # counts, which it holds exactly, in half the room
        of = resamples.units.of
        parts = [self.ordered(self.recipes[name], weights[at : at + size][:, of]) for at in range(0, count, size)]
        return numpy.concatenate(parts)

    def ordered(self, recipe: Recipe, weights: Array) -> Array:
        """A score of order for weights of cases [B, n]."""
        kind = recipe.family.removeprefix("order ")
        if kind not in self._orders:
            self._orders[kind] = orders(self.table, self.layout, kind)
        groups = [recipe.formula(*order.counts(weights)) for order in self._orders[kind]]
        return mean_defined(numpy.stack(groups, -1))

    def forget(self, name: str) -> None:
        """Forget the value of a score: it has another recipe."""
        self._values.pop(name, None)

    def order_count(self, name: str) -> int:
        """How many orders a score needs; 0 when it follows from sums."""
        recipe = self.recipes[name]
        if not recipe.ranks:
            return 0
        return 1 if recipe.family.endswith("binary") else len(self.layout.labels)

    def _terms_of(self, family: str) -> Terms:
        if family not in self._terms:
            if family.startswith("values "):
                self._terms[family] = value_terms(self.table, family.removeprefix("values ").split("|"))
            else:
                self._terms[family] = TERMS[family](self.table, self.layout)
        return self._terms[family]


def rescore(
    table: CaseTable, scores: Mapping[str, float | None], layout: Layout, bounds: Mapping[str, float] | None = None
) -> Rescored:
    """Find out which scores of an evaluation follow from its rows of cases.

    Args:
        table: the rows.
        scores: what the score book gave, by name; None where a score is undefined.
        layout: what the rows hold.
        bounds: how far scores may be off that came from bins, by name.
    """
    found = Rescored(table, layout)
    for name, value in scores.items():
        if value is None or not math.isfinite(value):
            found.missing[name] = "it is not defined here"
            continue
        tried: list[float] = []
        for recipe in candidates(name, layout):
            computed = _try(found, name, recipe)
            if computed is None:
                continue
            tried.append(computed)
            relative = _LOSS_TOLERANCE if name == "loss" else _TOLERANCE
            off = max(1e-9, (bounds or {}).get(name, 0.0) * (1 + _TOLERANCE))  # a bound may be reached
            if math.isclose(computed, value, rel_tol=relative, abs_tol=off):
                break
        else:
            found.recipes.pop(name, None)
            found.missing[name] = _reason(name, tried)
    return found


def _try(found: Rescored, name: str, recipe: Recipe) -> float | None:
    """The value by a recipe; None when the rows lack what it needs."""
    found.recipes[name] = recipe
    found.forget(name)
    try:
        return found.value(name)
    except KeyError:
        return None


def _reason(name: str, tried: list[float]) -> str:
    if tried and name != "loss":
        return f"the rows of cases give {tried[0]:.4g}"
    return "it is no function of the rows of cases"
