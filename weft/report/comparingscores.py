"""Final scores of several runs on the same cases: differences from the first, with intervals and tests."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import numpy

from weft.metrics.casetable import CaseTable
from weft.metrics.caseterms import Resamples
from weft.metrics.formulas import Array
from weft.metrics.paired import PairedTest, holm, paired_tests
from weft.metrics.resampling import Interval, affordable, draw, interval_of, make_units
from weft.metrics.rescoring import Rescored, rescore
from weft.report.judging import layout_of
from weft.report.reading import RunFiles, read_case_table
from weft.report.scoretable import mode_of
from weft.report.sections import final_scores
from weft.report.words import plural

_LOSS = "loss"  # shown, not tested: losses of two configurations may be different functions


@dataclass(slots=True)
class ComparedScore:
    """A score of all runs.

    Args:
        name: of the score.
        mode: "max" or "min", which is better; None where the name does not tell.
        values: of each run; None where undefined or missing.
        intervals: 95 % bootstrap intervals of the values; None where there are none.
        tests: of the difference from the first run; None for the first, and where there is none.
        corrected: the tests' p-values after Holm's correction over all tests here.
    """

    name: str
    mode: str | None
    values: list[float | None]
    intervals: list[Interval | None]
    tests: list[PairedTest | None]
    corrected: list[float | None]

    def verdict(self, run: int) -> str:
        """`better`, `worse`, or nothing where no difference is certain at the corrected level of 5 %."""
        test, corrected = self.tests[run], self.corrected[run]
        if test is None or corrected is None or corrected >= 0.05 or self.mode is None:
            return ""
        return "better" if (test.difference > 0) == (self.mode == "max") else "worse"


@dataclass(slots=True)
class ScoreComparison:
    """The scores of one split.

    Args:
        split: its name.
        cases: how many cases each run has in common with the first; None where it has no rows of cases.
        grouped: whether whole groups were drawn and exchanged.
        scores: by score.
        notes: why something is not tested.
    """

    split: str
    cases: list[int | None]
    grouped: bool
    scores: list[ComparedScore] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def tests(self) -> int:
        """How many tests were made."""
        return sum(test is not None for score in self.scores for test in score.tests)


def compare_scores(files: Sequence[RunFiles], split: str) -> ScoreComparison:
    """Compare the final scores of a split; the first run is the one to compare with."""
    rescored = [_rescored(one, split) for one in files]
    scores = [dict(final_scores(one)[split]) for one in files]
    _fill(rescored, scores)
    names = list(dict.fromkeys(name for values in scores for name in values))
    pairing = _Pairing(files[0], rescored[0], split, len(files))
    intervals = {name: [_interval(rescored[0], name, pairing)] for name in names}  # what is drawn here, all tests share
    with ThreadPoolExecutor(min(len(files), os.cpu_count() or 1)) as threads:  # NumPy computes beside the interpreter
        paired = [_Paired(), *threads.map(pairing.with_run, range(2, len(files) + 1), rescored[1:])]
    notes = [one.note for one in paired if one.note]
    result = ScoreComparison(split, [one.cases for one in paired], pairing.groups is not None, notes=notes)
    result.cases[0] = len(rescored[0]) if rescored[0] is not None else None
    for name in sorted(names, key=lambda name: name == _LOSS):
        values = [_number(one.get(name)) for one in scores]
        intervals[name] += [_interval(one, name, pairing) for one in rescored[1:]]
        tests = [one.tests.get(name) if name != _LOSS else None for one in paired]
        result.scores.append(ComparedScore(name, mode_of(name), values, intervals[name], tests, [None] * len(files)))
    _correct(result.scores)
    return result


def _rescored(files: RunFiles, split: str) -> Rescored | None:
    read_case_table(files, split)
    table = files.cases.get(split)
    if table is None:
        return None
    return rescore(table, final_scores(files)[split], layout_of(files, split), files.bounds.get(split))


def _fill(rescored: Sequence[Rescored | None], scores: Sequence[dict[str, Any]]) -> None:
    """Compute scores that only some runs asked for, where the rows of the others tell them too."""
    known = [one for one in rescored if one is not None]
    for one, values in zip(rescored, scores):
        for other in known:
            if one is None or other.layout != one.layout:
                continue
            for name, recipe in other.recipes.items():
                if name not in values and name != _LOSS and not recipe.family.startswith("values "):
                    one.recipes[name] = recipe
                    values[name] = one.value(name)


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _interval(rescored: Rescored | None, name: str, pairing: _Pairing) -> Interval | None:
    """The interval of a run's score over its own cases."""
    if rescored is None or name not in rescored.recipes:
        return None
    count = affordable(rescored, name, pairing.runs)
    found = interval_of(rescored.resampled(name, pairing.resamples_of(rescored), count)) if count else None
    return found if isinstance(found, Interval) else None


def _correct(scores: Sequence[ComparedScore]) -> None:
    """Holm's correction over all tests of all runs and scores."""
    made = [(score, run, test.p) for score in scores for run, test in enumerate(score.tests) if test is not None]
    for (score, run, _), corrected in zip(made, holm([p for _, _, p in made])):
        score.corrected[run] = corrected


@dataclass(slots=True)
class _Paired:
    """A run on the cases that it shares with the first: how many, the tests, and why there are none or on fewer."""

    cases: int | None = None
    note: str = ""
    tests: Mapping[str, PairedTest] = field(default_factory=dict)


class _Pairing:
    """Pairs runs with the first one; the same cases are drawn in the same resamples."""

    def __init__(self, files: RunFiles, first: Rescored | None, split: str, runs: int) -> None:
        self.first, self.runs = first, runs
        self.groups = files.groups_of(split) if first is not None else None
        self._rows: dict[tuple[str, int], int] | None = None
        self._shared: dict[bytes, tuple[Rescored, Resamples]] = {}
        self._own: dict[int, Resamples] = {}
        self._one_draws = Lock()

    def resamples_of(self, rescored: Rescored) -> Resamples:
        """Draws of a run's own cases; those of the first run's where they are the same."""
        if self.first is not None and self._like_first(rescored.table):
            return self._common(numpy.arange(len(self.first)))[1]
        count = len(rescored)
        if count not in self._own:
            self._own[count] = draw(make_units(count))
        return self._own[count]

    def with_run(self, number: int, other: Rescored | None) -> _Paired:
        """Tests of a run against the first."""
        if self.first is None or other is None:
            return _Paired(None, f"Run {number} is not tested: there are no rows of cases.")
        rows, others = self._matched(other.table)
        if len(rows) < 2:
            return _Paired(len(rows), f"Run {number} is not tested: it has no cases in common with run 1.")
        if self.first.layout != other.layout:
            return _Paired(len(rows), f"Run {number} is not tested: its classes or outputs are not those of run 1.")
        first, resamples = self._common(rows)
        table = other.table.take(others)
        second = other if table is other.table else other.on(table)
        unlike = _unlike_targets(first, second)
        if unlike:
            why = f"{plural(unlike, 'case')} have another truth than in run 1"
            return _Paired(len(rows), f"Run {number} is not tested: {why}.")
        note = ""
        if len(rows) < len(self.first) or len(rows) < len(other):
            note = f"Run {number} is tested on the {plural(len(rows), 'case')} that it shares with run 1."
        return _Paired(len(rows), note, paired_tests(first, second, resamples, self.runs))

    def _matched(self, table: CaseTable) -> tuple[Array, Array]:
        """Rows of the first and of the other with the same cases, in the first's order."""
        assert self.first is not None
        if self._like_first(table):
            return (numpy.arange(len(table)),) * 2
        if self._rows is None:
            self._rows = {key: row for row, key in enumerate(self.first.table.keys())}
        pairs = sorted((self._rows[key], row) for row, key in enumerate(table.keys()) if key in self._rows)
        rows = numpy.array(pairs, numpy.int64).reshape(-1, 2)
        return rows[:, 0], rows[:, 1]

    def _like_first(self, table: CaseTable) -> bool:
        """Whether a table has the first run's cases, in the same order."""
        assert self.first is not None
        return tuple(table.texts("case")) == tuple(self.first.table.texts("case"))

    def _common(self, rows: Array) -> tuple[Rescored, Resamples]:
        """The first run on these rows, and draws of them."""
        assert self.first is not None
        key = rows.tobytes()
        with self._one_draws:
            if key not in self._shared:
                table = self.first.table.take(rows)
                first = self.first if table is self.first.table else self.first.on(table)
                groups = [self.groups[row] for row in rows.tolist()] if self.groups is not None else None
                self._shared[key] = first, draw(make_units(len(rows), groups))
        return self._shared[key]


def _unlike_targets(first: Rescored, second: Rescored) -> int:
    """Cases whose truth is not the same in both."""
    names = [name for name in first.table.columns if name == "target" or name.startswith(("target_", "voxels_"))]
    unlike = numpy.zeros(len(first), bool)
    for name in names:
        if name in second.table:
            mine, theirs = first.table.texts(name), second.table.texts(name)
            if mine != theirs:
                unlike |= numpy.array([a != b for a, b in zip(mine, theirs)])
    return int(unlike.sum())
