"""The final scores of each split judged: confidence intervals, and what a trivial model reaches."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from weft.metrics.caseterms import BINS, Layout
from weft.metrics.resampling import Interval, draw, intervals, make_units
from weft.metrics.rescoring import Rescored, rescore
from weft.metrics.trivial import trivial_model
from weft.report.reading import RunFiles
from weft.report.sections import final_scores
from weft.report.words import listed, plain_name, plural

_TINY = 1e-12  # rounding, not a score


@dataclass(slots=True)
class JudgedSplit:
    """The scores of a split.

    Args:
        scores: by name; None where undefined.
        rescored: the scores that follow from the rows of cases; None without rows.
        groups: the group of each case, None where there are none.
        intervals: the interval of each score, or why it has none.
        rule: what the trivial model does.
        trivial: its scores.
        bounds: how far a score may be off that came from bins.
    """

    scores: dict[str, Any]
    rescored: Rescored | None = None
    groups: list[str] | None = None
    intervals: dict[str, Interval | str] = field(default_factory=dict)
    rule: str = ""
    trivial: dict[str, float] = field(default_factory=dict)
    bounds: dict[str, float] = field(default_factory=dict)

    def interval(self, name: str) -> Interval | None:
        """The interval of a score, if it has one."""
        found = self.intervals.get(name)
        return found if isinstance(found, Interval) else None


def judge(files: RunFiles) -> dict[str, JudgedSplit]:
    """Judge every split of a run that has scores."""
    judged = {}
    for split, scores in final_scores(files).items():
        judged[split] = judge_split(files, split, scores)
    return judged


def judge_split(files: RunFiles, split: str, scores: Mapping[str, Any]) -> JudgedSplit:
    """Judge the scores of one split."""
    table = files.cases.get(split)
    result = JudgedSplit(dict(scores), bounds=dict(files.bounds.get(split) or {}))
    if table is None:
        return result
    numbers = {name: value for name, value in scores.items() if value is None or isinstance(value, int | float)}
    result.rescored = rescore(table, numbers, layout_of(files, split), files.bounds.get(split))
    result.groups = files.groups_of(split)
    result.intervals = intervals(result.rescored, draw(make_units(len(table), result.groups)))
    training = files.cases.get("train") or (table if files.has_folds else None)
    trivial = trivial_model(result.rescored, training) if training is not None else None
    if trivial is not None:
        result.rule = trivial.rule
        result.trivial = {
            name: 0.0 if abs(value) < _TINY else value
            for name, value in trivial.scores().items()
            if math.isfinite(value)
        }
    return result


def layout_of(files: RunFiles, split: str) -> Layout:
    """What the columns of a split's rows mean; classes are in the order of the confusion matrix."""
    details = files.scores.get(split, {}).get("details")
    details = details if isinstance(details, dict) else {}
    matrix, calibration = details.get("confusion_matrix"), details.get("calibration")
    labels = matrix.get("labels") if isinstance(matrix, dict) else None
    edges = calibration.get("edges") if isinstance(calibration, dict) else None
    bins = len(edges) - 1 if isinstance(edges, list) and len(edges) > 1 else BINS
    return Layout.of(files.cases[split], [str(label) for label in labels] if isinstance(labels, list) else None, bins)


def explained(judged: Mapping[str, JudgedSplit], group_name: str) -> list[str]:
    """How to read the intervals and the trivial scores; which scores have none, and why."""
    told = []
    first = [one for one in judged.values() if one.intervals]
    if any(one.interval(name) for one in first for name in one.scores):
        resamples = max(interval.resamples for one in first for name in one.scores if (interval := one.interval(name)))
        drawn = f"groups ({group_name})" if any(one.groups for one in first) else "cases"
        told.append(
            f"In brackets the 95 % confidence interval: {resamples:,} bootstrap resamples of {drawn}. It tells how far "
            "the score depends on these cases, not how far training again with another seed would move it."
        )
    if any(bound for one in judged.values() for bound in one.bounds.values()):
        told.append(
            "±: how far a score from bins may be off: predictions do not leave a site, counts of them do. An interval "
            "is that of the exact score; where bins are coarse, the score from them may lie outside."
        )
    rules = dict.fromkeys(one.rule for one in judged.values() if one.trivial)
    told += [f"Trivial: what a model reaches that {rule}." for rule in rules]
    told += _without(judged)
    return told


def _without(judged: Mapping[str, JudgedSplit]) -> list[str]:
    """Scores without an interval, by reason."""
    reasons: dict[str, dict[str, list[str]]] = {}
    for split, one in judged.items():
        for name, found in one.intervals.items():
            if isinstance(found, str):
                reasons.setdefault(found, {}).setdefault(plain_name(name), []).append(split)
    if not any(one.intervals for one in judged.values()):
        return []
    told = []
    for reason, names in reasons.items():
        each = [
            name if len(splits) == len(judged) else f"{name} ({', '.join(splits)})" for name, splits in names.items()
        ]
        told.append(f"Without interval: {listed(each)}; {reason}.")
    return told


def no_better(judged: JudgedSplit, names: Sequence[str], modes: Mapping[str, str | None]) -> list[str]:
    """Scores in which the trivial model is as good, as far as the interval can tell."""
    found = []
    for name in names:
        mode, trivial, interval = modes.get(name), judged.trivial.get(name), judged.interval(name)
        if mode is None or trivial is None or interval is None:
            continue
        if interval.low <= trivial if mode == "max" else interval.high >= trivial:
            found.append(name)
    return found


def count_of(judged: JudgedSplit) -> str:
    """`85 cases`, or `85 cases in 12 groups`."""
    if judged.rescored is None:
        return ""
    groups = f" in {plural(len(set(judged.groups)), 'group')}" if judged.groups else ""
    return plural(len(judged.rescored), "case") + groups
