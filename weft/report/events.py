"""What happened in a study besides training: sites that left, came back, were late, or whose messages were refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from weft.report.sections import Table
from weft.report.svg import Scale, element, figure, path, text, tick_label
from weft.report.words import duration, label, listed, number, plural

_COMES, _GOES = ("joined", "returned"), ("left", "late", "stopped")
_UNMARKED = ("joined", "returned", "left", "stopped", "missed")
_ROUTINE = ("joined", "digests", "ignored", "resent", "slow", "planned")  # cost nothing, or are as they should be
_MOST_ROWS, _MOST_LINES = 200, 40
_WIDTH, _ROW, _TOP = 400.0, 24.0, 12.0
_LETTER, _LONGEST = 6.8, 22


@dataclass(frozen=True, slots=True)
class Happened:
    """An event: what, at which site (empty: all), in which epoch (from 1) and step, after how long, why."""

    event: str
    site: str
    epoch: int | None
    step: int | None
    seconds: float | None
    reason: str


def happened(events: Sequence[Mapping[str, Any]]) -> list[Happened]:
    """The lines of a ledger."""
    found = []
    for row in events:
        epoch, step, seconds = row.get("epoch"), row.get("step"), row.get("seconds")
        found.append(
            Happened(
                str(row.get("event") or "event"), str(row.get("site") or ""),
                epoch if isinstance(epoch, int) else None, step if isinstance(step, int) else None,
                float(seconds) if isinstance(seconds, int | float) else None, str(row.get("reason") or ""),
            )
        )  # fmt: skip
    return found


def event_sentence(found: Sequence[Happened]) -> str:
    """Faults in a sentence; nothing where there was none."""
    words = {
        "left": "dropped out", "late": "were late", "refused": "were refused",
        "failed": "had a loss or gradients that were not finite",
        "differs": "had other weights than the rest",
    }  # fmt: skip
    told = []
    for event, word in words.items():
        own = [one for one in found if one.event == event]
        if own:
            names = list(dict.fromkeys(one.site for one in own if one.site))
            times = f" ({plural(len(own), 'time')})" if len(own) > len(names) else ""
            whose = listed(names[:5] + (["others"] if len(names) > 5 else []))
            told.append(f"{whose} {word if len(names) > 1 else word.replace('were', 'was')}{times}")
    back = list(dict.fromkeys(one.site for one in found if one.event == "returned"))
    if back:
        told.append(f"{listed(back[:5] + (['others'] if len(back) > 5 else []))} came back")
    stops = [one for one in found if one.event == "stopped"]
    told += [f"the study stopped{f' ({_why(one)})' if one.reason else ''}" for one in stops]
    return f"Not all went well: {'; '.join(told)}." if told else ""


def event_table(found: Sequence[Happened]) -> Table | None:
    """What happened, in order; what is routine is counted in the note."""
    told = [one for one in found if one.event not in _ROUTINE]
    routine = {event: sum(one.event == event for one in found) for event in _ROUTINE}
    note = ", ".join(f"{event} {plural(count, 'time')}" for event, count in routine.items() if count)
    note = f"Besides, as it should be or without harm: {note}." if note else ""
    if not told:
        return None
    rows = [
        [label(one.event), one.site or "all", _counted(one.epoch), _steps(one), _after(one), _why(one)]
        for one in told[:_MOST_ROWS]
    ]
    if len(told) > _MOST_ROWS:
        note = f"{len(told) - _MOST_ROWS:,} more in ledger.jsonl. {note}".strip()
    return Table("What happened, in order", ["Event", "Site", "In epoch", "After steps", "After", "Why"], rows, note)


def scenario_table(result: Mapping[str, Any]) -> Table | None:
    """What became of each event of the scenario that the study was played with; None where there was none."""
    told = result.get("scenario")
    rows = [
        [str(one.get("site")), "yes" if one.get("happened") else "never", str(one.get("place")),
         f"{one.get('words')}{': ' if one.get('why') else ''}{one.get('why') or ''}".replace("never happened: ", "")]
        for one in (told if isinstance(told, list) else ()) if isinstance(one, Mapping)
    ]  # fmt: skip
    note = f"{len(rows) - _MOST_ROWS:,} more in result.json." if len(rows) > _MOST_ROWS else ""
    head = ["Site", "Came", "Written", "What, and why it changed nothing"]
    return Table("What the scenario had planned", head, rows[:_MOST_ROWS], note) if rows else None


def scenario_sentence(result: Mapping[str, Any]) -> str:
    """How much of a scenario came; nothing where there was none."""
    told = result.get("scenario")
    events = [one for one in told if isinstance(one, Mapping)] if isinstance(told, list) else []
    if not events:
        return ""
    came = sum(bool(one.get("happened")) for one in events)
    return f"It was played with a scenario, of which {came} of {plural(len(events), 'event')} came."


def _counted(epoch: int | None) -> str:
    return "–" if epoch is None else f"{epoch:,}"


def _steps(one: Happened) -> str:
    return "–" if one.step is None else f"{one.step:,}"


def _why(one: Happened) -> str:
    return " · ".join(line.strip() for line in one.reason.splitlines() if line.strip()) or "–"


def _after(one: Happened) -> str:
    return "–" if one.seconds is None else duration(one.seconds)


def timeline(found: Sequence[Happened], sites: Sequence[str], steps: int) -> str:
    """A line per site from its first step to its last, interrupted where it was away, with marks for faults.

    Args:
        found: the events.
        sites: all sites of the study.
        steps: of the study.
    """
    if not steps or all(one.event in _ROUTINE for one in found):
        return ""
    busy = {one.site for one in found if one.event not in _ROUTINE}
    shown = [site for site in sites if site in busy or len(sites) <= _MOST_LINES][:_MOST_LINES]
    if not shown:
        return ""
    left = 16 + _LETTER * max(min(len(site), _LONGEST) for site in shown)
    scale = Scale(0, steps, left, _WIDTH - 20)
    bottom = _TOP + _ROW * len(shown)
    ticks = scale.ticks(5)
    parts = [path([(scale(tick), _TOP), (scale(tick), bottom)], class_="grid") for tick in ticks]
    parts += [text(tick_label(tick, ticks), scale(tick), bottom + 16, text_anchor="middle") for tick in ticks]
    parts.append(text("step", _WIDTH - 20, bottom + 34, text_anchor="end", class_="label"))
    told = []
    for index, site in enumerate(shown):
        own = [one for one in found if one.site == site]
        y = _TOP + _ROW * (index + 0.5)
        name = site if len(site) <= _LONGEST else site[: _LONGEST - 1] + "…"
        parts.append(text(name, left - 10, y + 4, text_anchor="end"))
        stretches = presence(own, steps)
        parts += [
            element("rect", x=scale(a), y=y - 5, width=max(1.0, scale(b) - scale(a)), height=10, rx=2, class_="part0")
            for a, b in stretches
        ]
        parts += [_mark(one, scale(one.step or 0), y) for one in own if one.event not in (*_ROUTINE, *_UNMARKED)]
        there = ", ".join(f"{number(a)} to {number(b)}" for a, b in stretches) or "none"
        faults = [one.event for one in own if one.event not in (*_ROUTINE, *_COMES)]
        told.append(f"{site}: steps {there}" + (f" ({', '.join(faults[:5])})" if faults else ""))
    parts.append(
        _mark(None, left + 6, bottom + 33) + text("late, refused or failed", left + 16, bottom + 37, class_="label")
    )
    return figure(_WIDTH, bottom + 46, "When each site took part", "; ".join(told) + ".", "".join(parts))


def presence(own: Sequence[Happened], steps: int) -> list[tuple[int, int]]:
    """From which step to which a site took part, by its events; all steps where it never left."""
    stretches: list[tuple[int, int]] = []
    since: int | None = 0
    for one in own:
        step = min(one.step or 0, steps)
        if one.event in _GOES and since is not None:
            stretches.append((since, step))
            since = None
        elif one.event in _COMES and since is None:
            since = step
    never_joined = bool(own) and own[0].event == "refused" and not any(one.event in _COMES for one in own)
    if since is not None and not never_joined:
        stretches.append((since, steps))
    return [(a, b) for a, b in stretches if b > a]


def _mark(one: Happened | None, x: float, y: float) -> str:
    tip = "" if one is None else element("title", escape(f"{one.event}: {one.reason}" if one.reason else one.event))
    return element("path", tip, d=f"M{x - 5:.1f} {y:.1f}l5 -5 5 5 -5 5z", class_="fault")
