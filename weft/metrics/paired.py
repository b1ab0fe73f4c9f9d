"""Paired tests: do two models differ on the same cases? Imports no torch.

- scores of order (AUROC): the bootstrap's distribution of the difference (Efron & Tibshirani 1993, chapter 16); where
  0 lies beyond all resamples, the normal distribution with the bootstrap's standard error;
- accuracy of single cases: McNemar's exact test of the cases that one of both gets right (McNemar 1947);
- all others: randomisation (Fisher 1935; for scores of a whole set Noreen 1989 and Yeh 2000): if the models were alike,
  exchanging their answers to any case, or to all cases of a group, would change nothing. P-values of random exchanges
  count the observed one (Phipson & Smyth 2010).

Several tests at once are corrected with Holm's step-down procedure (Holm 1979).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy

from weft.metrics.caseterms import Resamples, Units
from weft.metrics.formulas import Array
from weft.metrics.recipes import Recipe
from weft.metrics.resampling import Interval, affordable, interval_of
from weft.metrics.rescoring import Rescored

MOST_EXCHANGES, FEWEST_EXCHANGES = 10_000, 2_000
_EXCHANGED = 10_000_000  # units that are exchanged in all
_ALL_OF = 12  # units that differ: all 4096 exchanges are tried
_EXACT_UP_TO = 2_000  # cases in McNemar's test; the normal approximation beyond
_SEED = 20_260_102
_ROUNDING = 1e-6  # relative: sums of random exchanges are in single precision


@dataclass(frozen=True, slots=True)
class PairedTest:
    """The difference of two models in one score on the same cases.

    Args:
        difference: second minus first.
        interval: its 95 % bootstrap interval; None where it has none.
        p: two-sided p-value.
        method: McNemar, randomisation or bootstrap.
    """

    difference: float
    interval: Interval | None
    p: float
    method: str


def paired_tests(first: Rescored, second: Rescored, resamples: Resamples, share: int = 1) -> dict[str, PairedTest]:
    """Test the difference in every score that both have.

    Args:
        first, second: scores of the same cases in the same order.
        resamples: of what is drawn or exchanged as a whole.
        share: among how many such tests the time for resamples and exchanges is divided.
    """
    units = resamples.units
    single = not units.grouped and first.layout.kind == "single"
    exchange = _Exchange(first, second, units, share)
    found = {}
    for name, recipe in second.recipes.items():
        count = affordable(second, name, share)
        if not count or name not in first.recipes or recipe.family != first.recipes[name].family:
            continue
        difference = second.value(name) - first.value(name)
        if not math.isfinite(difference):
            continue
        spread = second.resampled(name, resamples, count) - first.resampled(name, resamples, count)
        if recipe.ranks:
            p, method = _from_bootstrap(spread, difference), "bootstrap"
        elif name == "accuracy" and single:
            p, method = mcnemar(*_discordant(first, second)), "McNemar"
        else:
            p, method = exchange.p_value(name, recipe, difference), "randomisation"
        interval = interval_of(spread)
        found[name] = PairedTest(difference, interval if isinstance(interval, Interval) else None, p, method)
    return found


def _from_bootstrap(spread: Array, difference: float) -> float:
    defined = spread[numpy.isfinite(spread)]
    if not difference or not len(defined):
        return 1.0
    beyond = min(int((defined <= 0).sum()), int((defined >= 0).sum()))
    counted = min(1.0, 2 * (1 + beyond) / (1 + len(defined)))
    error = float(defined.std())
    if beyond or not error:
        return counted
    # a few hundred resamples cannot tell how small p is, and Holm's correction of many tests would hide any difference
    return min(counted, math.erfc(abs(difference) / error / math.sqrt(2)))


def _discordant(first: Rescored, second: Rescored) -> tuple[int, int]:
    """How many cases only the first gets right, and only the second."""
    labels = first.layout.labels
    hits = [one.table.codes("target", labels) == one.table.codes("prediction", labels) for one in (first, second)]
    return int((hits[0] & ~hits[1]).sum()), int((hits[1] & ~hits[0]).sum())


def mcnemar(only_first: int, only_second: int) -> float:
    """McNemar's exact two-sided p-value.

    Args:
        only_first, only_second: cases that one of both gets right.
    """
    total, few = only_first + only_second, min(only_first, only_second)
    if total > _EXACT_UP_TO:
        distance = max(0.0, abs(only_first - only_second) - 1) / math.sqrt(total)
        return math.erfc(distance / math.sqrt(2))
    return min(1.0, 2 * sum(math.comb(total, k) for k in range(few + 1)) / (1 << total))


class _Exchange:
    """Exchanges the answers of two models at random; scores that follow from the same sums share the exchanges."""

    def __init__(self, first: Rescored, second: Rescored, units: Units, share: int) -> None:
        self.first, self.second, self.units, self.share = first, second, units, share
        self._totals: dict[str, tuple[Array, Array]] = {}
        self._complete: dict[str, bool] = {}

    def p_value(self, name: str, recipe: Recipe, difference: float) -> float:
        """Share of exchanges whose difference is at least as large."""
        if recipe.family not in self._totals:
            self._totals[recipe.family] = self._exchanged(name, recipe.family)
        ours, theirs = self._totals[recipe.family]
        spread = numpy.abs(recipe.formula(theirs) - recipe.formula(ours))
        spread = spread[numpy.isfinite(spread)]
        as_large = int((spread >= abs(difference) * (1 - _ROUNDING) - 1e-12).sum())
        if self._complete[recipe.family]:
            return as_large / max(len(spread), 1)
        return (1 + as_large) / (1 + len(spread))

    def _exchanged(self, name: str, family: str) -> tuple[Array, Array]:
        """Totals of both models after each exchange, [exchanges, width]."""
        before, after = self.first.sums(name, self.units), self.second.sums(name, self.units)
        change = after - before
        change = change[(change != 0).any(1)]  # exchanging like answers does nothing
        self._complete[family] = len(change) <= _ALL_OF
        moved = (
            numpy.array(list(itertools.product((0.0, 1.0), repeat=len(change)))) @ change
            if self._complete[family]
            else _random_sums(change, self.share)
        )
        return before.sum(0) + moved, after.sum(0) - moved


def _random_sums(change: Array, share: int) -> Array:
    """Sums of random halves of the rows, [exchanges, width]."""
    generator = numpy.random.default_rng(_SEED)
    rows, width = change.shape
    exchanges = min(MOST_EXCHANGES, max(FEWEST_EXCHANGES, _EXCHANGED // (rows * share)))
    size = max(1, 4_000_000 // rows)
    moving = numpy.flatnonzero((change != 0).any(0))
    change = change[:, moving].astype(numpy.float32)
    sums = numpy.zeros((exchanges, width))
    for start in range(0, exchanges, size):
        number = min(size, exchanges - start)
        coins = numpy.frombuffer(generator.bytes(-(-number * rows // 8)), numpy.uint8)
        heads = numpy.unpackbits(coins, count=number * rows).reshape(number, rows)
        sums[start : start + number, moving] = heads.astype(numpy.float32) @ change
    return sums


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number (Holm 1979), in the same order."""
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected
