"""A histogram, as a figure."""

from __future__ import annotations

from html import escape

import numpy

from weft.metrics.formulas import Array
from weft.report.svg import Scale, element, figure, path, text, tick_label
from weft.report.words import number, plural

_WIDTH, _HEIGHT = 400.0, 220.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 44.0, 14.0, 26.0, 40.0
_MOST_BINS = 24


def histogram(title: str, values: Array, name: str) -> str:
    """How values are spread, with their median marked; nothing where none is finite.

    Args:
        title: what is shown.
        values: the values; what is not finite is left out.
        name: of the values, below the axis.
    """
    finite = values[numpy.isfinite(values)]
    if len(finite) < 2:
        return ""
    bins = int(min(_MOST_BINS, max(5, round(2 * len(finite) ** 0.5))))
    counts, edges = numpy.histogram(finite, bins)
    x = Scale(float(edges[0]), float(edges[-1]), _LEFT, _WIDTH - _RIGHT)
    y = Scale(0.0, float(counts.max()) * 1.06, _HEIGHT - _BOTTOM, _TOP)
    parts = [_axes(x, y, name)]
    for count, left, right in zip(counts.tolist(), edges[:-1].tolist(), edges[1:].tolist()):
        if count:
            tip = element("title", escape(f"{plural(count, 'case')} from {number(left)} to {number(right)}"))
            size = {"width": max(1.0, x(right) - x(left) - 1.5), "height": y(0) - y(count)}
            parts.append(element("rect", tip, x=x(left) + 0.75, y=y(count), rx=1.5, **size, class_="column"))
    median = float(numpy.median(finite))
    parts.append(path([(x(median), _TOP - 6), (x(median), y(0))], class_="mark"))
    anchor = "end" if x(median) > (x.start + x.end) / 2 else "start"
    place = x(median) + (-5 if anchor == "end" else 5)
    parts.append(text(f"median {number(median)}", place, _TOP - 8, text_anchor=anchor, class_="label"))
    low, high = numpy.quantile(finite, [0.25, 0.75])
    told = (
        f"{plural(len(finite), 'case')}: from {number(float(finite.min()))} to {number(float(finite.max()))}, median "
        f"{number(median)}, half of them between {number(float(low))} and {number(float(high))}."
    )
    return figure(_WIDTH, _HEIGHT, title, told, "".join(parts))


def _axes(x: Scale, y: Scale, name: str) -> str:
    parts = []
    y_ticks = [tick for tick in y.ticks(4) if tick == round(tick)]
    for tick in y_ticks:
        parts.append(path([(x.start, y(tick)), (x.end, y(tick))], class_="grid"))
        parts.append(text(tick_label(tick, y_ticks), x.start - 7, y(tick) + 4, text_anchor="end"))
    x_ticks = x.ticks(5)
    parts += [text(tick_label(tick, x_ticks), x(tick), y.start + 16, text_anchor="middle") for tick in x_ticks]
    parts.append(path([(x.start, y.start), (x.end, y.start)], class_="axis"))
    parts.append(text(name, (x.start + x.end) / 2, _HEIGHT - 6, text_anchor="middle", class_="label"))
    parts.append(text("cases", 12, (_TOP + y.start) / 2, text_anchor="middle", class_="label",
                      transform=f"rotate(-90 12 {(_TOP + y.start) / 2:.1f})"))  # fmt: skip
    return "".join(parts)
