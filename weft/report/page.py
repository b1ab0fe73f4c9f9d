"""The page: a run's files in, one self-contained HTML text out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import weft
from weft.report.bygroup import group_scores
from weft.report.curves import curves
from weft.report.folds import fold_context, is_study
from weft.report.judging import judge
from weft.report.phases import phase_figure, phases, profile_table, time_table
from weft.report.predictions import details, figures_of, shown_groups
from weft.report.reading import RunFiles, read_run
from weft.report.scoretable import score_figure, score_table, tiles, trivial_sentence
from weft.report.sections import data_tables, facts, first_score, history_table, provenance_rows
from weft.report.sites import own_curves
from weft.report.studypage import CONTENTS as STUDY_CONTENTS
from weft.report.studypage import study_commands, study_context
from weft.report.summary import reproduce_commands, summary
from weft.runs import study_of, write_atomically


def write_report(run_path: str | Path, target: str | Path | None = None, by: Sequence[str] = ()) -> Path:
    """Write the report of a run: one HTML file that needs nothing else, neither network nor scripts.

    Args:
        run_path: the run directory, of an ordinary run or of k folds; the run may still be going on.
        target: where to write; `report.html` of the run by default.
        by: columns (of the rows of cases, or of the experiment's tables) by whose values scores are shown too.

    Returns:
        the report's path.

    Raises:
        RunDirectoryError: there is no run, or the report cannot be written.
        UsageError: there is no such column.
    """
    files = read_run(Path(run_path))
    path = Path(target) if target is not None else files.directory.report
    write_atomically(path, render(files, by).encode("utf-8"))
    return path


def render(files: RunFiles, by: Sequence[str] = ()) -> str:
    """The report as HTML text."""
    if files.has_folds:
        template, context = "folds.html", fold_context(files, by)
    elif files.is_study:
        template, context = "study.html", study_context(files, by)
        context["contents"] = [one for one in STUDY_CONTENTS if context[one[0]]] + origin_contents(files)
    else:
        template, context = "run.html", run_context(files, by)
    figures = {name: figures_of(context[name]) for name in FIGURES if name in context}
    return page_text(template, frame_context(files) | context | figures)


FIGURES = (
    "curves", "figures", "score_figures", "time_figures", "site_figures", "byte_figures", "event_figures",
)  # fmt: skip


def page_text(template: str, context: Mapping[str, Any]) -> str:
    """A page of a template."""
    own = {"version": weft.__version__, "style": Markup(style_sheet())}  # our own file
    return _environment().get_template(template).render({**own, **context})


def run_context(files: RunFiles, by: Sequence[str] = ()) -> dict[str, Any]:
    """What the template of an ordinary run shows."""
    judged = judge(files)
    groups = group_scores(files, judged, by)
    spent = phases(files.history, files.result)
    best, study = files.result.get("best_epoch"), study_of(files.directory.path)
    context: dict[str, Any] = {
        "kind": "Site of a Weft study" if study is not None else "Weft run",
        "status": files.result.get("status") or "unfinished",
        "summary": [*_at_site(study), *summary(files, trivial_sentence(judged))],
        "facts": facts(files),
        "error": files.result.get("error"),
        "tiles": tiles(judged),
        "scores": score_table(judged, files.group_name),
        "score_figures": [score_figure(judged)],
        "curves": [
            *curves(files.history, files.steps, best if isinstance(best, int) else None),
            *own_curves(files, first_score(files)),
        ],
        "history": history_table(files.history),
        "details": details(files.scores, {"train": "training"}, judged, first_score(files)),
        "groups": shown_groups(groups),
        "data": data_tables(files.data),
        "time": time_table(spent, files.history, files.result.get("loading")),
        "profile": profile_table(files.profile),
        "time_figures": [phase_figure(spent)],
    }
    sections = [("scores", "Scores"), ("curves", "Training"), ("details", "Predictions"), ("groups", "Groups")]
    sections += [("data", "Data"), ("time", "Time")]
    context["contents"] = [entry for entry in sections if context[entry[0]]] + origin_contents(files)
    return context


def _at_site(study: Path | None) -> list[str]:
    """What to know of the run of a site."""
    if study is None:
        return []
    told = "Weights, best epoch and history are what all sites agreed on; scores and cases are those of its own items."
    return [f"One site of the study in {study}. {told}"]


def frame_context(files: RunFiles) -> dict[str, Any]:
    """What every report shows: name, notes, configuration, provenance, how to get it again."""
    packages = files.provenance.get("packages")
    listed = [f"{name}=={version}" for name, version in packages.items()] if isinstance(packages, dict) else []
    of_study = is_study(files) or study_of(files.directory.path) is not None
    return {
        "name": files.name,
        "written": datetime.now().strftime("%Y-%m-%d %H:%M"),
        "folder": files.directory.path,
        "notes": files.notes,
        "experiment": files.experiment_text,
        "provenance": provenance_rows(files.provenance, files.result),
        "packages": listed,
        "commands": study_commands(files) if of_study else reproduce_commands(files),
    }


def origin_contents(files: RunFiles) -> list[tuple[str, str]]:
    """Entries of the table of contents for the last sections."""
    entries = [
        ("configuration", "Configuration", files.experiment_text),
        ("provenance", "Provenance", files.provenance),
    ]
    return [(name, title) for name, title, there in entries if there] + [("reproduce", "Reproduce")]


@cache
def _environment() -> Environment:
    loader = PackageLoader("weft.report", "templates")
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


@cache
def style_sheet() -> str:
    source, _, _ = PackageLoader("weft.report", "templates").get_source(_environment(), "style.css")
    return source
