"""The cases that went worst and best, and how all of them are spread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy

from weft.metrics.casetable import CaseTable
from weft.metrics.caseterms import Layout
from weft.metrics.formulas import Array
from weft.metrics.rescoring import Rescored
from weft.report.charts import Axes, scatter_chart
from weft.report.histogram import histogram
from weft.report.scoretable import mode_of
from weft.report.sections import Table
from weft.report.words import label, number, score

_WORST, _BEST = 8, 5
_MOST_POINTS = 1500  # of a scatter
_MOST_SCORES = 4  # columns of a table of cases


@dataclass(frozen=True, slots=True)
class Ranking:
    """How cases compare.

    Args:
        quality: a number per case, the higher the better; nan is left out.
        head: names of the columns that are shown after the case's name.
        row: the cells of a case.
        by: what the order is by, in words.
    """

    quality: Array
    head: list[str]
    row: Callable[[int], list[str]]
    by: str


def extreme_cases(rescored: Rescored, first_score: str | None) -> list[Table]:
    """The worst cases and the best ones.

    Args:
        rescored: the scores of the split and its rows.
        first_score: the score that cases are ordered by where they have several.
    """
    wanted = [name for name in rescored.recipes if name != first_score]
    ranking = _RANKINGS[rescored.layout.kind](rescored.table, rescored.layout, [first_score or "", *wanted])
    if ranking is None:
        return []
    names = rescored.table.texts("case")
    order = numpy.argsort(ranking.quality, kind="stable")
    order = order[: int(numpy.isfinite(ranking.quality).sum())]  # nan is sorted to the end
    if len(order) < 2:
        return []
    worst, best = order[:_WORST], order[::-1][: min(_BEST, max(len(order) - _WORST, 0))]
    tables = []
    for caption, rows in (("Worst cases", worst), ("Best cases", best)):
        if len(rows):
            cells = [[names[row], *ranking.row(row)] for row in rows.tolist()]
            tables.append(Table(f"{caption}, by {ranking.by}", ["Case", *ranking.head], cells))
    return tables


def case_figures(rescored: Rescored, first_score: str | None, word: str) -> list[str]:
    """How cases are spread: scores per case, or predicted against true numbers."""
    table, layout = rescored.table, rescored.layout
    if layout.kind == "regression" and len(layout.labels) == 1:
        return [_scatter(table, layout, word)]
    if layout.kind != "values":
        return []
    names = _value_names(table, [first_score or "", *rescored.recipes])
    return [histogram(f"{label(name)} per case, {word}", table.numbers(name), label(name)) for name in names[:2]]


def _single(table: CaseTable, layout: Layout, wanted: Sequence[str]) -> Ranking:
    true, said, sure = table.texts("target"), table.texts("prediction"), table.numbers("probability")
    hit = numpy.array([a == b for a, b in zip(true, said)])
    if len(table.named("probability_")) == len(layout.labels):
        columns = {name: table.numbers(f"probability_{name}") for name in layout.labels}
        of_true = numpy.array([columns[name][row] if name in columns else numpy.nan for row, name in enumerate(true)])
    else:  # of a wrong answer only how sure it was is known
        of_true = numpy.where(hit, sure, -sure)
    return Ranking(
        of_true,
        ["True", "Predicted", "Probability of the true class"],
        lambda row: [true[row], said[row], score(float(of_true[row])) if of_true[row] >= 0 else "–"],
        "probability of the true class",
    )


def _multilabel(table: CaseTable, layout: Layout, wanted: Sequence[str]) -> Ranking:
    true = numpy.stack([table.numbers(f"target_{name}") for name in layout.labels], 1)
    chance = numpy.stack([table.numbers(f"probability_{name}") for name in layout.labels], 1)
    of_true = numpy.where(true == 1, chance, 1 - chance)
    with numpy.errstate(divide="ignore"):
        quality = numpy.log(of_true).mean(1)

    def row(index: int) -> list[str]:
        wrong = [name for name, right in zip(layout.labels, of_true[index] > 0.5) if not right]
        return [", ".join(wrong) or "none", score(float(numpy.exp(quality[index])))]

    return Ranking(quality, ["Wrong labels", "Probability of the truth (mean)"], row, "probability of the true labels")


def _regression(table: CaseTable, layout: Layout, wanted: Sequence[str]) -> Ranking:
    endings = [f"_{name}" if name else "" for name in layout.labels]
    pairs = [(table.numbers(f"target{ending}"), table.numbers(f"prediction{ending}")) for ending in endings]
    error = numpy.mean([numpy.abs(said - true) for true, said in pairs], 0)
    head = ["True", "Predicted", "Error"] if len(pairs) == 1 else ["Mean absolute error"]

    def row(index: int) -> list[str]:
        if len(pairs) > 1:
            return [number(float(error[index]))]
        true, said = (float(part[index]) for part in pairs[0])
        return [number(true), number(said), number(said - true)]

    return Ranking(-error, head, row, "absolute error")


def _values(table: CaseTable, layout: Layout, wanted: Sequence[str]) -> Ranking | None:
    names = _value_names(table, wanted)
    if not names:
        return None
    first = table.numbers(names[0])
    shown = names[:_MOST_SCORES]
    return Ranking(
        -first if mode_of(names[0]) == "min" else first,
        [label(name) for name in shown],
        lambda row: [score(float(table.numbers(name)[row])) for name in shown],
        label(names[0]),
    )


def _value_names(table: CaseTable, wanted: Sequence[str]) -> list[str]:
    """Columns with one score per case (not per class): those that were asked for, in their order; else all."""
    known = [name for name in table.columns if mode_of(name) is not None and numpy.isfinite(table.numbers(name)).any()]
    return [name for name in dict.fromkeys(wanted) if name in known] or known


_RANKINGS = {"single": _single, "multilabel": _multilabel, "regression": _regression, "values": _values}


def _scatter(table: CaseTable, layout: Layout, word: str) -> str:
    ending = f"_{layout.labels[0]}" if layout.labels[0] else ""
    true, said = table.numbers(f"target{ending}"), table.numbers(f"prediction{ending}")
    stride = -(-len(true) // _MOST_POINTS)
    points = list(zip(true[::stride].tolist(), said[::stride].tolist()))
    note = f" (every {stride}th case)" if stride > 1 else ""
    return scatter_chart(f"Predicted against true, {word}{note}", points, Axes("true", "predicted", square=True))
