"""Figures that are no curves: the confusion matrix, and the scores of folds beside each other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from weft.report.svg import element, figure, text

MOST_CLASSES = 60  # more cannot be read as a matrix; the most frequent confusions are listed instead
_NUMBERS_UP_TO = 16  # classes; smaller cells than that hold no number
_LONGEST_LABEL = 14  # letters
_THOUSANDS = {0: "", 3: "k", 6: "M", 9: "G"}


@dataclass(frozen=True, slots=True)
class Confusion:
    """A frequent mistake: `count` items of class `truth` were taken for `prediction`; `share` of all of that class."""

    truth: str
    prediction: str
    count: int
    share: float


def read_confusion(details: Mapping[str, Any]) -> tuple[list[str], list[list[int]]] | None:
    """Labels and counts of the scores' details; None where they are not there or do not fit together."""
    matrix = details.get("confusion_matrix")
    if not isinstance(matrix, Mapping):
        return None
    labels, counts = matrix.get("labels"), matrix.get("counts")
    if not (isinstance(labels, list) and isinstance(counts, list)) or len(labels) != len(counts):
        return None
    if not all(isinstance(row, list) and len(row) == len(labels) for row in counts):
        return None
    return [str(name) for name in labels], [[int(count) for count in row] for row in counts]


def confusions(labels: Sequence[str], counts: Sequence[Sequence[int]], most: int = 5) -> list[Confusion]:
    """The most frequent mistakes, in order."""
    found = [
        Confusion(labels[row], labels[column], int(count), count / sum(cells))
        for row, cells in enumerate(counts)
        for column, count in enumerate(cells)
        if row != column and count
    ]
    return sorted(found, key=lambda one: (-one.count, -one.share))[:most]


def confusion_matrix(title: str, labels: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    """A confusion matrix: rows are the truth, columns the prediction; colour is the share of the row.

    Args:
        title: what is shown.
        labels: class names.
        counts: items, [truth][prediction].
    """
    classes = len(labels)
    if not 0 < classes <= MOST_CLASSES:
        return ""
    names = [label if len(label) <= _LONGEST_LABEL else label[: _LONGEST_LABEL - 1] + "…" for label in labels]
    left = 30 + 6.8 * max(len(name) for name in names)
    cell = max(6.0, min(64.0, (400 - left) / classes))
    slanted = any(6.8 * len(name) > cell - 4 for name in names)
    top = 34 + (5.2 * max(len(name) for name in names) if slanted else 8)
    side = cell * classes
    parts = [_cells(labels, counts, left, top, cell)]
    for index, name in enumerate(names):
        middle = (index + 0.5) * cell
        if classes <= _NUMBERS_UP_TO or index % math.ceil(classes / 20) == 0:
            parts.append(text(name, left - 8, top + middle + 4, text_anchor="end"))
            x, y = left + middle, top - 8
            turn = f"rotate(-50 {x:.1f} {y:.1f})" if slanted else None
            anchor = "start" if slanted else "middle"
            parts.append(text(name, x, y, text_anchor=anchor, transform=turn))
    parts.append(text("predicted", left + side / 2, 13, text_anchor="middle", class_="label"))
    middle = top + side / 2
    turn = f"rotate(-90 11 {middle:.1f})"
    parts.append(text("true", 11, middle, text_anchor="middle", class_="label", transform=turn))
    # a slanted name of the last column reaches to the right of the matrix
    overhang = 4.4 * len(names[-1]) if slanted else 2
    return figure(left + side + overhang + 2, top + side + 4, title, _describe(labels, counts), "".join(parts))


def _cells(labels: Sequence[str], counts: Sequence[Sequence[int]], left: float, top: float, cell: float) -> str:
    side = cell * len(labels)
    parts = [element("rect", x=left, y=top, width=side, height=side, class_="matrix")]
    numbers = len(labels) <= _NUMBERS_UP_TO
    gap = 1.0 if numbers else 0.5
    for row, values in enumerate(counts):
        total = sum(values)
        for column, count in enumerate(values):
            share = count / total if total else 0.0
            x, y = left + column * cell, top + row * cell
            tip = f"{count:,} of {total:,} {labels[row]} predicted as {labels[column]} ({share:.1%})"
            if count:
                kind = "right" if row == column else "wrong"
                box = element(
                    "rect", element("title", escape(tip)), x=x + gap, y=y + gap, width=cell - 2 * gap,
                    height=cell - 2 * gap, rx=2 if numbers else None, class_=kind, style=f"--share:{share:.3f}",
                )  # fmt: skip
                parts.append(box)
            if count and numbers:
                shade = "deep" if share > 0.55 else "cell"
                parts.append(
                    text(_short(count, cell), x + cell / 2, y + cell / 2 + 4, text_anchor="middle", class_=shade)
                )
    return "".join(parts)


def _short(count: int, room: float) -> str:
    """A count in as many letters as a cell has room for: 4,286,537 or 4.3M."""
    full = f"{count:,}"
    if 7.2 * len(full) <= room:
        return full
    power = next((power for power in (9, 6, 3) if count >= 10**power), 0)
    return (
        f"{count / 10**power:.2g}{_THOUSANDS[power]}"
        if count < 100 * 10**power
        else f"{count // 10**power}{_THOUSANDS[power]}"
    )


def _describe(labels: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    right = sum(row[index] for index, row in enumerate(counts))
    total = sum(sum(row) for row in counts)
    worst = confusions(labels, counts, 3)
    mistakes = "; ".join(f"{one.truth} taken for {one.prediction} {one.count} times" for one in worst)
    return f"{right} of {total} items are on the diagonal. " + (f"Most frequent mistakes: {mistakes}." if worst else "")
