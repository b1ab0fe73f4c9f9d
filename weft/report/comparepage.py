"""The comparison of runs as one self-contained page."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from weft.metrics.paired import PairedTest
from weft.report.charts import STYLES, Axes, Series, line_chart
from weft.report.comparingscores import ComparedScore, ScoreComparison
from weft.report.comparison import RunComparison
from weft.report.curves import column
from weft.report.intervals import Line, line_figure
from weft.report.page import page_text
from weft.report.predictions import figures_of
from weft.report.scoretable import ScoreCell
from weft.report.sections import Table, first_score, told
from weft.report.words import duration, label, listed, number, plain_name, plural, score, shortened
from weft.runs import TIMING_COLUMNS, DataChange, Difference, write_atomically

_MOST_CHARTS = 8
_MOST_LINES = 24  # runs in a figure
_NOT_CURVES = {"epoch", "step", "learning_rate", "skipped_steps", *TIMING_COLUMNS}
_FEW_RUNS = 4  # of which each has its own sentence
_MOST_COLUMNS = 6  # runs beside each other in a table; more are listed with each value
_FEW = 10  # names of files or cases


def write_comparison(comparison: RunComparison, target: Path) -> Path:
    """Write the comparison as a page that needs nothing else, and return its path.

    Raises:
        RunDirectoryError: it cannot be written.
    """
    write_atomically(target, page_text("compare.html", context_of(comparison, target)).encode("utf-8"))
    return target


def context_of(comparison: RunComparison, target: Path) -> dict[str, Any]:
    """What the template shows."""
    runs = comparison.runs
    sections = {
        "scores": score_rows(comparison.scores),
        "tests": tests_table(comparison),
        "curves": figures_of(curves(comparison)),
        "configuration": differences_table("Entries that differ", comparison.configuration, len(runs)),
        "data": data_lines(comparison),
        "code": code_parts(comparison),
        "environment": environment_parts(comparison),
    }
    titles = {
        "scores": "Scores", "curves": "Curves", "configuration": "Configuration", "data": "Data", "code": "Code",
        "environment": "Environment",
    }  # fmt: skip
    return {
        "name": " and ".join(run.name for run in runs)
        if len(runs) == 2
        else f"{runs[0].name} and {len(runs) - 1} more",
        "kind": "Weft comparison",
        "status": "",
        "summary": summary(comparison),
        "facts": [],
        "error": None,
        "notes": comparison.notes,
        "written": datetime.now().strftime("%Y-%m-%d %H:%M"),
        "folder": None,
        "runs": [_run_row(comparison, index, target) for index in range(len(runs))],
        "score_figures": figures_of(score_figures(comparison)),
        "reading": reading(comparison.scores),
        "contents": [("runs", "Runs"), *titles.items()],
        **sections,
    }


def _run_row(comparison: RunComparison, index: int, target: Path) -> dict[str, Any]:
    run = comparison.runs[index]
    report = comparison.files[index].directory.report
    link = os.path.relpath(report, target.absolute().parent).replace(os.sep, "/") if report.exists() else None
    cells = [
        run.model or "–",
        number(run.epochs),
        duration(run.seconds) if run.seconds is not None else "–",
        run.device or "–",
        run.status,
    ]
    return {"number": index + 1, "name": run.name, "link": link, "cells": cells}


def summary(comparison: RunComparison) -> list[str]:
    """The comparison in sentences."""
    areas = {
        "configuration": len(comparison.configuration),
        "code": len(comparison.code) + sum(map(len, comparison.patches)),
        "environment": len(comparison.environment),
    }
    differing = [
        f"{name} ({plural(count, 'entry')})".replace("entrys", "entries") for name, count in areas.items() if count
    ]
    if any(change.any for change in comparison.data):
        differing.insert(0, "data")
    first = comparison.runs[0].name
    sentences = [
        f"{plural(len(comparison.runs), 'run')}; all are compared with run 1, “{first}”. "
        + (f"They differ in {listed(differing)}." if differing else "Nothing that was recorded differs.")
    ]
    scores = comparison.scores
    if scores is None:
        return [*sentences, "No split was scored by all of them."]
    found = _each_run(scores) if len(comparison.runs) <= _FEW_RUNS else _counted(scores)
    if found:
        sentences.append(f"On the {scores.split} cases, {'; '.join(found)} (p < 0.05, corrected).")
    elif scores.tests:
        sentences.append(f"No difference in a score on the {scores.split} cases is larger than chance explains.")
    leaked = max((change.leaked for change in comparison.data), default=0)
    if leaked:
        sentences.append(
            f"Mind: {plural(leaked, 'case')} that one run learned from {'is' if leaked == 1 else 'are'} held out in "
            "another; scores on such cases cannot be compared."
        )
    return sentences


def _each_run(scores: ScoreComparison) -> list[str]:
    """`run 2 is better in accuracy by 0.01 and in F1 by 0.02`, of each run that differs."""
    found: dict[str, list[str]] = {}
    for one in scores.scores:
        for run, test in enumerate(one.tests):
            if test is not None and (verdict := one.verdict(run)):
                by = f"in {plain_name(one.name)} by {score(abs(test.difference))}"
                found.setdefault(f"run {run + 1} is {verdict}", []).append(by)
    return [f"{who} {listed(names)}" for who, names in found.items()]


def _counted(scores: ScoreComparison) -> list[str]:
    """`in accuracy 3 runs are better, most of all run 7, and 2 runs are worse`, of each score in which runs differ."""
    found = []
    for one in scores.scores:
        gains = {
            run: abs(test.difference) for run, test in enumerate(one.tests) if test and one.verdict(run) == "better"
        }
        worse = sum(one.verdict(run) == "worse" for run in range(len(one.tests)))
        parts = [f"{_are(len(gains))} better, most of all run {max(gains, key=gains.__getitem__) + 1}"] if gains else []
        parts += [f"{_are(worse)} worse"] if worse else []
        if parts:
            found.append(f"in {plain_name(one.name)} {', and '.join(parts)}")
    return found


def _are(runs: int) -> str:
    return f"{plural(runs, 'run')} {'is' if runs == 1 else 'are'}"


def score_rows(scores: ScoreComparison | None) -> dict[str, Any] | None:
    """The table of scores: a row per run, a column per score."""
    if scores is None:
        return None
    rows = []
    for run, cases in enumerate(scores.cases):
        cells = [_cell(one, run) for one in scores.scores]
        rows.append((run + 1, f"{cases:,}" if cases is not None else "–", cells))
    return {"split": scores.split, "names": [label(one.name) for one in scores.scores], "rows": rows}


def _cell(one: ComparedScore, run: int) -> ScoreCell:
    interval = one.intervals[run]
    ends = f"[{score(interval.low)}, {score(interval.high)}]" if interval is not None else ""
    return ScoreCell(score(one.values[run]), ends, one.verdict(run))


def tests_table(comparison: RunComparison) -> Table | None:
    """A row per test: difference from run 1, interval, p-values."""
    scores = comparison.scores
    if scores is None or not scores.tests:
        return None
    rows = []
    for one in scores.scores:
        for run, test in enumerate(one.tests):
            if test is not None:
                interval = between(test)
                name = f"{label(one.name)}, run {run + 1}"
                p, corrected = p_value(test.p), p_value(one.corrected[run])
                rows.append([name, signed(test.difference), interval, p, corrected, test.method])
    head = ["Score", "Difference from run 1", "95 %", "p", "p, Holm", "Test"]
    return Table(f"Paired tests, {scores.split}", head, rows)


def between(test: PairedTest) -> str:
    """The interval of a difference."""
    return f"[{signed(test.interval.low)}, {signed(test.interval.high)}]" if test.interval is not None else "–"


def signed(value: float) -> str:
    """A difference with its sign, in as many decimals as scores have."""
    plain = f"{value:.4f}" if 5e-5 <= abs(value) < 10 else score(value)
    return f"+{plain}" if value > 0 else plain.replace("-", "−")


def p_value(value: float | None) -> str:
    """A p-value as papers write it."""
    if value is None:
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def reading(scores: ScoreComparison | None) -> list[str]:
    """How to read scores and tests."""
    if scores is None:
        return []
    notes = []
    if scores.tests:
        drawn = "groups" if scores.grouped else "cases"
        notes.append(
            f"Brackets: 95 % bootstrap intervals over {drawn}. Tests are paired, on the same cases: McNemar's for "
            f"accuracy, randomisation of the answers to {drawn} for other scores, the bootstrap for scores of order. "
            f"Holm's correction is over all tests here: {scores.tests}."
        )
        notes.append(
            "The tests are about these trained networks and cases like these. How far another seed would move a score "
            "they do not tell: train each configuration with several seeds for that."
        )
    return [*notes, *scores.notes]


def score_figures(comparison: RunComparison) -> list[str]:
    """Each score of all runs on one scale."""
    scores = comparison.scores
    if scores is None:
        return []
    found = []
    for one in scores.scores[:_MOST_CHARTS]:
        lines = []
        for index, run in list(enumerate(comparison.runs))[:_MOST_LINES]:
            interval = one.intervals[index]
            low, high = (interval.low, interval.high) if interval is not None else (None, None)
            lines.append(Line(f"{index + 1} · {run.name}", one.values[index], low, high))
        first = one.values[0]
        mark = (first, "run 1") if first is not None else None
        found.append(line_figure(f"{label(one.name)}, {scores.split}", lines, mark=mark))
    return found


def curves(comparison: RunComparison) -> list[str]:
    """Losses and validation scores of all runs over each other."""
    histories = [files.history for files in comparison.files]
    names = list(dict.fromkeys(name for rows in histories for row in rows for name in row if name not in _NOT_CURVES))
    styles = _styles(comparison)
    found = []
    for name in names:
        series = []
        for index, rows in enumerate(histories):
            style = styles[index]
            series.append(Series(f"run {index + 1}" if style >= 0 else "", column(rows, name), style))
        series.sort(key=lambda one: one.style >= 0)  # those in the background first
        found.append(line_chart(_curve_title(name), series, Axes("epoch", whole_x=True)))
    return [drawing for drawing in found if drawing][:_MOST_CHARTS]


def _curve_title(name: str) -> str:
    for split in ("validation", "train"):
        if name.startswith(f"{split}_"):
            return f"{label(name.removeprefix(f'{split}_'))}, {'training' if split == 'train' else split}"
    return label(name)


def _styles(comparison: RunComparison) -> list[int]:
    """A style for each run; of many the first and the best have one, the others stay in the background."""
    count = len(comparison.runs)
    if count <= STYLES:
        return list(range(count))
    wanted = first_score(comparison.files[0])
    scores = comparison.scores.scores if comparison.scores is not None else []
    chosen = next((one for one in scores if one.name == wanted), scores[0] if scores else None)
    order = list(range(1, count))
    if chosen is not None:
        values, sign = chosen.values, -1.0 if chosen.mode == "max" else 1.0
        order.sort(key=lambda run: (values[run] is None, sign * (values[run] or 0.0)))
    shown = [0, *order[: STYLES - 1]]
    return [shown.index(run) if run in shown else -1 for run in range(count)]


def differences_table(caption: str, differences: Sequence[Difference], runs: int) -> Table | None:
    """A row per entry, a column per run; None where nothing differs."""
    if not differences:
        return None
    if runs > _MOST_COLUMNS:
        return Table(
            caption, ["Entry", "Values (runs)"], [[one.key, grouped(one.values, _shown)] for one in differences]
        )
    rows = [[one.key, *map(_shown, one.values)] for one in differences]
    return Table(caption, ["Entry", *(f"Run {number + 1}" for number in range(runs))], rows)


def grouped(values: Sequence[object], show: Callable[[object], str]) -> str:
    """Values with the runs that have them: `0.001 (1, 2), 0.01 (3)`."""
    runs: dict[str, list[str]] = {}
    for run, value in enumerate(values, start=1):
        runs.setdefault(show(value), []).append(str(run))
    return ", ".join(f"{value} ({', '.join(numbers)})" for value, numbers in runs.items())


def _shown(value: object) -> str:
    return "–" if value is None else told(shortened(value))


def environment_parts(comparison: RunComparison) -> dict[str, Any]:
    """Table of what differs, and of packages that not all runs had."""
    changed, partial = split_packages(comparison.environment)
    runs = len(comparison.runs)
    return {
        "table": differences_table("Entries that differ", changed, runs),
        "partial": differences_table("Packages that not all had", partial, runs),
    }


def split_packages(differences: Sequence[Difference]) -> tuple[list[Difference], list[Difference]]:
    """Entries that have other values, and packages that are missing in some runs: often many, seldom the cause."""
    partial = [one for one in differences if one.key.startswith("packages.") and None in one.values]
    return [one for one in differences if one not in partial], partial


def data_lines(comparison: RunComparison) -> list[tuple[str, list[str]]]:
    """(run, sentences) about the data of each run but the first."""
    return [
        (f"Run {index} · {comparison.runs[index - 1].name}", data_sentences(change))
        for index, change in enumerate(comparison.data, start=2)
    ]


def data_sentences(change: DataChange) -> list[str]:
    """How the data differ from those of run 1, in words."""
    digest = {True: "The content is the same.", False: "The content is not the same.", None: "Not digested."}
    told = [digest[change.same]]
    for what, names in (("changed", change.changed), ("added", change.added), ("removed", change.removed)):
        if names:
            told.append(f"{plural(len(names), 'file')} {what}: {_some(names)}.")
    if change.moved:
        told.append(f"{plural(len(change.moved), 'case')} in another split: {_some(change.moved, '; ')}.")
    if change.added_cases or change.removed_cases:
        told.append(
            f"{change.added_cases:,} cases that run 1 has not; {change.removed_cases:,} of run 1 are not in it."
        )
    if not change.any and change.same is not None:
        told.append("Every case is in the same split.")
    return told


def _some(names: Sequence[str], between: str = ", ") -> str:
    return between.join(names[:_FEW]) + (f"{between}…" if len(names) > _FEW else "")


def code_parts(comparison: RunComparison) -> dict[str, Any]:
    """Table of versions, files of Weft that differ, and the diffs of the user's files."""
    changes = []
    for index, (files, patches) in enumerate(zip(comparison.weft_files, comparison.patches), start=2):
        weft = f"{plural(len(files), 'file')} of Weft: {_some(files)}" if files else ""
        if weft or patches:
            title = f"Run {index} · {comparison.runs[index - 1].name}"
            changes.append({"title": title, "weft": weft, "patches": patches})
    table = differences_table("Entries that differ", comparison.code, len(comparison.runs))
    return {"table": table, "changes": changes}
