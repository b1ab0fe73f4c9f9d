"""Curves in a frame with axes, a legend and a description in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape

from weft.report.svg import (
    Point,
    Scale,
    element,
    extent,
    figure,
    path,
    text,
    tick_label,
    widened,
)
from weft.report.words import number

_WIDTH, _HEIGHT = 400.0, 250.0
_LEGEND_LEFT, _RIGHT, _TOP, _BOTTOM = 44.0, 14.0, 34.0, 40.0
_MOST_POINTS = 400  # of a curve: more than that cannot be seen
_MOST_MARKS = 40  # up to so many points each is marked
_LETTER = 7.4  # width of a letter in the legend
STYLES = 6  # colours and dashes in the style sheet


@dataclass(frozen=True, slots=True)
class Series:
    """A curve.

    Args:
        name: for the legend.
        points: (x, y); what is not finite interrupts the curve.
        style: which colour and dash, from 0; -1 for one of many in the background.
    """

    name: str
    points: Sequence[Point]
    style: int = 0


@dataclass(frozen=True, slots=True)
class Axes:
    """How a chart's axes are made; ranges come from the data where they are not given."""

    x_label: str
    y_label: str = ""
    x_range: tuple[float, float] | None = None
    y_range: tuple[float, float] | None = None
    logarithmic: bool = False
    marked_x: tuple[float, str] | None = None  # a vertical line with its name
    diagonal: bool = False
    square: bool = False
    legend: bool = True
    whole_x: bool = False


def line_chart(title: str, series: Sequence[Series], axes: Axes) -> str:
    """Curves in one frame, with a legend.

    Args:
        title: what is shown.
        series: the curves; those without a finite point are left out.
        axes: labels and ranges.
    """
    drawn = [Series(one.name, thinned(one.points), one.style) for one in series if extent(y for _, y in one.points)]
    if not drawn:
        return ""
    width, height = (340.0, 330.0) if axes.square else (_WIDTH, _HEIGHT)
    rows = _legend_rows(drawn, width) if axes.legend else []
    top = _TOP + 18.0 * max(0, len(rows) - 1) if rows else 14.0
    top += 14.0 if axes.marked_x is not None else 0.0  # a line of its own for the mark's name
    y = _y_scale(drawn, axes, top, height)
    x = _x_scale(drawn, axes, _left_of(y, axes), width)
    parts = [_frame(x, y, axes, top, height)]
    if axes.diagonal:
        parts.append(path([(x(x.low), y(y.low)), (x(x.high), y(y.high))], class_="guide"))
    if axes.marked_x is not None and x.low <= axes.marked_x[0] <= x.high:
        parts.append(_marked(axes.marked_x, x, top, height))
    parts += [_curve(one, x, y) for one in drawn]
    parts.append(_legend(rows))
    return figure(width, height, title, describe(drawn, axes), "".join(parts))


def describe(series: Sequence[Series], axes: Axes) -> str:
    """What a chart shows, in words, for those who do not see it."""
    sentences = []
    for one in [one for one in series if one.style >= 0][:8]:
        finite = [point for point in one.points if math.isfinite(point[1])]
        (first_x, first), (last_x, last) = finite[0], finite[-1]
        low, high = min(y for _, y in finite), max(y for _, y in finite)
        sentences.append(
            f"{one.name}: {number(first)} at {axes.x_label} {number(first_x)}, {number(last)} at {number(last_x)}, "
            f"lowest {number(low)}, highest {number(high)}."
        )
    return " ".join(sentences)


def thinned(points: Sequence[Point]) -> list[Point]:
    """At most `_MOST_POINTS` points that look like all: of each stretch its lowest and its highest."""
    if len(points) <= _MOST_POINTS:
        return list(points)
    size = math.ceil(len(points) / (_MOST_POINTS // 2))
    kept: list[Point] = []
    for start in range(0, len(points), size):
        stretch = points[start : start + size]
        finite = [point for point in stretch if math.isfinite(point[1])]
        if not finite:
            kept.append(stretch[0])
            continue
        ends = {min(finite, key=lambda point: point[1]), max(finite, key=lambda point: point[1])}
        kept += sorted(ends)
    return [*kept, points[-1]] if kept[-1] != points[-1] else kept


def _left_of(y: Scale, axes: Axes) -> float:
    """The room that the labels at the left take."""
    ticks = y.ticks(5)
    longest = max((len(tick_label(tick, ticks)) for tick in ticks), default=0)
    return 14 + 6.8 * longest + (16 if axes.y_label else 0)


def _x_scale(series: Sequence[Series], axes: Axes, left: float, width: float) -> Scale:
    low, high = axes.x_range or extent(x for one in series for x, _ in one.points) or (0.0, 1.0)
    if low == high:
        low, high = low - 1, high + 1
    return Scale(low, high, left, width - _RIGHT)


def _y_scale(series: Sequence[Series], axes: Axes, top: float, height: float) -> Scale:
    found = extent(y for one in series for _, y in one.points) or (0.0, 1.0)
    if axes.logarithmic and found[0] > 0:
        low, high = (10**edge for edge in widened(math.log10(found[0]), math.log10(found[1])))
        return Scale(low, high, height - _BOTTOM, top, logarithmic=True)
    low, high = axes.y_range or widened(*found)
    if axes.y_range is None and found[0] >= 0 > low:
        low = 0.0  # no air below zero where nothing is negative
    return Scale(low, high, height - _BOTTOM, top)


def _frame(x: Scale, y: Scale, axes: Axes, top: float, height: float) -> str:
    bottom = height - _BOTTOM
    parts = []
    y_ticks = y.ticks(5)
    for tick in y_ticks:
        parts.append(path([(x.start, y(tick)), (x.end, y(tick))], class_="grid"))
        parts.append(text(tick_label(tick, y_ticks), x.start - 7, y(tick) + 4, text_anchor="end"))
    x_ticks = [tick for tick in x.ticks(6) if not axes.whole_x or tick == round(tick)]
    for tick in x_ticks:
        parts.append(text(tick_label(tick, x_ticks), x(tick), bottom + 16, text_anchor="middle"))
    parts.append(path([(x.start, bottom), (x.end, bottom)], class_="axis"))
    parts.append(text(axes.x_label, (x.start + x.end) / 2, height - 6, text_anchor="middle", class_="label"))
    if axes.y_label:
        middle = (top + bottom) / 2
        turned = f"rotate(-90 12 {middle:.1f})"
        parts.append(text(axes.y_label, 12, middle, text_anchor="middle", class_="label", transform=turned))
    return "".join(parts)


def _marked(mark: tuple[float, str], x: Scale, top: float, height: float) -> str:
    at, name = mark
    place = x(at)
    left = place > (x.start + x.end) / 2
    line = path([(place, top - 12), (place, height - _BOTTOM)], class_="mark")
    anchor = "end" if left else "start"
    return line + text(name, place + (-5 if left else 5), top - 4, text_anchor=anchor, class_="label")


def _curve(one: Series, x: Scale, y: Scale) -> str:
    places = [(x(a), y(b)) for a, b in one.points]
    style = _style(one)
    parts = [path(places, class_=f"line {style}")]
    if len(places) <= _MOST_MARKS and one.style >= 0:
        for (a, b), (px, py) in zip(one.points, places):
            if math.isfinite(px) and math.isfinite(py):
                tip = element("title", text_of(one.name, a, b))
                parts.append(element("circle", tip, cx=px, cy=py, r=2.4, class_=f"dot {style}"))
    return "".join(parts)


def _style(one: Series) -> str:
    return "rest" if one.style < 0 else f"s{one.style % STYLES}"


def text_of(name: str, a: float, b: float) -> str:
    """The tip of a point, escaped."""
    return escape(f"{name}: {number(b)} at {number(a)}")


def _legend_rows(series: Sequence[Series], width: float) -> list[list[tuple[float, Series]]]:
    """The names laid out in rows that fit into the width: (x, series)."""
    rows: list[list[tuple[float, Series]]] = [[]]
    x = _LEGEND_LEFT
    for one in (one for one in series if one.name):
        room = 30 + _LETTER * len(_short(one.name, 34))
        if rows[-1] and x + room > width:
            rows.append([])
            x = _LEGEND_LEFT
        rows[-1].append((x, one))
        x += room + 8
    return rows


def _legend(rows: Sequence[Sequence[tuple[float, Series]]]) -> str:
    parts = []
    for row, entries in enumerate(rows):
        y = 14.0 + 18.0 * row
        for x, one in entries:
            parts.append(path([(x, y), (x + 20, y)], class_=f"line {_style(one)}"))
            parts.append(text(_short(one.name, 34), x + 26, y + 4, class_="name"))
    return "".join(parts)


def _short(name: str, length: int) -> str:
    return name if len(name) <= length else name[: length - 1] + "…"


def scatter_chart(title: str, points: Sequence[Point], axes: Axes) -> str:
    """Points in a frame whose axes have the same range, with the diagonal; nothing without a finite point.

    Args:
        title: what is shown.
        points: (x, y).
        axes: labels; ranges come from the points.
    """
    finite = [(a, b) for a, b in points if math.isfinite(a) and math.isfinite(b)]
    if not finite:
        return ""
    low, high = widened(min(min(pair) for pair in finite), max(max(pair) for pair in finite), 0.04)
    both = replace(axes, x_range=(low, high), y_range=(low, high))
    width, height, top = 340.0, 330.0, 14.0
    y = Scale(low, high, height - _BOTTOM, top)
    x = Scale(low, high, _left_of(y, both), width - _RIGHT)
    dots = "".join(element("circle", cx=x(a), cy=y(b), r=2.6) for a, b in finite)
    parts = [_frame(x, y, both, top, height), path([(x(low), y(low)), (x(high), y(high))], class_="guide")]
    parts.append(element("g", dots, class_="cloud"))
    told = f"{len(finite)} points; {axes.x_label} from {number(min(a for a, _ in finite))} to "
    told += f"{number(max(a for a, _ in finite))}, {axes.y_label} from {number(min(b for _, b in finite))} to "
    return figure(width, height, title, told + f"{number(max(b for _, b in finite))}.", "".join(parts))
