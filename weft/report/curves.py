"""The curves of a run, from its history: losses, scores, learning rate, throughput."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from weft.report.charts import STYLES, Axes, Series, line_chart
from weft.report.svg import Point, extent
from weft.report.words import label
from weft.runs import TIMING_COLUMNS, Row

_NOT_SCORES = {"epoch", "step", "learning_rate", "train_loss", "validation_loss", *TIMING_COLUMNS}
_MOST_CHARTS = 8  # of scores that share no axis
_FEWEST_IN_BIN = 15  # items of a point of the calibration curve
_FEW_EPOCHS = 3  # with so few the loss over the steps tells more


def curves(history: Sequence[Row], steps: Sequence[Row], best_epoch: int | None) -> list[str]:
    """The figures, as SVG; those without data are left out.

    Args:
        history: rows of history.csv.
        steps: rows of steps.csv.
        best_epoch: the epoch whose weights were kept, as the history counts it.
    """
    best = (float(best_epoch), f"best: epoch {best_epoch}") if best_epoch is not None else None
    found = [_losses(history, best)]
    if len(history) <= _FEW_EPOCHS:
        found.append(_loss_over_steps(steps))
    found += _scores(history, best)
    rate = [Series("learning rate", column(history, "learning_rate"))]
    logarithmic = _decays(rate[0].points)
    found.append(line_chart("Learning rate", rate, _axes(history, logarithmic=logarithmic, legend=False)))
    speed = [Series("items per second", column(history, "items_per_second"))]
    top = extent(y for _, y in speed[0].points)
    y_range = (0.0, top[1] * 1.08) if top and top[1] > 0 else None  # from zero: how even the speed is shows at a glance
    found.append(line_chart("Throughput (items per second)", speed, _axes(history, y_range=y_range, legend=False)))
    return [figure for figure in found if figure]


def column(rows: Sequence[Row], name: str, x: str = "epoch") -> list[Point]:
    """The points of a column; rows without a value are left out, text counts as no number."""
    points = []
    for row in rows:
        value, at = row.get(name), row.get(x)
        if isinstance(at, int | float) and value is not None:
            points.append((float(at), float(value) if isinstance(value, int | float) else math.nan))
    return points


@dataclass(frozen=True, slots=True)
class CurveKind:
    """A curve per class in the scores' details: its key, title, names of x and y, and how the axes are called."""

    key: str
    title: str
    x: str
    y: str
    x_label: str
    y_label: str
    diagonal: bool


CURVE_KINDS = (
    CurveKind("roc", "ROC curve", "fpr", "tpr", "false positive rate", "true positive rate", True),
    CurveKind("pr", "Precision and recall", "recall", "precision", "recall", "precision", False),
)
_SHARE = (0.0, 1.0)
_SHARE_WITH_AIR = (0.0, 1.02)  # a curve along the upper edge is seen whole


def detail_figures(details: Mapping[str, Any], split: str) -> list[str]:
    """ROC, precision-recall and calibration curves, as far as the scores' details have them."""
    found = [_class_curves(kind, details.get(kind.key), split) for kind in CURVE_KINDS]
    calibration = details.get("calibration")
    if isinstance(calibration, Mapping):
        points = _pairs(calibration.get("confidence"), calibration.get("frequency"))
        filled = Series("observed frequency", joined_bins(points, calibration.get("count")))
        axes = Axes(
            "predicted probability", "observed frequency", _SHARE, _SHARE_WITH_AIR, diagonal=True, square=True,
            legend=False,
        )  # fmt: skip
        found.append(line_chart(f"Calibration, {split}", [filled], axes))
    return [figure for figure in found if figure]


def joined_bins(points: Sequence[Point], counts: object) -> list[Point]:
    """Bins of a calibration curve, joined with their neighbours until each has items enough to mean something.

    Args:
        points: (mean probability, observed frequency) of each bin; nan for an empty one.
        counts: items of each bin; without them the filled bins are left as they are.
    """
    if not isinstance(counts, list) or len(counts) != len(points):
        return [point for point in points if math.isfinite(point[1])]
    filled = [(point, float(count)) for point, count in zip(points, counts) if math.isfinite(point[1]) and count]
    least = min(_FEWEST_IN_BIN, sum(count for _, count in filled) / 4)
    found: list[tuple[Point, float]] = []
    for point, count in filled:
        if found and found[-1][1] < least:
            found[-1] = _merged(found[-1], (point, count))
        else:
            found.append((point, count))
    if len(found) > 1 and found[-1][1] < least:
        found[-2:] = [_merged(found[-2], found[-1])]
    return [point for point, _ in found]


def _merged(first: tuple[Point, float], second: tuple[Point, float]) -> tuple[Point, float]:
    (a, m), (b, n) = first, second
    return ((a[0] * m + b[0] * n) / (m + n), (a[1] * m + b[1] * n) / (m + n)), m + n


def _class_curves(kind: CurveKind, groups: object, split: str) -> str:
    """A curve per class; of many classes those with the smallest area, as many as can be told apart."""
    if not isinstance(groups, Mapping):
        return ""
    drawn = [(str(name), _pairs(curve.get(kind.x), curve.get(kind.y))) for name, curve in groups.items() if curve]
    title = f"{kind.title}, {split}"
    if len(drawn) > STYLES:
        title += f" ({STYLES} weakest of {len(drawn)})"
        drawn = sorted(drawn, key=lambda entry: _area(entry[1]))[:STYLES]
    series = [Series(name, points, style) for style, (name, points) in enumerate(drawn)]
    axes = Axes(kind.x_label, kind.y_label, _SHARE, _SHARE_WITH_AIR, diagonal=kind.diagonal, square=True)
    return line_chart(title, series, axes)


def _area(points: Sequence[Point]) -> float:
    """The area under a curve (trapezoids)."""
    return sum((bx - ax) * (ay + by) / 2 for (ax, ay), (bx, by) in pairwise(points))


def _pairs(xs: Any, ys: Any) -> list[Point]:
    if not (isinstance(xs, list) and isinstance(ys, list)):
        return []
    return [(_float(x), _float(y)) for x, y in zip(xs, ys)]


def _float(value: object) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def _losses(history: Sequence[Row], best: tuple[float, str] | None) -> str:
    both = [
        Series("training", column(history, "train_loss")),
        Series("validation", column(history, "validation_loss"), 1),
    ]
    return line_chart("Loss", both, _axes(history, logarithmic=_spans(both, 100), marked_x=best))


def _loss_over_steps(steps: Sequence[Row]) -> str:
    points = column(steps, "loss", "step")
    return line_chart("Training loss over steps", [Series("training", points)], Axes("step", legend=False))


def _scores(history: Sequence[Row], best: tuple[float, str] | None) -> list[str]:
    """Scores between 0 and 1 share a figure per split, others have their own."""
    names = dict.fromkeys(name for row in history for name in row if name not in _NOT_SCORES)
    found = []
    for split in ("validation", "train"):
        own = {name: column(history, name) for name in names if name.startswith(f"{split}_")}
        shares = {name: points for name, points in own.items() if _is_share(name, points)}
        series = [
            Series(label(name.removeprefix(f"{split}_")), points, index)
            for index, (name, points) in enumerate(list(shares.items())[:STYLES])
        ]
        word = "training" if split == "train" else split
        found.append(line_chart(f"Scores, {word}", series, _axes(history, marked_x=best)))
        others = [name for name in own if name not in shares][:_MOST_CHARTS]
        for name in others:
            title = f"{label(name.removeprefix(f'{split}_'))}, {word}"
            found.append(line_chart(title, [Series(title, own[name])], _axes(history, marked_x=best, legend=False)))
    return found


def _axes(history: Sequence[Row], **more: Any) -> Axes:
    whole = extent(x for x, _ in column(history, "epoch", "epoch"))
    return Axes("epoch", x_range=whole, whole_x=True, **more)


def _is_share(name: str, points: Sequence[Point]) -> bool:
    """Whether a score is a share of 1 of which more is better, so that it can stand beside the others of its kind."""
    if any(word in name for word in ("error", "loss", "brier")):
        return False
    found = extent(y for _, y in points)
    return found is not None and found[0] >= 0 and found[1] <= 1


def _spans(series: Sequence[Series], factor: float) -> bool:
    """Whether positive values differ by so much that only a logarithmic axis shows them."""
    found = extent(y for one in series for _, y in one.points)
    return found is not None and found[0] > 0 and found[1] / found[0] > factor


def _decays(points: Sequence[Point]) -> bool:
    """Whether most values are so much smaller than the largest that a linear axis would show them as zero."""
    values = sorted(y for _, y in points if math.isfinite(y))
    return bool(values) and values[0] > 0 and values[-1] > 30 * values[len(values) // 2]
