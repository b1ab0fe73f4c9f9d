"""The report of k folds: their scores beside each other, mean, standard deviation and pooled value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from weft.errors import RunDirectoryError
from weft.report.bygroup import group_scores
from weft.report.intervals import Line, line_figure
from weft.report.judging import JudgedSplit, explained, judge
from weft.report.predictions import details, shown_groups
from weft.report.reading import RunFiles
from weft.report.sections import Table, facts, first_score, in_order
from weft.report.studyfolds import fold_tables
from weft.report.words import component_name, duration, label, number, plain_name, plural, score
from weft.runs import RunDirectory

_MEASURES = ("mean", "standard_deviation", "pooled")
_MOST_FIGURES = 6


def fold_context(files: RunFiles, by: Sequence[str] = ()) -> dict[str, Any]:
    """What the template of k folds shows."""
    results = {path.name: _result(files, path) for path in files.directory.folds()}
    by_split = summed_scores(files.summary)
    done = sum(result.get("status") == "finished" for result in results.values())
    finished = bool(results) and done == len(results) and bool(files.summary)
    judged = judge(files)
    pooled = judged.get("validation")
    names = _fold_scores(results)
    groups = group_scores(files, judged, by)
    what = "study" if is_study(files) else "run"
    context: dict[str, Any] = {
        "kind": f"Weft {what} of {plural(len(results), 'fold')}" if results else f"Weft {what} of folds",
        "status": "finished" if finished else "unfinished",
        "summary": _sentences(files, by_split, done, len(results)),
        "facts": facts(files),
        "error": files.summary.get("error"),
        "tables": [_table(split, scores, pooled) for split, scores in by_split.items()],
        "notes_on_scores": explained(judged, files.group_name),
        "sites": fold_tables(results),
        "figures": _figures(by_split, results),
        "folds": [_row(path, results[path.name], names) for path in files.directory.folds()],
        "details": details(files.scores, {"validation": "out-of-fold"}, judged, first_score(files)),
        "groups": shown_groups(groups),
        "fold_columns": [*(label(name) for name in names), "Best epoch", "Epochs", "Duration", "Status"],
    }
    entries = [
        ("tables", "scores", "Scores"),
        ("sites", "sites", "Sites"),
        ("figures", "figures", "Fold by fold"),
        ("folds", "folds", "Folds"),
    ]
    entries += [("details", "details", "Predictions"), ("groups", "groups", "Groups")]
    origin = [("configuration", "Configuration", files.experiment_text), ("provenance", "Provenance", files.provenance)]
    context["contents"] = [(anchor, title) for key, anchor, title in entries if context[key]]
    context["contents"] += [(name, title) for name, title, there in origin if there] + [("reproduce", "Reproduce")]
    return context


def is_study(files: RunFiles) -> bool:
    """Whether each fold is a study over several sites."""
    return isinstance(files.experiment.get("federation"), Mapping)


def summed_scores(summary: Mapping[str, Any]) -> dict[str, dict[str, dict[str, Any]]]:
    """Mean, standard deviation and pooled value by split and score.

    `summary.json` may give the scores of the out-of-fold items alone ({name: {"mean": …}}), or by split.
    """
    scores = summary.get("scores")
    if not isinstance(scores, dict):
        return {}
    flat = {name: value for name, value in scores.items() if isinstance(value, dict) and "mean" in value}
    nested = {name: value for name, value in scores.items() if isinstance(value, dict) and name not in flat}
    found = {"": flat} if flat else {}
    for split in in_order(nested):
        own = {name: value for name, value in nested[split].items() if isinstance(value, dict)}
        if own:
            found[split] = own
    return found


def _result(files: RunFiles, path: Path) -> dict[str, Any]:
    try:
        return RunDirectory(path).result() or {}
    except RunDirectoryError as error:
        files.notes.append(error.message)
        return {}


def _table(split: str, scores: Mapping[str, Mapping[str, Any]], judged: JudgedSplit | None) -> Table:
    """A row per score; with interval of the pooled value and the trivial model where the rows of cases tell them."""
    measures = [name for name in _MEASURES if any(name in value for value in scores.values())]
    pooled = judged if judged is not None and judged.intervals and "pooled" in measures else None
    rows = []
    for name, value in scores.items():
        cells = [label(name), *(score(value.get(measure)) for measure in measures)]
        if pooled is not None:
            if pooled.bounds.get(name):
                cells[-1] += f" ± {number(pooled.bounds[name])}"
            interval, trivial = pooled.interval(name), pooled.trivial.get(name)
            cells.append(f"[{score(interval.low)}, {score(interval.high)}]" if interval is not None else "–")
            cells.append(score(trivial))
        rows.append(cells)
    caption = f"Over the folds, {split}" if split else "Over the folds"
    note = "Pooled: computed once over the predictions that each fold made for its held-out items."
    head = [
        "Score",
        *(label(name) for name in measures),
        *(["95 % of pooled", "Trivial"] if pooled is not None else []),
    ]
    return Table(caption, head, rows, note if "pooled" in measures else "")


def _fold_scores(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The scores that the table of folds shows."""
    found = [name for result in results.values() for name in (result.get("scores") or {}).get("validation") or {}]
    return list(dict.fromkeys(found))[:_MOST_FIGURES]


def _figures(
    by_split: Mapping[str, Mapping[str, Mapping[str, Any]]], results: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    split = next((name for name in ("validation", "", "test", *by_split) if name in by_split), None)
    if split is None:
        return []
    found = []
    for name, value in list(by_split[split].items())[:_MOST_FIGURES]:
        points = [(fold, _fold_score(result, split or "validation", name)) for fold, result in results.items()]
        title = f"{label(name)}{f', {split}' if split else ''}"
        mean = value.get("mean")
        mark = (float(mean), "mean") if isinstance(mean, int | float) else None
        found.append(line_figure(title, [Line(*point) for point in points], mark=mark))
    return [figure for figure in found if figure]


def _fold_score(result: Mapping[str, Any], split: str, name: str) -> float | None:
    scores = (result.get("scores") or {}).get(split) or {}
    value = scores.get(name)
    return float(value) if isinstance(value, int | float) else None


def _row(path: Path, result: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    seconds = result.get("seconds")
    cells = [
        *(score(_fold_score(result, "validation", name)) for name in names),
        number(result.get("best_epoch")),
        number(result.get("epochs")),
        duration(seconds) if isinstance(seconds, int | float) else "–",
        str(result.get("status") or "unfinished"),
    ]
    link = f"{path.name}/report.html" if (path / "report.html").exists() else None
    return {"name": path.name, "link": link, "cells": cells}


def _sentences(files: RunFiles, by_split: Mapping[str, Any], done: int, folds: int) -> list[str]:
    model = component_name(files.experiment.get("model"))
    what = f"“{files.name}” trains {model} once per fold" if model else f"“{files.name}” is trained once per fold"
    told = [f"{what}: {done} of {plural(folds, 'fold')} {'is' if done == 1 else 'are'} finished."]
    split = next((name for name in ("", "validation", "test", *by_split) if name in by_split), None)
    if split is None:
        return told
    values = []
    for name, value in by_split[split].items():
        if name != "loss" and value.get("mean") is not None:
            spread = value.get("standard_deviation")
            around = f" ± {score(spread)}" if spread is not None else ""
            values.append(f"{plain_name(name)} {score(value['mean'])}{around}")
    if values:
        told.append(f"Over the folds (mean ± standard deviation): {', '.join(values[:4])}.")
    return told
