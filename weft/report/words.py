"""Numbers, names and durations as a reader writes them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

_ABBREVIATIONS = {
    "auroc": "AUROC", "auc": "AUC", "f1": "F1", "mcc": "MCC", "hd95": "HD95", "assd": "ASSD", "iou": "IoU",
    "mse": "MSE", "mae": "MAE", "rmse": "RMSE", "r2": "R²", "lr": "LR", "sha256": "SHA-256", "cpu": "CPU", "gpu": "GPU",
}  # fmt: skip
_PEOPLE = ("Brier", "Pearson")
_UNITS = (("B", 1), ("KiB", 2**10), ("MiB", 2**20), ("GiB", 2**30), ("TiB", 2**40))


def number(value: object) -> str:
    """Four significant digits; whole numbers with thousands apart; "–" for nothing."""
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int) or (value.is_integer() and 1 <= abs(value) < 1e15):
        return f"{int(value):,}"
    if not math.isfinite(value):
        return {math.inf: "∞", -math.inf: "−∞"}.get(value, "undefined")
    if value == 0:
        return "0"
    if abs(value) >= 10_000:
        return f"{value:,.0f}"
    return f"{value:.4g}" if abs(value) >= 1e-4 else f"{value:.2e}".replace("e-0", "e-")


def score(value: object) -> str:
    """A score in a table: four decimals, of larger numbers fewer, so that columns line up and differences show."""
    if isinstance(value, float) and 1e-3 <= abs(value) < 1000:
        return f"{value:.4f}" if abs(value) < 10 else f"{value:.2f}"
    return number(value)


def label(name: str) -> str:
    """A column or score name as a heading: `calibration_error` becomes `Calibration error`."""
    words = [_ABBREVIATIONS.get(word, word) for word in name.replace("_", " ").split()]
    text = " ".join(words)
    return text[:1].upper() + text[1:]


def plain_name(name: object) -> str:
    """A score's name inside a sentence: AUROC and Pearson stay, Accuracy becomes accuracy."""
    text = label(str(name))
    kept = text[1:2].isupper() or text[1:2].isdigit() or text.startswith(_PEOPLE)
    return text if kept else text[:1].lower() + text[1:]


def duration(seconds: float) -> str:
    """A duration: `0.8 s`, `1 min 5 s`, `2 h 3 min`, `1 day 4 h`."""
    if seconds < 10:
        return f"{seconds:.2g} s"
    whole = round(seconds)
    days, hours, minutes, rest = whole // 86_400, whole // 3600 % 24, whole // 60 % 60, whole % 60
    if days:
        return f"{days} day{'s' if days > 1 else ''} {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def size(byte_count: float) -> str:
    """A size in memory or on disk, in binary units."""
    name, unit = max((pair for pair in _UNITS if byte_count >= pair[1]), key=lambda pair: pair[1], default=_UNITS[0])
    amount = byte_count / unit
    return f"{amount:,.0f} {name}" if amount >= 1000 else f"{amount:.3g} {name}"


def shortened(value: object) -> object:
    """A digest or commit by its first twelve letters; anything else as it is."""
    is_digest = isinstance(value, str) and len(value) >= 40 and set(value) <= set("0123456789abcdef")
    return f"{value[:12]}…" if isinstance(value, str) and is_digest else value


def plural(count: int, noun: str) -> str:
    """`1 item`, `2,000 items`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def listed(words: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""


def component_name(value: object) -> str | None:
    """The name in a component as an experiment file writes it, in any of its forms."""
    if isinstance(value, str):
        return value.rsplit(".", 1)[-1]
    if isinstance(value, Mapping):
        inner: Any = value.get("component", value.get("name"))
        if inner is not None:
            return component_name(inner)
        if len(value) == 1:
            return component_name(next(iter(value)))
    return None
