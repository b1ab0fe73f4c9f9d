"""The curves of a run, from its history: losses, scores, learning rate, throughput."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from weft.report.charts import STYLES, Axes, Series, line_chart
from weft.report.svg import Point, extent
from weft.report.words import label
from weft.runs import TIMING_COLUMNS, Row

_NOT_SCORES = {"epoch", "step", "learning_rate", "train_loss", "validation_loss", *TIMING_COLUMNS}
_MOST_CHARTS = 8  # of scores that share no axis
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
    logarithmic = _spans(rate, 50)
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


def detail_figures(details: dict[str, Any], split: str) -> list[str]:
    """ROC, precision-recall and calibration curves, as far as the scores' details have them."""
    share = (0.0, 1.0)
    found = []
    for key, title, names, diagonal in (
        ("roc", "ROC curve", ("fpr", "tpr"), True),
        ("pr", "Precision and recall", ("recall", "precision"), False),
    ):
        groups = details.get(key)
        if isinstance(groups, dict) and groups:
            x_label, y_label = _AXES[key]
            axes = Axes(x_label, y_label, share, (0.0, 1.02), diagonal=diagonal, square=True)
            found.append(line_chart(f"{title}, {split}", _groups(groups, *names), axes))
    calibration = details.get("calibration")
    if isinstance(calibration, dict):
        points = _pairs(calibration.get("confidence"), calibration.get("frequency"))
        points = [point for point in points if math.isfinite(point[1])]
        axes = Axes(
            "predicted probability", "observed frequency", share, (0.0, 1.02), diagonal=True, square=True, legend=False
        )
        found.append(line_chart(f"Calibration, {split}", [Series("observed frequency", points)], axes))
    return [figure for figure in found if figure]


_AXES = {"roc": ("false positive rate", "true positive rate"), "pr": ("recall", "precision")}


def _groups(groups: dict[str, Any], x: str, y: str) -> list[Series]:
    """A curve per class; of many classes the first ones, as many as can be told apart."""
    shown = list(groups.items())[: 2 * STYLES]
    return [
        Series(str(name), _pairs(curve.get(x), curve.get(y)), index)
        for index, (name, curve) in enumerate(shown)
        if isinstance(curve, dict)
    ]


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
        shares = {name: points for name, points in own.items() if _is_share(points)}
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


def _is_share(points: Sequence[Point]) -> bool:
    found = extent(y for _, y in points)
    return found is not None and found[0] >= 0 and found[1] <= 1


def _spans(series: Sequence[Series], factor: float) -> bool:
    """Whether positive values differ by so much that only a logarithmic axis shows them."""
    found = extent(y for one in series for _, y in one.points)
    return found is not None and found[0] > 0 and found[1] / found[0] > factor
