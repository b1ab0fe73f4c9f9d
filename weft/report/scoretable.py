"""The final scores: table, tiles, figure and the sentences below them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from weft.metrics.names import KNOWN
from weft.metrics.recipes import split_key
from weft.report.intervals import Line, line_figure
from weft.report.judging import JudgedSplit, count_of, explained, no_better
from weft.report.summary import main_split
from weft.report.words import label, listed, number, plain_name, score

_MOST_TILES = 4
_MOST_LINES = 12


@dataclass(frozen=True, slots=True)
class ScoreCell:
    """A score in the table, with its interval, the trivial model's value and how far bins may be off, as text; empty
    where there are none.
    """

    value: str
    interval: str = ""
    trivial: str = ""
    bound: str = ""


@dataclass(frozen=True, slots=True)
class ScoreTable:
    """The final scores.

    Args:
        splits: (name, number of cases) of each column.
        rows: (score, cell per split).
        notes: how to read it.
    """

    splits: list[tuple[str, str]]
    rows: list[tuple[str, list[ScoreCell]]]
    notes: list[str]


def score_table(judged: Mapping[str, JudgedSplit], group_name: str) -> ScoreTable | None:
    """A row per score, a column per split."""
    if not judged:
        return None
    names = dict.fromkeys(name for one in judged.values() for name in one.scores)
    rows = [(label(name), [score_cell(one, name) for one in judged.values()]) for name in names]
    splits = [(label(split), count_of(one)) for split, one in judged.items()]
    return ScoreTable(splits, rows, explained(judged, group_name))


def score_cell(one: JudgedSplit, name: str) -> ScoreCell:
    """A score of a split as it stands in tables; empty where it has none."""
    if name not in one.scores:
        return ScoreCell("")
    interval, trivial = one.interval(name), one.trivial.get(name)
    return ScoreCell(
        score(one.scores[name]),
        f"[{score(interval.low)}, {score(interval.high)}]" if interval is not None else "",
        score(trivial) if trivial is not None else "",
        f"± {number(bound)}" if (bound := one.bounds.get(name)) else "",
    )


def tiles(judged: Mapping[str, JudgedSplit]) -> list[tuple[str, ScoreCell]]:
    """The scores that stand large on top: those of the split that tells most."""
    split = main_split(judged)
    if split is None:
        return []
    one = judged[split]
    values = [(name, value) for name, value in one.scores.items() if value is not None]
    first = [entry for entry in values if entry[0] != "loss"] + [entry for entry in values if entry[0] == "loss"]
    return [(f"{label(name)}, {split}", score_cell(one, name)) for name, _ in first[:_MOST_TILES]]


def score_figure(judged: Mapping[str, JudgedSplit]) -> str:
    """The scores between 0 and 1 of the split that tells most, with intervals and trivial values."""
    split = main_split(judged)
    if split is None or not judged[split].intervals:
        return ""
    one = judged[split]
    lines = []
    for name, value in one.scores.items():
        if isinstance(value, int | float) and 0 <= value <= 1 and _is_share(name):
            interval = one.interval(name)
            low, high = (interval.low, interval.high) if interval is not None else (None, None)
            lines.append(Line(label(name), float(value), low, high, one.trivial.get(name)))
    if len(lines) < 2:  # the table says as much
        return ""
    other = "trivial model" if any(line.other is not None for line in lines) else ""
    return line_figure(f"Scores with 95 % intervals, {split}", lines[:_MOST_LINES], within=(0.0, 1.0), other=other)


def _is_share(name: str) -> bool:
    """Whether a score has 0 and 1 for ends."""
    known, _ = split_key(name)
    return (
        known in KNOWN
        and KNOWN[known].family in ("confusion", "ranking", "top_k", "surface")
        and mode_of(name) == "max"
    )


def mode_of(name: str) -> str | None:
    """Which direction of a score is better: "min", "max", or None where the name does not tell."""
    known, _ = split_key(name)
    return KNOWN[known].mode if known in KNOWN else None


def trivial_sentence(judged: Mapping[str, JudgedSplit]) -> str:
    """What the trivial model reaches, and whether the network is better, in a sentence."""
    split = main_split(judged)
    if split is None or not judged[split].trivial:
        return ""
    one = judged[split]
    modes = {name: mode_of(name) for name in one.scores}
    asked = [name for name in one.scores if name != "loss" and name in one.trivial]
    if not asked:
        return ""
    values = listed([f"{plain_name(name)} {score(one.trivial[name])}" for name in asked[:2]])
    comma = "," if ", " in one.rule else ""
    told = f"A trivial model that {one.rule}{comma} would reach {values} there."
    equal = no_better(one, asked, modes)
    if equal and all(math.isfinite(one.trivial[name]) for name in equal):
        told += f" In {listed([plain_name(name) for name in equal])} the network is not clearly better than that."
    return told
