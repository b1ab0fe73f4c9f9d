"""Curves of a log as PNG, where COINSTAC's users look for them, under the original's names."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from weft.report.svg import Point, Scale, extent, tick_label, widened
from weft.runs import write_atomically

_WIDTH, _HEIGHT = 1280, 720
_LEFT, _RIGHT, _BOTTOM = 110, 30, 80
_FINE = 2  # drawn so many times as large and made smaller, which smooths the lines
_TEXT, _SOFT, _GRID = "#1b2330", "#566173", "#e1e5eb"
_COLOURS = ("#1f5fbf", "#c2410c", "#0b7a53", "#7c3aed", "#9a6700", "#be185d")

Lines = Sequence[Sequence[float]]


def plot(folder: Path, name: str, log_header: str, lines: Lines) -> None:
    """Draw a log over its epochs, a file for each part of the header between `|`: `train_log_0.png`, …

    Args:
        folder: where they are written.
        name: of the log.
        log_header: names of the columns.
        lines: one for each epoch; a part without a finite number has no file.
    """
    start = 0
    for number, part in enumerate(log_header.split("|")):
        names = [word.strip() for word in part.split(",")]
        curves = [
            (label, [(float(epoch + 1), _number(line, start + place)) for epoch, line in enumerate(lines)])
            for place, label in enumerate(names)
        ]
        start += len(names)
        drawn = line_image(name.replace("_", " ").upper(), curves)
        if drawn is not None:
            write_atomically(folder / f"{name}_{number}.png", drawn)


def line_image(title: str, curves: Sequence[tuple[str, Sequence[Point]]]) -> bytes | None:
    """Curves in one frame with a legend, as the bytes of a PNG; None where nothing is finite.

    Args:
        title: what is shown.
        curves: names and points (epoch, value); what is not finite interrupts a curve.
    """
    heights = extent(value for _, points in curves for _, value in points)
    epochs = extent(epoch for _, points in curves for epoch, _ in points)
    if heights is None or epochs is None:
        return None
    drawing = _Drawing()
    low, high = epochs if epochs[0] < epochs[1] else (epochs[0] - 1, epochs[1] + 1)
    x = Scale(low, high, _LEFT, _WIDTH - _RIGHT)
    drawing.text((_WIDTH / 2, 24), title, 24, _TEXT)
    bottom_of_legend = _legend(drawing, [label for label, _ in curves])
    y = Scale(*widened(*heights), _HEIGHT - _BOTTOM, bottom_of_legend + 28)
    _frame(drawing, x, y)
    for number, (_, points) in enumerate(curves):
        drawing.curve([(x(epoch), y(value)) for epoch, value in points], _COLOURS[number % len(_COLOURS)])
    return drawing.png()


def _legend(drawing: _Drawing, labels: Sequence[str]) -> float:
    """The names in rows; returns how far down they reach."""
    across, down = float(_LEFT), 68.0
    for number, label in enumerate(labels):
        room = 44 + drawing.width(label, 20)
        if across > _LEFT and across + room > _WIDTH - _RIGHT:
            across, down = float(_LEFT), down + 30
        drawing.line([(across, down), (across + 34, down)], _COLOURS[number % len(_COLOURS)], 3)
        drawing.text((across + 44, down), label, 20, _TEXT, anchor="lm")
        across += room + 34
    return down


def _frame(drawing: _Drawing, x: Scale, y: Scale) -> None:
    ticks = y.ticks(6)
    for tick in ticks:
        drawing.line([(x.start, y(tick)), (x.end, y(tick))], _GRID, 1)
        drawing.text((x.start - 12, y(tick)), tick_label(tick, ticks), 18, _SOFT, anchor="rm")
    whole = [tick for tick in x.ticks(10) if tick == round(tick)]
    for tick in whole:
        drawing.text((x(tick), y.start + 22), tick_label(tick, whole), 18, _SOFT)
    drawing.line([(x.start, y.start), (x.end, y.start)], _SOFT, 2)
    drawing.text(((x.start + x.end) / 2, _HEIGHT - 24), "Epochs", 20, _TEXT)


class _Drawing:
    """A white sheet; places are in pixels of the finished picture."""

    def __init__(self) -> None:
        self._image = Image.new("RGB", (_WIDTH * _FINE, _HEIGHT * _FINE), "white")
        self._draw = ImageDraw.Draw(self._image)

    def line(self, points: Sequence[Point], colour: str, width: int) -> None:
        """A line through points."""
        self._draw.line([(a * _FINE, b * _FINE) for a, b in points], fill=colour, width=width * _FINE, joint="curve")

    def curve(self, points: Sequence[Point], colour: str) -> None:
        """A line through the points that are finite, interrupted where one is not, with a dot at each of a few."""
        for one, other in pairwise(points):
            if math.isfinite(one[1]) and math.isfinite(other[1]):
                self.line([one, other], colour, 3)
        radius = 5 if len(points) <= 40 else 1.5
        for a, b in points:
            if math.isfinite(b):
                box = [(a - radius) * _FINE, (b - radius) * _FINE, (a + radius) * _FINE, (b + radius) * _FINE]
                self._draw.ellipse(box, fill=colour)

    def text(self, place: Point, words: str, size: int, colour: str, anchor: str = "mm") -> None:
        """Words at a place."""
        font = ImageFont.load_default(size * _FINE)
        self._draw.text((place[0] * _FINE, place[1] * _FINE), words, fill=colour, font=font, anchor=anchor)

    def width(self, words: str, size: int) -> float:
        """How wide words are."""
        return float(self._draw.textlength(words, font=ImageFont.load_default(size * _FINE))) / _FINE

    def png(self) -> bytes:
        """The finished picture."""
        buffer = io.BytesIO()
        self._image.resize((_WIDTH, _HEIGHT), Image.Resampling.LANCZOS).save(buffer, "PNG", optimize=True)
        return buffer.getvalue()


def _number(line: Sequence[float], place: int) -> float:
    return float(line[place]) if place < len(line) and line[place] is not None else math.nan
