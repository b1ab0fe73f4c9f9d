"""What a study cost at each site: messages and bytes by what they were for, computing, waiting, memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from weft.report.bars import PARTS, bar_figure
from weft.report.sections import Table
from weft.report.sites import MOST_DRAWN, MOST_SITES
from weft.report.studyfiles import StudyFiles
from weft.report.words import duration, label, plural, size
from weft.runs import Row

_MEANING = {
    "opening": "before training: names, scales, first weights",
    "control": "one vector per step: data left, stop, save",
    "gradients": "what the strategy averages in a step",
    "round": "what the strategy averages at the end of a round",
    "scores": "counts that scores come from",
    "epoch": "training loss",
    "buffers": "running statistics",
}


def byte_tables(study: StudyFiles) -> list[Table]:
    """Bytes of each site by kind, and what the kinds are."""
    moved = _moved(study)
    if not moved:
        return []
    kinds = _kinds(moved)
    rows, totals = [], {kind: [0, 0, 0] for kind in kinds}
    for name, told in moved.items():
        by_kind = told["by_kind"]
        for kind in kinds:
            for place, part in enumerate(("messages", "sent", "received")):
                totals[kind][place] += int(by_kind.get(kind, {}).get(part, 0))
        messages = sum(int(one.get("messages", 0)) for one in by_kind.values())
        cells = [size(int(by_kind.get(kind, {}).get("sent", 0)) + int(by_kind.get(kind, {}).get("received", 0)))
                 for kind in kinds]  # fmt: skip
        rows.append([name, f"{messages:,}", size(told["sent"]), size(told["received"]), *cells])
    head = ["Site", "Messages", "Sent", "Received", *(label(kind) for kind in kinds)]
    note = "Without headers. The columns of kinds hold what was sent and received together."
    sums = [
        [label(kind), f"{totals[kind][0]:,}", size(totals[kind][1]), size(totals[kind][2]), _MEANING.get(kind, "–")]
        for kind in kinds
    ]
    named = Table("What the messages were for, all sites", ["Kind", "Messages", "Sent", "Received", "Meaning"], sums)
    return [Table("Bytes of each site", head, rows[:MOST_SITES], note), named]


def byte_figure(study: StudyFiles) -> str:
    """Bytes of each site, sent and received together, divided by what they were for."""
    moved = _moved(study)
    kinds = _kinds(moved)
    shown = sorted(kinds, key=lambda kind: -sum(_both(one, kind) for one in moved.values()))
    parts = shown if len(shown) <= PARTS else [*shown[: PARTS - 1], "others"]
    rows = []
    for name, told in list(moved.items())[:MOST_DRAWN]:
        sizes = [_both(told, kind) for kind in shown]
        rows.append((name, [*sizes[: PARTS - 1], sum(sizes[PARTS - 1 :])] if len(shown) > PARTS else sizes))
    return bar_figure("Bytes sent and received, by kind", parts, rows, size)


def _both(told: Mapping[str, Any], kind: str) -> float:
    one = told["by_kind"].get(kind, {})
    return float(one.get("sent", 0)) + float(one.get("received", 0))


def _moved(study: StudyFiles) -> dict[str, Mapping[str, Any]]:
    found = {name: told.get("bytes") for name, told in study.told.items()}
    return {
        name: one for name, one in found.items() if isinstance(one, Mapping) and isinstance(one.get("by_kind"), Mapping)
    }


def _kinds(moved: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(str(kind) for one in moved.values() for kind in one["by_kind"]))


def time_table(study: StudyFiles) -> Table | None:
    """Computing and waiting of each site from the first epoch on; before that, time to open and build."""
    rows = []
    for name, spent in list(study.spent.items())[:MOST_SITES]:
        opening = [row for row in spent if row.get("part") == "opening"]
        later = [row for row in spent if row.get("part") != "opening"]
        computing, waiting, processor = (_sum(later, key) for key in ("computing", "waiting", "processor"))
        share = computing / (computing + waiting) if computing + waiting else 0.0
        cells = [duration(computing), duration(waiting), f"{share:.0%}", duration(processor)]
        rows.append([name, *cells, duration(_sum(opening, "computing"))])
    if not rows:
        return None
    note = (
        "Computing: from each answer to the next message, reading data included, as measured with all sites taking "
        "turns in one process. Waiting: how long the site would have waited for the slowest, had all computed at once "
        "on machines like this one and had messages taken no time. What only the first site pays in one process, such "
        "as loading libraries, is in its time to open and in its first step."
    )
    return Table("Computing and waiting", ["Site", "Computing", "Waiting", "Busy", "Processor", "To open"], rows, note)


def time_figure(study: StudyFiles) -> str:
    """Computing and waiting of each site as bars."""
    rows = []
    for name, spent in list(study.spent.items())[:MOST_DRAWN]:
        later = [row for row in spent if row.get("part") != "opening"]
        rows.append((name, [_sum(later, "computing"), _sum(later, "waiting")]))
    return bar_figure("Computing and waiting, from the first step on", ["computing", "waiting"], rows, duration)


def memory_table(study: StudyFiles) -> Table | None:
    """Memory that a site's model, optimizer and strategy take at most, and the whole process."""
    rows = []
    keys = ("model_bytes", "optimizer_bytes", "strategy_bytes", "journal_bytes")
    peak = 0
    for name, spent in list(study.spent.items())[:MOST_SITES]:
        most = [max((int(row.get(key, 0)) for row in spent), default=0) for key in keys]
        peak = max([peak, *(int(row.get("process_peak_bytes", 0)) for row in spent)])
        rows.append([name, *(size(one) for one in most)])
    if not rows:
        return None
    note = (
        f"The whole process, with {plural(len(study.spent), 'site')} in it, took {size(peak)} at most." if peak else ""
    )
    head = ["Site", "Model", "Optimizer", "Strategy", "Journal"]
    return Table("Memory", head, rows, f"{note} The journal holds the messages since the last saved state.".strip())


def _sum(rows: list[Row], key: str) -> float:
    return sum(float(value) for row in rows if isinstance(value := row.get(key), int | float))


def bytes_sentence(study: StudyFiles) -> str:
    """What all sites moved together."""
    moved = _moved(study)
    if not moved:
        return ""
    sent, received = (sum(int(one.get(part, 0)) for one in moved.values()) for part in ("sent", "received"))
    return f"The sites sent {size(sent)} and received {size(received)}, headers aside."
