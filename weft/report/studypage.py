"""The report of a study: several sites that trained one model."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from weft.report.bygroup import group_scores
from weft.report.curves import curves
from weft.report.events import (
    event_sentence,
    event_table,
    happened,
    scenario_sentence,
    scenario_table,
    timeline,
)
from weft.report.judging import judge
from weft.report.predictions import details, shown_groups
from weft.report.reading import RunFiles
from weft.report.scoretable import score_figure, score_table, tiles, trivial_sentence
from weft.report.sections import Table, facts, final_scores, first_score, history_table
from weft.report.sitecosts import byte_figure, byte_tables, bytes_sentence, memory_table, time_figure, time_table
from weft.report.sites import (
    class_table,
    contributions,
    items_of,
    judge_sites,
    site_curves,
    site_figures,
    site_scores,
    spread_sentence,
)
from weft.report.studyfiles import StudyFiles, read_study
from weft.report.summary import main_split, summary
from weft.report.words import component_name, label, listed, plain_name, plural, score
from weft.runs import mask_arguments, study_of

_WAYS = {"study": "Study", "pooled": "One place", "alone": "Each alone"}
_MOST_NAMED = 8


def study_context(files: RunFiles, by: Sequence[str] = ()) -> dict[str, Any]:
    """What the template of a study shows."""
    study = read_study(files)
    judged = judge(files)
    groups = group_scores(files, judged, by) if by else []
    split, first = main_split(final_scores(files)), first_score(files)
    sites = judge_sites(study, split) if split is not None else {}
    pooled = judged.get(split or "")
    comparison = files.result.get("comparison")
    comparison = comparison if isinstance(comparison, Mapping) else {}
    alone = comparison.get("alone_by_site")
    planned = scenario_table(files.result)
    events = [one for one in happened(study.events) if planned is None or one.event != "missed"]  # told there
    best, steps = files.result.get("best_epoch"), files.result.get("steps")
    there = split is not None and pooled is not None
    context: dict[str, Any] = {
        "kind": "Weft study",
        "status": files.result.get("status") or "unfinished",
        "summary": _sentences(study, split, sites, first, trivial_sentence(judged), event_sentence(events)),
        "facts": [("Sites", _count(study)), *_strategy(study), *facts(files)],
        "error": files.result.get("error"),
        "tiles": tiles(judged),
        "scores": score_table(judged, files.group_name),
        "score_figures": [score_figure(judged)],
        "sites": contributions(study),
        "classes": class_table(study),
        "site_scores": site_scores(study, split, pooled, sites, first) if split and pooled else None,
        "site_figures": site_figures(split or "", pooled, sites, alone if isinstance(alone, Mapping) else {}, first)
        if there and pooled is not None
        else [],
        "comparison": comparison_tables(study, comparison, split, first),
        "curves": [
            *curves(files.history, files.steps, best if isinstance(best, int) else None),
            *site_curves(study, first),
        ],
        "history": history_table(files.history),
        "details": details(files.scores, {"train": "training"}, judged, first),
        "groups": shown_groups(groups),
        "bytes": byte_tables(study),
        "byte_figures": [byte_figure(study)],
        "time": [table for table in (time_table(study), memory_table(study)) if table is not None],
        "time_figures": [time_figure(study)],
        "events": [table for table in (event_table(events), planned) if table is not None],
        "event_figures": [timeline(events, study.names, steps if isinstance(steps, int) else _last_step(events))],
    }
    return context


CONTENTS = [
    ("scores", "Scores"), ("sites", "Sites"), ("comparison", "Comparison"), ("curves", "Training"),
    ("events", "Events"), ("bytes", "Messages"), ("time", "Time"), ("details", "Predictions"), ("groups", "Groups"),
]  # fmt: skip


def _count(study: StudyFiles) -> str:
    there, planned = len(study.told), len(study.names)
    return str(there) if there >= planned else f"{there} of {planned}"


def _last_step(events: Sequence[Any]) -> int:
    return max((one.step or 0 for one in events), default=0)


def _strategy(study: StudyFiles) -> list[tuple[str, str]]:
    name = component_name(study.federation.get("strategy"))
    rounds = study.federation.get("steps_per_round")
    return (
        [("Strategy", f"{name}, rounds of {plural(rounds, 'step')}" if isinstance(rounds, int) else name)]
        if name
        else []
    )


def _sentences(
    study: StudyFiles, split: str | None, sites: Mapping[str, Any], first: str | None, trivial: str, faults: str
) -> list[str]:
    told = summary(study.files, trivial, what=_what(study))
    about = [spread_sentence(sites, split, first) if split else "", _compared(study, split, first), faults,
             scenario_sentence(study.files.result)]  # fmt: skip
    return [*told, *(sentence for sentence in (*about, bytes_sentence(study)) if sentence)]


def _what(study: StudyFiles) -> str:
    files, names = study.files, list(study.told)
    model, task = component_name(files.experiment.get("model")), component_name(files.training.get("task"))
    strategy = component_name(study.federation.get("strategy"))
    items = {
        split: sum(items_of(study, name).get(split, 0) for name in names) for split in ("train", "validation", "test")
    }
    sizes = [
        f"{plural(count, f'{split} item')}".replace("train item", "training item")
        for split, count in items.items()
        if count
    ]
    named = f" ({listed(names)})" if len(names) <= _MOST_NAMED else ""
    tested = bool(files.result.get("tested"))
    told = f"“{files.name}” {'tests' if tested else 'trains'} {model or 'a model'}" + (f" for {task}" if task else "")
    told += f" at {plural(len(names), 'site')}{named}" + (f" by {strategy}" if strategy and not tested else "")
    return told + (f", on {listed(sizes)} in all" if sizes else "") + "."


def _compared(study: StudyFiles, split: str | None, first: str | None) -> str:
    """What training in one place and each site alone reach, in a sentence."""
    values = {way: _value(study.files.result.get("comparison"), way, split, first) for way in _WAYS}
    if first is None or values["study"] is None or (values["pooled"] is None and values["alone"] is None):
        return ""
    others = []
    if values["pooled"] is not None:
        others.append(f"training with all data in one place {score(values['pooled'])}")
    if values["alone"] is not None:
        others.append(f"each site alone, on its own items, {score(values['alone'])}")
    return (
        f"Where the study reaches {plain_name(first)} {score(values['study'])}, {' and '.join(others)} ({split} items)."
    )


def _value(comparison: object, way: str, split: str | None, name: str | None) -> float | None:
    for key in (way, split, name):
        comparison = comparison.get(key) if isinstance(comparison, Mapping) else None
    return float(comparison) if isinstance(comparison, int | float) else None


def comparison_tables(
    study: StudyFiles, comparison: Mapping[str, Any], split: str | None, first: str | None
) -> list[Table]:
    """The study beside training in one place and each site alone: all scores, and the first one site by site."""
    if split is None or not comparison:
        return []
    names = list(dict.fromkeys(name for way in _WAYS for name in _scores(comparison.get(way), split)))
    rows = [[label(name), *(score(_value(comparison, way, split, name)) for way in _WAYS)] for name in names]
    note = (
        "One place: all data together, as many items in a step as all sites have. Each alone: every site's own model "
        "on its own items, counts added up. The same splits and, where the strategy allows it, the same first weights."
    )
    if study.federation.get("pretraining") is not None:
        note += " Each of these began with pretraining, too, on the items that it has."
    tables = [Table(f"The same splits, trained otherwise, {split}", ["Score", *_WAYS.values()], rows, note)]
    alone = comparison.get("alone_by_site")
    if not isinstance(alone, Mapping) or first is None:
        return tables
    shown = [first, *(name for name in names if name not in (first, "loss"))][:3]
    rows = []
    for site, told in study.told.items():
        if site in alone:
            own = _scores(told.get("scores"), split)
            pairs = [(own.get(name), _value(alone, site, split, name)) for name in shown]
            rows.append([site, *(cell for pair in pairs for cell in (score(pair[0]), score(pair[1])))])
    head = ["Site", *(f"{label(name)}, {way}" for name in shown for way in ("study", "alone"))]
    return [*tables, Table(f"At each site, {split}", head, rows)] if rows else tables


def _scores(told: object, split: str) -> Mapping[str, Any]:
    part = told.get(split) if isinstance(told, Mapping) else None
    return part if isinstance(part, Mapping) else {}


def study_commands(files: RunFiles) -> list[tuple[str, str]]:
    """(what it does, command) to go on with a study, or to have it again; also for one of its sites."""
    path, found = shlex.quote(str(study_of(files.directory.path) or files.directory.path)), []
    if files.result.get("resume"):
        found.append(("Go on where the study stopped", str(files.result["resume"])))
    original, base = files.provenance.get("command"), files.provenance.get("base")
    if isinstance(original, list) and original:
        command = shlex.join(mask_arguments([str(part) for part in original]))
        where = f", in {base}" if base else ""
        found.append((f"The command that started this study{where}", command))
    found.append(
        ("After running it again into NEW, another directory: compare weights and scores", f"weft compare {path} NEW")
    )
    return found
