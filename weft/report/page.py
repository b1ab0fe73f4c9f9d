"""The page: a run's files in, one self-contained HTML text out."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import weft
from weft.report.curves import curves
from weft.report.folds import fold_context
from weft.report.predictions import details, figures_of
from weft.report.reading import RunFiles, read_run
from weft.report.sections import (
    data_tables,
    facts,
    final_scores,
    history_table,
    provenance_rows,
    score_table,
)
from weft.report.summary import main_split, reproduce_commands, summary
from weft.report.words import label, score
from weft.runs import write_atomically

_MOST_TILES = 4


def write_report(run_path: str | Path, target: str | Path | None = None) -> Path:
    """Write the report of a run: one HTML file that needs nothing else, neither network nor scripts.

    Args:
        run_path: the run directory, of an ordinary run or of k folds; the run may still be going on.
        target: where to write; `report.html` of the run by default.

    Returns:
        the report's path.

    Raises:
        RunDirectoryError: there is no run, or the report cannot be written.
    """
    files = read_run(Path(run_path))
    path = Path(target) if target is not None else files.directory.report
    write_atomically(path, render(files).encode("utf-8"))
    return path


def render(files: RunFiles) -> str:
    """The report as HTML text."""
    template, context = ("folds.html", fold_context(files)) if files.has_folds else ("run.html", run_context(files))
    figures = {name: figures_of(context[name]) for name in ("curves", "figures") if name in context}
    return _environment().get_template(template).render(frame_context(files) | context | figures)


def run_context(files: RunFiles) -> dict[str, Any]:
    """What the template of an ordinary run shows."""
    scores = final_scores(files)
    best = files.result.get("best_epoch")
    context: dict[str, Any] = {
        "kind": "Weft run",
        "status": files.result.get("status") or "unfinished",
        "summary": summary(files),
        "facts": facts(files),
        "error": files.result.get("error"),
        "tiles": tiles(scores),
        "scores": score_table(scores),
        "curves": curves(files.history, files.steps, best if isinstance(best, int) else None),
        "history": history_table(files.history),
        "details": details(files.scores, {"train": "training"}),
        "data": data_tables(files.data),
    }
    sections = [("scores", "Scores"), ("curves", "Training"), ("details", "Predictions"), ("data", "Data")]
    context["contents"] = [entry for entry in sections if context[entry[0]]] + origin_contents(files)
    return context


def frame_context(files: RunFiles) -> dict[str, Any]:
    """What every report shows: name, notes, configuration, provenance, how to get it again."""
    packages = files.provenance.get("packages")
    listed = [f"{name}=={version}" for name, version in packages.items()] if isinstance(packages, dict) else []
    return {
        "name": files.name,
        "version": weft.__version__,
        "style": Markup(_style()),  # our own file
        "written": datetime.now().strftime("%Y-%m-%d %H:%M"),
        "folder": files.directory.path,
        "notes": files.notes,
        "experiment": files.experiment_text,
        "provenance": provenance_rows(files.provenance, files.result),
        "packages": listed,
        "commands": reproduce_commands(files),
    }


def origin_contents(files: RunFiles) -> list[tuple[str, str]]:
    """Entries of the table of contents for the last sections."""
    entries = [
        ("configuration", "Configuration", files.experiment_text),
        ("provenance", "Provenance", files.provenance),
    ]
    return [(name, title) for name, title, there in entries if there] + [("reproduce", "Reproduce")]


def tiles(scores: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str]]:
    """The scores that stand large on top: those of the split that tells most."""
    split = main_split(scores)
    if split is None:
        return []
    values = [(name, value) for name, value in scores[split].items() if value is not None]
    first = [entry for entry in values if entry[0] != "loss"] + [entry for entry in values if entry[0] == "loss"]
    return [(f"{label(name)}, {split}", score(value)) for name, value in first[:_MOST_TILES]]


@cache
def _environment() -> Environment:
    loader = PackageLoader("weft.report", "templates")
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


@cache
def _style() -> str:
    source, _, _ = PackageLoader("weft.report", "templates").get_source(_environment(), "style.css")
    return source
