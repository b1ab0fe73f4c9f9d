"""What a study cost at each site: messages and bytes by what they were for, computing, waiting, memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from weft.report.bars import PARTS, bar_figure
from weft.report.sections import Table
from weft.report.sites import MOST_DRAWN, MOST_SITES, first_of
from weft.report.studyfiles import StudyFiles
from weft.report.words import duration, label, plural, size
from weft.runs import Row

_MEANING = {
    "opening": "before training: names, scales, first weights",
    "control": "one vector per step: data left, stop, save",
    "gradients": "what the strategy averages in a step",
    "left": "PowerSGD's left factors",
    "right": "PowerSGD's right factors",
    "factors": "rankDAD's factors",
    "pretraining": "weights of the site that trained alone first",
    "digests": "digests of weights, compared now and then",
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
    return bar_figure(f"Bytes sent and received, by kind{first_of(moved)}", parts, rows, size)


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


def site_costs(study: StudyFiles) -> dict[str, dict[str, float]]:
    """What each site took so far, by name: seconds, messages and bytes in all, and memory at most.

    `computing`, `waiting`, `startup` and `processor` count from the first step on; `opening` is the time to open and
    build.
    """
    found = {}
    for name, rows in study.spent.items():
        later = [row for row in rows if row.get("part") != "opening"]
        costs = {key: _sum(later, key) for key in ("computing", "waiting", "startup", "processor")}
        costs["opening"] = _sum([row for row in rows if row.get("part") == "opening"], "computing")
        costs |= {key: _sum(rows, key) for key in _COUNTS}
        found[name] = costs | {key: max((_sum([row], key) for row in rows), default=0.0) for key in _MEMORY}
    return found


_COUNTS = ("steps", "items", "messages", "sent", "received")
_MEMORY = ("model_bytes", "optimizer_bytes", "strategy_bytes", "journal_bytes", "process_peak_bytes")


def _sum(rows: Sequence[Row], key: str) -> float:
    return sum(float(value) for row in rows if isinstance(value := row.get(key), int | float))


def time_table(study: StudyFiles) -> Table | None:
    """Computing and waiting of each site from the first step on; before that, time to open and build."""
    rows = []
    for name, costs in list(site_costs(study).items())[:MOST_SITES]:
        computing, waiting = costs["computing"], costs["waiting"]
        share = computing / (computing + waiting) if computing + waiting else 0.0
        rows.append([name, *map(duration, (computing, waiting)), f"{share:.0%}",
                     *map(duration, (costs["processor"], costs["startup"], costs["opening"]))])  # fmt: skip
    if not rows:
        return None
    note = (
        "Computing: from each answer to the next message, reading data included, as measured with all sites taking "
        "turns in one process. Waiting: how long the site would have waited for the slowest, had all computed at once "
        "on machines like this one and had messages taken no time. Start-up: by how much what a site did for the first "
        "time took longer than the next time, which is in neither: there, and in its time to open, the first site pays "
        "for what all in one process need, such as loading libraries."
    )
    head = ["Site", "Computing", "Waiting", "Busy", "Processor", "Start-up", "To open"]
    return Table("Computing and waiting", head, rows, note)


def traffic_table(study: StudyFiles) -> Table | None:
    """Messages and bytes of each site so far; of a finished study `byte_tables` tells more."""
    costs = list(site_costs(study).items())[:MOST_SITES]
    rows = [[name, f"{one['messages']:,.0f}", size(one["sent"]), size(one["received"])] for name, one in costs]
    return Table("Messages", ["Site", "Messages", "Sent", "Received"], rows) if rows else None


def time_figure(study: StudyFiles) -> str:
    """Computing and waiting of each site as bars."""
    costs = list(site_costs(study).items())[:MOST_DRAWN]
    rows = [(name, [one["computing"], one["waiting"]]) for name, one in costs]
    return bar_figure(
        f"Computing and waiting, from the first step on{first_of(study.spent)}",
        ["computing", "waiting"],
        rows,
        duration,
    )


def memory_table(study: StudyFiles) -> Table | None:
    """Memory that a site's model, optimizer, strategy and journal take at most, and the whole process."""
    costs = site_costs(study)
    if not costs:
        return None
    rows = [[name, *(size(one[key]) for key in _MEMORY[:-1])] for name, one in list(costs.items())[:MOST_SITES]]
    peak = max(one["process_peak_bytes"] for one in costs.values())
    note = f"The whole process, with {plural(len(costs), 'site')} in it, took {size(peak)} at most. " if peak else ""
    head = ["Site", "Model", "Optimizer", "Strategy", "Largest exchange"]
    note += "The largest exchange is what the journal holds until all are answered: what was asked, and the answer."
    return Table("Memory of each site", head, rows, note)


def bytes_sentence(study: StudyFiles) -> str:
    """What all sites moved together."""
    moved = _moved(study)
    if not moved:
        return ""
    sent, received = (sum(int(one.get(part, 0)) for one in moved.values()) for part in ("sent", "received"))
    return f"The sites sent {size(sent)} and received {size(received)}, headers aside."
