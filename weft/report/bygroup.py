"""Scores of groups of cases: of every patient, site, sex, or any other column."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy

from weft.errors import UsageError
from weft.metrics.caseterms import Units
from weft.metrics.formulas import Array
from weft.metrics.resampling import Interval, draw, interval_of, make_units
from weft.metrics.rescoring import Rescored
from weft.report.columns import column_of
from weft.report.intervals import Line, line_figure
from weft.report.judging import JudgedSplit
from weft.report.reading import RunFiles
from weft.report.scoretable import mode_of
from weft.report.sections import Table, first_score
from weft.report.summary import main_split
from weft.report.words import label, score

_MOST_GROUPS = 20
_MOST_SCORES = 6
_FEWEST_UNITS = 10  # cases, or groups in them, for an interval
_RESAMPLES = 400
_LARGEST = 4_000_000  # resampled cases of one group
_PARTS = 4  # that a column of many numbers is cut into
_MANY = 12  # different numbers are too many to be groups


@dataclass(frozen=True, slots=True)
class GroupScores:
    """Scores by one column.

    Args:
        column: what cases are grouped by.
        table: a row per group.
        figure: the first score of each group, as SVG.
    """

    column: str
    table: Table
    figure: str


def group_scores(files: RunFiles, judged: Mapping[str, JudgedSplit], by: Sequence[str]) -> list[GroupScores]:
    """Scores of the split that tells most by every column asked for, and by the data's group column.

    Args:
        files: the run.
        judged: its splits.
        by: further columns.

    Raises:
        UsageError: there is no such column, or no rows of cases.
    """
    split = main_split({name: one for name, one in judged.items() if one.rescored is not None})
    if split is None:
        if by:
            raise UsageError(
                f"{files.directory.path} has no rows of cases, so there are no scores by '{by[0]}'",
                "score it again with a task that names its cases: weft evaluate RUN --out DIR",
            )
        return []
    one = judged[split]
    found = []
    if one.groups is not None and files.group_name not in by and len(set(one.groups)) > 1:
        found.append(_by(files, split, one, files.group_name, one.groups))
    found += [_by(files, split, one, column, column_of(files, split, column)) for column in by]
    return found


def _by(files: RunFiles, split: str, one: JudgedSplit, column: str, cells: Sequence[str]) -> GroupScores:
    assert one.rescored is not None
    names = _scores_of(one, files)
    groups = in_parts(cells)
    labels = list(dict.fromkeys(groups))
    of = numpy.array([labels.index(group) for group in groups]) if len(labels) <= 500 else _numbered(groups, labels)
    units = Units(of, len(labels))
    values = {name: one.rescored.by_unit(name, units) for name in names}
    counts = numpy.bincount(of, minlength=len(labels))
    order = _order(values[names[0]], mode_of(names[0]), labels, ordered=groups is not cells)
    shown = order[:_MOST_GROUPS]
    rows = [
        [labels[index], f"{counts[index]:,}", *(score(_finite(float(values[name][index]))) for name in names)]
        for index in shown
    ]
    left_out = len(labels) - len(shown)
    note = f"The {len(shown)} worst of {len(labels):,}." if left_out else ""
    table = Table(f"{split.capitalize()} items by {column}", [label(column), "Cases", *map(label, names)], rows, note)
    return GroupScores(column, table, _figure(one, column, names[0], [(labels[i], of == i) for i in shown], split))


def _numbered(groups: Sequence[str], labels: Sequence[str]) -> Array:
    number_of = {name: index for index, name in enumerate(labels)}
    return numpy.array([number_of[group] for group in groups])


def _scores_of(one: JudgedSplit, files: RunFiles) -> list[str]:
    """Scores to show, the monitored one first, the loss last."""
    assert one.rescored is not None
    if not one.rescored.recipes:
        raise UsageError(
            f"none of the scores of {files.directory.path} follows from its rows of cases",
            "ask for accuracy, dice or mse",
        )
    first = first_score(files)
    names = sorted(one.rescored.recipes, key=lambda name: (name == "loss", name != first))
    return names[:_MOST_SCORES]


def _order(values: Array, mode: str | None, labels: Sequence[str], *, ordered: bool) -> list[int]:
    """The worst group first; parts of a range stay in their order."""
    if ordered:
        return sorted(range(len(labels)), key=lambda index: _first_number(labels[index]))
    sign = -1.0 if mode == "min" else 1.0
    return sorted(range(len(labels)), key=lambda i: (math.isnan(values[i]), sign * values[i], labels[i]))


def _first_number(text: str) -> float:
    return float(text.split(" to ")[0]) if text else math.inf


def in_parts(cells: Sequence[str]) -> Sequence[str]:
    """Groups of a column: its values, or quarters of its range where it has many different numbers."""
    try:
        numbers = numpy.array([float(cell) if cell else math.nan for cell in cells])
    except ValueError:
        return cells
    finite = numbers[numpy.isfinite(numbers)]
    if len(set(finite.tolist())) <= _MANY:
        return cells
    edges = numpy.unique(numpy.quantile(finite, numpy.linspace(0, 1, _PARTS + 1)))
    place = numpy.clip(numpy.searchsorted(edges, numbers, side="right") - 1, 0, len(edges) - 2)
    names = [f"{edges[i]:.6g} to {edges[i + 1]:.6g}" for i in range(len(edges) - 1)]
    return [names[index] if math.isfinite(value) else "" for index, value in zip(place.tolist(), numbers.tolist())]


def _figure(one: JudgedSplit, column: str, name: str, groups: Sequence[tuple[str, Any]], split: str) -> str:
    assert one.rescored is not None
    lines = []
    for text, mask in groups:
        rows = numpy.flatnonzero(mask)
        part = one.rescored.on(one.rescored.table.take(rows))
        inner = [one.groups[row] for row in rows.tolist()] if one.groups is not None else None
        interval = _interval(part, name, make_units(len(part), inner))
        low, high = (interval.low, interval.high) if isinstance(interval, Interval) else (None, None)
        lines.append(Line(text or "none", _finite(part.value(name)), low, high))
    overall = one.scores.get(name)
    mark = (float(overall), f"all {split} items") if isinstance(overall, int | float) else None
    return line_figure(f"{label(name)} by {column}, {split}", lines, mark=mark)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _interval(part: Rescored, name: str, units: Units) -> Interval | str | None:
    """The interval of a group's score; patients of a site are drawn whole, as in the scores of all."""
    if units.count < _FEWEST_UNITS or len(part) > _LARGEST // _RESAMPLES:
        return None
    return interval_of(part.resampled(name, draw(units, _RESAMPLES)))
