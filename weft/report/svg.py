"""A little SVG: elements, scales with round ticks, and a frame to plot in. Colours come from the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

Point = tuple[float, float]
_LARGEST = 1.25  # times its own size that a figure grows to: letters stay letters


def element(name: str, content: str = "", /, **attributes: object) -> str:
    """An SVG element; `content` is markup, attributes are escaped. `class_` becomes class, `_` becomes `-`."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_attribute(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return f"<{name}{written}>{content}</{name}>" if content else f"<{name}{written}/>"


def text(content: str, x: float, y: float, **attributes: object) -> str:
    """A piece of text at a point."""
    return element("text", escape(content), x=x, y=y, **attributes)


def figure(width: float, height: float, title: str, description: str, content: str) -> str:
    """A whole figure with the title and description that screen readers read.

    Args:
        width, height: size of the drawing; on the page it takes the room it gets.
        title: what is shown.
        description: what there is to see in it.
        content: the drawing's markup.
    """
    head = element("title", escape(title)) + element("desc", escape(description))
    label = f"{title}. {description}"
    largest = f"max-width:{width * _LARGEST:.0f}px"
    box = f"0 0 {width:g} {height:g}"
    return element("svg", head + content, viewBox=box, role="img", aria_label=label, style=largest)


def path(points: Iterable[Point], **attributes: object) -> str:
    """A line through the points; one that is not finite interrupts it."""
    parts, pen_down = [], False
    for x, y in points:
        if not (math.isfinite(x) and math.isfinite(y)):
            pen_down = False
            continue
        parts.append(f"{'L' if pen_down else 'M'}{_number(x)} {_number(y)}")
        pen_down = True
    return element("path", d="".join(parts), **attributes) if parts else ""


def _attribute(value: object) -> str:
    return _number(value) if isinstance(value, float) else str(value)


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")  # a hundredth of a pixel


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps values of an axis to positions.

    Args:
        low, high: the values at the ends.
        start, end: their positions.
        logarithmic: whether equal factors are equal distances; low and high must then be positive.
    """

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        """The position of a value; NaN where it has none."""
        low, high = self.low, self.high
        if self.logarithmic:
            if not value > 0:
                return math.nan
            low, high, value = math.log10(low), math.log10(high), math.log10(value)
        share = (value - low) / (high - low) if high != low else 0.5
        return self.start + share * (self.end - self.start)

    def ticks(self, count: int = 5) -> list[float]:
        """About `count` round values along the axis."""
        return log_ticks(self.low, self.high, count) if self.logarithmic else round_ticks(self.low, self.high, count)


def round_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` multiples of 1, 2 or 5 times a power of ten between low and high."""
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return [low]
    raw = (high - low) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(index * step, 12) if step > 1e-9 else index * step for index in range(first, last + 1)]


def log_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Powers of ten between low and high, with 2 and 5 times them where there are few."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    stride = max(1, math.ceil((last - first) / count))
    factors = (1, 2, 5) if last - first <= 2 else (1,)
    found = [factor * 10.0**power for power in range(first, last + 1, stride) for factor in factors]
    return [tick for tick in found if low * 0.999 <= tick <= high * 1.001]


def extent(values: Iterable[float]) -> tuple[float, float] | None:
    """The least and the greatest finite value; None without one."""
    finite = [value for value in values if math.isfinite(value)]
    return (min(finite), max(finite)) if finite else None


def widened(low: float, high: float, share: float = 0.06) -> tuple[float, float]:
    """The range with some air at both ends; what differs by rounding only gets a range around it."""
    if high - low > 1e-6 * max(abs(low), abs(high)):
        air = (high - low) * share
        return low - air, high + air
    air = abs(low) * 0.1 or 1.0
    return low - air, high + air


def tick_label(value: float, ticks: Sequence[float]) -> str:
    """A tick in as few characters as tell it from its neighbours."""
    if len(ticks) > 1 and ticks[-1] >= 10 * ticks[0] > 0 and value < 1e5:
        return f"{value:,g}" if value >= 1e-4 else f"{value:.0e}".replace("e-0", "e-")
    largest = max(abs(tick) for tick in ticks)
    if largest >= 1e5 or (0 < largest < 1e-3):
        return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e") if value else "0"
    gaps = [abs(b - a) for a, b in pairwise(ticks) if b != a]
    finest = min([*gaps, *(abs(tick) for tick in ticks if tick)], default=1.0)
    decimals = max(0, -math.floor(math.log10(finest) + 1e-9))
    return f"{value:,.{min(decimals, 8)}f}"
