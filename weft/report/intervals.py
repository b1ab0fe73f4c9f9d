"""Figures of values on a common scale, one per line: scores with intervals, groups, folds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from weft.report.svg import Scale, element, extent, figure, path, text, tick_label, widened
from weft.report.words import number, score

_WIDTH, _ROW, _TOP = 400.0, 24.0, 12.0
_LETTER = 6.8
_LONGEST = 22  # letters of a name


@dataclass(frozen=True, slots=True)
class Line:
    """A value on a line of its own.

    Args:
        name: what it is of.
        value: a dot; None for nothing.
        low, high: its interval, a bar.
        other: a value to compare with, a small mark.
    """

    name: str
    value: float | None
    low: float | None = None
    high: float | None = None
    other: float | None = None


def line_figure(
    title: str,
    lines: Sequence[Line],
    mark: tuple[float, str] | None = None,
    within: tuple[float, float] | None = None,
    other: str = "",
) -> str:
    """Values below each other on one scale; nothing where none is finite.

    Args:
        title: what is shown.
        lines: the values.
        mark: a vertical line with its name, such as the mean.
        within: the ends of the scale where they have a meaning: it never reaches beyond them.
        other: what the small marks are, for the legend and the description.
    """
    shown = [part for line in lines for part in (line.value, line.low, line.high, line.other) if part is not None]
    found = extent(shown)
    if found is None:
        return ""
    low, high = widened(*found, share=0.08)
    if within is not None:
        low, high = max(low, within[0]), min(high, within[1])
    names = [line.name if len(line.name) <= _LONGEST else line.name[: _LONGEST - 1] + "…" for line in lines]
    left = 16 + _LETTER * max(len(name) for name in names)
    scale = Scale(low, high, left, _WIDTH - 62)
    bottom = _TOP + _ROW * len(lines)
    parts = [_frame(scale, bottom)]
    if mark is not None and math.isfinite(mark[0]):
        parts.append(path([(scale(mark[0]), _TOP), (scale(mark[0]), bottom)], class_="mark"))
        parts.append(text(mark[1], scale(mark[0]), bottom + 32, text_anchor="middle", class_="label"))
    for index, (name, line) in enumerate(zip(names, lines)):
        parts.append(_drawn(line, name, scale, left, _TOP + _ROW * (index + 0.5)))
    below = bottom + (18 if mark is not None else 0)
    if other:
        parts.append(_diamond(left + 6, below + 33) + text(other, left + 16, below + 37, class_="label"))
    height = (below if other else bottom) + (46 if other or mark else 26)
    return figure(_WIDTH, height, title, _described(lines, mark, other), "".join(parts))


def _frame(scale: Scale, bottom: float) -> str:
    ticks = scale.ticks(4)
    parts = [path([(scale(tick), _TOP), (scale(tick), bottom)], class_="grid") for tick in ticks]
    parts += [text(tick_label(tick, ticks), scale(tick), bottom + 16, text_anchor="middle") for tick in ticks]
    return "".join(parts)


def _drawn(line: Line, name: str, scale: Scale, left: float, y: float) -> str:
    parts = [text(name, left - 10, y + 4, text_anchor="end")]
    if line.low is not None and line.high is not None and math.isfinite(line.low + line.high):
        parts.append(path([(scale(line.low), y), (scale(line.high), y)], class_="bar"))
    if line.other is not None and math.isfinite(line.other):
        parts.append(_diamond(scale(line.other), y))
    if line.value is not None and math.isfinite(line.value):
        parts.append(element("circle", cx=scale(line.value), cy=y, r=5, class_="dot s0"))
    parts.append(text(score(line.value), _WIDTH - 4, y + 4, text_anchor="end", class_="name"))
    return "".join(parts)


def _diamond(x: float, y: float) -> str:
    return element("path", d=f"M{x - 5:.1f} {y:.1f}l5 -5 5 5 -5 5z", class_="other")


def _described(lines: Sequence[Line], mark: tuple[float, str] | None, other: str) -> str:
    told = []
    for line in lines:
        between = f" ({number(line.low)} to {number(line.high)})" if line.low is not None else ""
        beside = f", {other} {number(line.other)}" if line.other is not None else ""
        told.append(f"{line.name} {number(line.value)}{between}{beside}")
    return "; ".join(told) + (f"; {mark[1]} {number(mark[0])}." if mark is not None else ".")
