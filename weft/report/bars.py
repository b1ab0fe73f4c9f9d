"""A figure of bars that are divided alike, one below the other: what each of several takes, and for what."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

from weft.report.svg import element, figure, text

_WIDTH, _ROW, _BAR, _TOP = 400.0, 24.0, 14.0, 8.0
_LETTER = 6.8
_LONGEST = 22  # letters of a name
PARTS = 6  # colours in the style sheet


def bar_figure(
    title: str, parts: Sequence[str], rows: Sequence[tuple[str, Sequence[float]]], words: Callable[[float], str]
) -> str:
    """Bars on a common scale; nothing where all are empty.

    Args:
        title: what is shown.
        parts: what the parts of each bar are, at most `PARTS`.
        rows: (name, size of each part), none negative.
        words: a size in words.
    """
    whole = max((sum(sizes) for _, sizes in rows), default=0.0)
    if whole <= 0:
        return ""
    names = [name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…" for name, _ in rows]
    left = 16 + _LETTER * max(len(name) for name in names)
    right = 14 + _LETTER * max(len(words(sum(sizes))) for _, sizes in rows)
    legend, top = _legend(parts)
    drawn = [legend]
    for index, (name, (_, sizes)) in enumerate(zip(names, rows)):
        y, x = top + _ROW * index, left
        drawn.append(text(name, left - 10, y + _BAR - 3, text_anchor="end"))
        for part, size in enumerate(sizes):
            width = (_WIDTH - left - right) * size / whole
            if width > 0:
                tip = element("title", f"{escape(parts[part])}: {words(size)}")
                box = {"x": x, "y": y, "width": max(0.5, width - 0.7), "height": _BAR, "class_": f"part{part}"}
                drawn.append(element("rect", tip, **box))
            x += width
        drawn.append(text(words(sum(sizes)), x + 6, y + _BAR - 3, class_="name"))
    return figure(_WIDTH, top + _ROW * len(rows) + 4, title, _described(parts, rows, words), "".join(drawn))


def _legend(parts: Sequence[str]) -> tuple[str, float]:
    """The names of the parts in rows that fit, and where the bars begin below them."""
    drawn, x, y = [], 4.0, _TOP
    for index, name in enumerate(parts):
        room = 26 + _LETTER * len(name)
        if x > 4 and x + room > _WIDTH:
            x, y = 4.0, y + 18
        drawn.append(element("rect", x=x, y=y, width=10, height=10, rx=2, class_=f"part{index}"))
        drawn.append(text(name, x + 15, y + 9.5, class_="name"))
        x += room + 6
    return "".join(drawn), y + 26


def _described(parts: Sequence[str], rows: Sequence[tuple[str, Sequence[float]]], words: Callable[[float], str]) -> str:
    told = [
        f"{name} {words(sum(sizes))} ({', '.join(f'{part} {words(size)}' for part, size in zip(parts, sizes))})"
        for name, sizes in rows
    ]
    return "; ".join(told) + "."
