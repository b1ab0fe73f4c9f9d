"""Where the time of a run went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from weft.report.sections import Table
from weft.report.svg import element, figure, text
from weft.report.words import duration, size
from weft.runs import Row

_WIDTH, _BAR = 400.0, 22.0
_MUCH = 0.2  # share of training spent waiting for data that is worth a hint


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


def time_table(found: Sequence[Phase], history: Sequence[Row], loading: object = None) -> Table | None:
    """Phase, time, share of all, time per epoch; None where no time was recorded.

    Args:
        found: the phases.
        history: rows of the epochs.
        loading: of result.json: how long training waited for data.
    """
    if not found:
        return None
    total = sum(phase.seconds for phase in found)
    rows = []
    for phase in found:
        per_epoch = duration(phase.seconds / len(history)) if phase.name in ("training", "validation") else "–"
        rows.append([phase.name.capitalize(), duration(phase.seconds), f"{phase.seconds / total:.0%}", per_epoch])
    return Table("Where the time went", ["Phase", "Time", "Share", "Per epoch"], rows, _waiting(loading))


def _waiting(loading: object) -> str:
    """How much of the training was waiting for data, and what to do where that is much."""
    if not isinstance(loading, Mapping):
        return ""
    seconds, whole = loading.get("seconds"), loading.get("of_training_seconds")
    if not isinstance(seconds, int | float) or not isinstance(whole, int | float) or whole <= 0:
        return ""
    share = min(1.0, seconds / whole)
    told = f"Of the training {duration(seconds)} ({share:.0%}) were waiting for data."
    return told + (" `weft profile` says what can be done about it." if share >= _MUCH else "")


def profile_table(profile: Mapping[str, Any]) -> Table | None:
    """The phases of a step as `weft profile` measured them; None where it did not."""
    steps = profile.get("phases")
    if not isinstance(steps, Mapping):
        return None
    rows = []
    for name, times in steps.items():
        values = [times.get(key) for key in ("median", "p90", "share")] if isinstance(times, Mapping) else []
        numbers = [float(value) for value in values if isinstance(value, int | float)]
        if len(numbers) == 3:
            cells = (*(f"{1000 * seconds:.3f} ms" for seconds in numbers[:2]), f"{numbers[2]:.0%}")
            rows.append([str(name).capitalize(), *cells])
    hints = [str(hint) for hint in profile.get("hints") or () if isinstance(hint, str)]
    note = "; ".join(hints)
    memory = profile.get("memory")
    if isinstance(memory, int) and memory:
        note = f"Memory: {size(memory)} at most. {note[:1].upper()}{note[1:]}"
    return Table("A step, measured by weft profile", ["Phase", "Median", "90 %", "Share"], rows, note) if rows else None


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
