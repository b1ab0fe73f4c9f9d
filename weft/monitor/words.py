"""How numbers are written on the terminal and in the log, the same everywhere."""

from __future__ import annotations

from weft.engine.events import Epoch


def number(value: float) -> str:
    """Four significant digits; whole numbers as such."""
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}"


def duration(seconds: float) -> str:
    """A duration as a person says it: `0.8 s`, `1:05 min`, `2:03:04 h`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02} h" if hours else f"{minutes}:{rest:02} min"


def epoch_words(event: Epoch, monitor: str) -> str:
    """The losses and the monitored score of an epoch's row, in words."""
    row = event.row
    names = dict.fromkeys(("train_loss", "validation_loss", f"validation_{monitor}"))
    words = [f"{name} {number(row[name])}" for name in names if isinstance(row.get(name), float | int)]
    if event.improved and words:
        words[-1] += " (best so far)"
    return ", ".join(words) or "done"
