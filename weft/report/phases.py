"""Where the time of a run went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from weft.report.sections import Table
from weft.report.svg import element, figure, text
from weft.report.words import duration
from weft.runs import Row

_WIDTH, _BAR = 400.0, 22.0


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of a run and how long it took, in seconds."""

    name: str
    seconds: float


def phases(history: Sequence[Row], result: Mapping[str, Any]) -> list[Phase]:
    """Training, validation, and the rest: reading data, saving, final scores.

    The rest is known for runs that were not resumed: `seconds` counts the last session only.
    """
    found = []
    for name, column in (("training", "seconds_train"), ("validation", "seconds_validation")):
        values = [float(value) for row in history if isinstance(value := row.get(column), int | float)]
        if sum(values) > 0:
            found.append(Phase(name, sum(values)))
    total = result.get("seconds")
    if found and isinstance(total, int | float):
        rest = float(total) - sum(phase.seconds for phase in found)
        if rest > 0:
            found.append(Phase("start, saving, final scores", rest))
    return found


def time_table(found: Sequence[Phase], history: Sequence[Row]) -> Table | None:
    """Phase, time, share of all, time per epoch; None where no time was recorded."""
    if not found:
        return None
    total = sum(phase.seconds for phase in found)
    rows = []
    for phase in found:
        per_epoch = duration(phase.seconds / len(history)) if phase.name in ("training", "validation") else "–"
        rows.append([phase.name.capitalize(), duration(phase.seconds), f"{phase.seconds / total:.0%}", per_epoch])
    return Table("Where the time went", ["Phase", "Time", "Share", "Per epoch"], rows)


def phase_figure(found: Sequence[Phase]) -> str:
    """One bar, divided."""
    total = sum(phase.seconds for phase in found)
    if len(found) < 2 or not total:
        return ""
    parts, x = [], 0.0
    for index, phase in enumerate(found):
        width = _WIDTH * phase.seconds / total
        parts.append(element("rect", x=x, y=4, width=max(0.5, width - 1), height=_BAR, rx=2, class_=f"fill{index}"))
        x += width
    x = 0.0
    for index, phase in enumerate(found):
        parts.append(element("rect", x=x, y=_BAR + 16, width=10, height=10, rx=2, class_=f"fill{index}"))
        parts.append(text(phase.name, x + 15, _BAR + 25, class_="name"))
        x += 34 + 6.6 * len(phase.name)
    told = ", ".join(f"{phase.name} {duration(phase.seconds)} ({phase.seconds / total:.0%})" for phase in found)
    return figure(_WIDTH, _BAR + 34, "Time per phase", f"{told}.", "".join(parts))
