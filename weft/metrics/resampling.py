"""Bootstrap confidence intervals of scores, from rows of cases. Imports no torch.

Cases are drawn with replacement (Efron 1979); where cases belong to groups, such as slices of a patient, whole groups
are drawn (Davison & Hinkley 1997, section 3.8). The interval is that of the percentiles (Efron & Tibshirani 1993,
chapter 13). Random numbers are seeded: the same cases give the same intervals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy

from weft.metrics.caseterms import Resamples, Units
from weft.metrics.formulas import Array
from weft.metrics.rescoring import Rescored

RESAMPLES = 1000
FEWEST_RESAMPLES = 200  # for scores of order of very many cases
FEWEST_UNITS = 5
MOST_UNITS = 2000  # more cases are put together at random and drawn by the bundle: the spread stays the same
LEVEL = 0.95
_SEED = 20_260_101
_MOST_UNDEFINED = 0.05
_ORDERED = 30_000_000  # weights that are ordered for one score; each costs some eight nanoseconds
_TOO_MANY = 250_000_000
_AT_ONCE = 2**16  # units that are drawn in one go


@dataclass(frozen=True, slots=True)
class Interval:
    """A 95 % confidence interval, and from how many resamples it comes."""

    low: float
    high: float
    resamples: int


def make_units(cases: int, groups: Sequence[str] | None = None) -> Units:
    """What is drawn as a whole: groups where there are any, else cases; of very many, bundles of them.

    Args:
        cases: number of cases.
        groups: the group of each case, None where there are none.
    """
    of = numpy.arange(cases)
    if groups is not None:
        number: dict[str, int] = {}
        of = numpy.array([number.setdefault(group, len(number)) for group in groups], numpy.int64)
    count = int(of.max()) + 1 if cases else 0
    if count <= MOST_UNITS:
        return Units(of, count, groups is not None)
    bundle = numpy.random.default_rng(_SEED).permutation(count) % MOST_UNITS
    return Units(bundle[of], MOST_UNITS, groups is not None)


def draw(units: Units, resamples: int = RESAMPLES) -> Resamples:
    """Draw as many units as there are, with replacement, again and again."""
    generator, count = numpy.random.default_rng(_SEED), units.count
    weights = numpy.empty((resamples, count))
    for rows in numpy.array_split(weights, max(1, weights.size // _AT_ONCE)):
        drawn = generator.integers(0, count, rows.shape) + count * numpy.arange(len(rows))[:, None]
        rows[:] = numpy.bincount(drawn.ravel(), minlength=rows.size).reshape(rows.shape)
    return Resamples(units, weights)


def intervals(rescored: Rescored, resamples: Resamples) -> dict[str, Interval | str]:
    """The interval of each score, or why there is none.

    Args:
        rescored: the scores and their cases.
        resamples: of the cases.
    """
    found: dict[str, Interval | str] = dict(rescored.missing)
    for name in rescored.recipes:
        if resamples.units.count < FEWEST_UNITS:
            found[name] = f"there are only {resamples.units.count} to draw from"
            continue
        count = affordable(rescored, name)
        found[name] = (
            interval_of(rescored.resampled(name, resamples, count))
            if count
            else "there are too many cases and classes to resample their order"
        )
    return found


def affordable(rescored: Rescored, name: str, share: int = 1) -> int:
    """How many resamples a score can have in reasonable time; 0 where that are too few to say anything.

    Args:
        rescored: the scores and their cases.
        name: the score.
        share: among how many such tables the time for scores of order is divided.
    """
    each = len(rescored) * rescored.order_count(name)
    if not each:
        return RESAMPLES
    if each * FEWEST_RESAMPLES > _TOO_MANY:
        return 0
    return max(FEWEST_RESAMPLES, min(RESAMPLES, _ORDERED // (each * share)))


def interval_of(values: Array) -> Interval | str:
    """The interval of the percentiles of resampled values, or why they have none."""
    defined = values[numpy.isfinite(values)]
    undefined = 1 - len(defined) / len(values)
    if undefined > _MOST_UNDEFINED:
        return f"it is undefined in {undefined:.0%} of the resamples"
    tail = (1 - LEVEL) / 2
    low, high = numpy.quantile(defined, [tail, 1 - tail])
    if low == high:
        return "all resamples have the same value"
    return Interval(float(low), float(high), len(values))
