"""The report of k folds: their scores beside each other, mean, standard deviation and pooled value."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from weft.errors import RunDirectoryError
from weft.report.matrices import fold_chart
from weft.report.predictions import details
from weft.report.reading import RunFiles
from weft.report.sections import Table, facts, in_order
from weft.report.summary import plain_name
from weft.report.words import component_name, duration, label, number, plural, score
from weft.runs import RunDirectory

_MEASURES = ("mean", "standard_deviation", "pooled")
_MOST_FIGURES = 6


def fold_context(files: RunFiles) -> dict[str, Any]:
    """What the template of k folds shows."""
    results = {path.name: _result(files, path) for path in files.directory.folds()}
    by_split = summed_scores(files.summary)
    done = sum(result.get("status") == "finished" for result in results.values())
    finished = bool(results) and done == len(results) and bool(files.summary)
    context: dict[str, Any] = {
        "kind": f"Weft run of {plural(len(results), 'fold')}" if results else "Weft run of folds",
        "status": "finished" if finished else "unfinished",
        "summary": _sentences(files, by_split, done, len(results)),
        "facts": facts(files),
        "error": files.summary.get("error"),
        "tables": [_table(split, scores) for split, scores in by_split.items()],
        "figures": _figures(by_split, results),
        "folds": [_row(path, results[path.name]) for path in files.directory.folds()],
        "details": details(files.scores, {"validation": "out-of-fold"}),
        "fold_columns": ["Status", "Best epoch", "Epochs", "Duration"],
    }
    entries = [("tables", "scores", "Scores"), ("figures", "figures", "Fold by fold"), ("folds", "folds", "Folds")]
    entries.append(("details", "details", "Predictions"))
    origin = [("configuration", "Configuration", files.experiment_text), ("provenance", "Provenance", files.provenance)]
    context["contents"] = [(anchor, title) for key, anchor, title in entries if context[key]]
    context["contents"] += [(name, title) for name, title, there in origin if there] + [("reproduce", "Reproduce")]
    return context


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


def _table(split: str, scores: Mapping[str, Mapping[str, Any]]) -> Table:
    measures = [name for name in _MEASURES if any(name in value for value in scores.values())]
    rows = [[label(name), *(score(value.get(measure)) for measure in measures)] for name, value in scores.items()]
    caption = f"Over the folds, {split}" if split else "Over the folds"
    note = "Pooled: computed once over the predictions that each fold made for its held-out items."
    return Table(caption, ["Score", *(label(name) for name in measures)], rows, note if "pooled" in measures else "")


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
        found.append(fold_chart(title, points, value.get("mean")))
    return [figure for figure in found if figure]


def _fold_score(result: Mapping[str, Any], split: str, name: str) -> float | None:
    scores = (result.get("scores") or {}).get(split) or {}
    value = scores.get(name)
    return float(value) if isinstance(value, int | float) else None


def _row(path: Path, result: Mapping[str, Any]) -> dict[str, Any]:
    seconds = result.get("seconds")
    cells = [
        str(result.get("status") or "unfinished"),
        number(result.get("best_epoch")),
        number(result.get("epochs")),
        duration(seconds) if isinstance(seconds, int | float) else "–",
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
