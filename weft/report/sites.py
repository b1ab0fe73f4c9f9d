"""The sites of a study: what they have, what they contribute, how good the model is at each, and their curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import Any

from weft.report.charts import STYLES, Axes, Series, line_chart
from weft.report.curves import column
from weft.report.intervals import Line, line_figure
from weft.report.judging import JudgedSplit, judge_split
from weft.report.reading import RunFiles, read_case_table
from weft.report.scoretable import ScoreCell, score_cell
from weft.report.sections import SPLITS, Table
from weft.report.studyfiles import StudyFiles
from weft.report.svg import extent
from weft.report.words import label, plain_name, plural, score
from weft.runs import Row

MOST_SITES = 200  # of a table
MOST_DRAWN = 30  # of a figure
_MOST_JUDGED = 60  # sites whose scores get intervals: each takes a moment
_MOST_SCORES = 8
_MOST_FIGURES = 4
_WORDS = {"train": "training"}


@dataclass(frozen=True, slots=True)
class SiteRow:
    """A line of a table of sites; `link` leads to the site's own report, where there is one."""

    name: str
    link: str | None
    cells: list[ScoreCell]


@dataclass(frozen=True, slots=True)
class SiteTable:
    """A table of sites: caption, names of the columns, lines, how to read it."""

    caption: str
    head: list[str]
    rows: list[SiteRow]
    note: str = ""


def items_of(study: StudyFiles, site: str) -> dict[str, int]:
    """Numbers of a site's items by split, of the study's result, else of the site's summary of its data."""
    told = study.told[site].get("items")
    data = study.sites[site].data if site in study.sites else {}
    splits = data.get("splits")
    if isinstance(told, Mapping):
        found = dict(told)
    elif isinstance(splits, Mapping):
        found = {name: part.get("items") for name, part in splits.items() if isinstance(part, Mapping)}
    else:
        found = {}
    return {str(name): count for name, count in found.items() if isinstance(count, int)}


def contributions(study: StudyFiles) -> SiteTable | None:
    """Items by split, share of what was trained on, and steps taken part in."""
    names = list(study.told)
    if not names:
        return None
    items = {name: items_of(study, name) for name in names}
    splits = [split for split in SPLITS if any(split in one for one in items.values())]
    trained = {name: _trained(study, name) for name in names}
    seen = sum(one["items"] for one in trained.values())
    steps = study.files.result.get("steps") or max((one["steps"] for one in trained.values()), default=0)
    rows = []
    for name in names[:MOST_SITES]:
        own = trained[name]
        cells = [f"{items[name].get(split, 0):,}" for split in splits]
        if seen:
            share, part = own["items"] / seen, own["steps"] / steps if steps else 0.0
            cells += [f"{own['items']:,}", f"{share:.1%}", f"{own['steps']:,} ({part:.0%})"]
        rows.append(site_row(study, name, cells))
    head = ["Site", *(f"{label(_WORDS.get(split, split))} items" for split in splits)]
    head += ["Trained on", "Weight", "Steps with items"] if seen else []
    note = (
        f"Trained on: each item as often as it was seen. Weight: the site's share of these. The study took "
        f"{plural(steps, 'step')}; a site counts nothing in a step in which it has no batch left, or takes no part."
    )
    return SiteTable("What the sites contribute", head, rows, _left_out(names, note if seen else ""))


def _trained(study: StudyFiles, name: str) -> dict[str, int]:
    told = study.told[name].get("trained")
    if isinstance(told, Mapping):
        return {key: int(told.get(key) or 0) for key in ("items", "steps")}
    rows = study.spent.get(name, [])  # of a study that has not ended
    return {key: sum(int(row.get(key, 0)) for row in rows) for key in ("items", "steps")}


def site_row(study: StudyFiles, name: str, cells: Sequence[str | ScoreCell]) -> SiteRow:
    """A line of a table of sites."""
    there = name in study.sites and study.sites[name].directory.report.exists()
    link = f"sites/{name}/report.html" if there else None
    return SiteRow(name, link, [cell if isinstance(cell, ScoreCell) else ScoreCell(cell) for cell in cells])


def _left_out(names: Sequence[str], note: str = "") -> str:
    left = len(names) - MOST_SITES
    return f"{note} {plural(left, 'more site')}, in result.json.".strip() if left > 0 else note


def class_table(study: StudyFiles) -> Table | None:
    """Training items of each class at each site: how unlike the sites are."""
    counts: dict[str, dict[str, int]] = {}
    for name, site in study.sites.items():
        splits = site.data.get("splits")
        part = splits.get("train") if isinstance(splits, Mapping) else None
        found = part.get("class_counts") if isinstance(part, Mapping) else None
        if isinstance(found, Mapping):
            counts[name] = {str(key): value for key, value in found.items() if isinstance(value, int)}
    classes = list(dict.fromkeys(key for one in counts.values() for key in one))
    if not classes or len(classes) > 30:
        return None
    rows = []
    for name, own in list(counts.items())[:MOST_SITES]:
        total = sum(own.values())
        cells = [f"{own.get(key, 0):,} ({own.get(key, 0) / total:.0%})" if total else "0" for key in classes]
        rows.append([name, *cells])
    return Table("Classes among the training items", ["Site", *classes], rows)


def judge_sites(study: StudyFiles, split: str) -> dict[str, JudgedSplit]:
    """The scores of each site's own items, with intervals where its rows of cases are here."""
    found = {}
    for number, (name, told) in enumerate(study.told.items()):
        scores = told.get("scores")
        own = scores.get(split) if isinstance(scores, Mapping) else None
        if isinstance(own, Mapping):
            found[name] = JudgedSplit(dict(own))
            if name in study.sites and number < _MOST_JUDGED:
                read_case_table(study.sites[name], split)
                found[name] = judge_split(study.sites[name], split, own)
    return found


def site_scores(
    study: StudyFiles, split: str, pooled: JudgedSplit, judged: Mapping[str, JudgedSplit], first: str | None
) -> SiteTable | None:
    """Scores of each site beside the pooled ones."""
    names = shown_scores(judged, first)
    if not names:
        return None
    rows = [
        SiteRow("All sites", None, [ScoreCell(_cases(study, split)), *(score_cell(pooled, name) for name in names)])
    ]
    for site, one in list(judged.items())[:MOST_SITES]:
        count = items_of(study, site).get(split)
        cells = [ScoreCell(f"{count:,}" if count is not None else "–"), *(score_cell(one, name) for name in names)]
        rows.append(site_row(study, site, cells))
    head = ["Site", "Items", *(label(name) for name in names)]
    note = "Of all sites: from counts over all items, not means of the sites' scores."
    least = study.federation.get("minimum_cells")
    if isinstance(least, int) and least > 1:
        note += f" –, also where a site has fewer than {least} items of a class: of these it tells no bins."
    return SiteTable(f"Scores at each site, {split}", head, rows, _left_out(list(judged), note))


def shown_scores(judged: Mapping[str, JudgedSplit], first: str | None) -> list[str]:
    """Scores to show, the one that tells most first, the loss last."""
    names = dict.fromkeys(name for one in judged.values() for name in one.scores)
    return sorted(names, key=lambda name: (name == "loss", name != first))[:_MOST_SCORES]


def _cases(study: StudyFiles, split: str) -> str:
    return f"{sum(items_of(study, site).get(split, 0) for site in study.told):,}"


def site_figures(
    split: str, pooled: JudgedSplit, judged: Mapping[str, JudgedSplit], alone: Mapping[str, Any], first: str | None
) -> list[str]:
    """Each score over the sites, with intervals, and what a site alone reaches where that is known."""
    found = []
    for name in shown_scores(judged, first)[:_MOST_FIGURES]:
        lines = []
        for site, one in list(judged.items())[:MOST_DRAWN]:
            interval = one.interval(name)
            low, high = (interval.low, interval.high) if interval is not None else (None, None)
            lines.append(Line(site, _number(one.scores.get(name)), low, high, _alone(alone, site, split, name)))
        overall = _number(pooled.scores.get(name))
        mark = (overall, "all sites") if overall is not None else None
        other = "site alone" if any(line.other is not None for line in lines) else ""
        title = f"{label(name)} at each site, {split}{first_of(judged)}"
        ends = extent(
            part for line in lines for part in (line.value, line.low, line.high, line.other) if part is not None
        )
        within = (0.0, 1.0) if ends is not None and 0 <= ends[0] <= ends[1] <= 1 else None  # where most scores live
        found.append(line_figure(title, lines, mark=mark, within=within, other=other))
    return [figure for figure in found if figure]


def first_of(sites: Sized) -> str:
    """For the title of a figure that cannot show all sites."""
    return f" (the first {MOST_DRAWN} of {len(sites)})" if len(sites) > MOST_DRAWN else ""


def _alone(alone: Mapping[str, Any], site: str, split: str, name: str) -> float | None:
    own = alone.get(site)
    part = own.get(split) if isinstance(own, Mapping) else None
    return _number(part.get(name)) if isinstance(part, Mapping) else None


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def site_curves(study: StudyFiles, first: str | None) -> list[str]:
    """Training loss, validation loss and the score that tells most: pooled, and at each site."""
    own = {name: site.own for name, site in study.sites.items()}
    return _curves(study.files.history, own, first, "at each site")


def own_curves(files: RunFiles, first: str | None) -> list[str]:
    """The same of one site: its own curve beside that of all sites."""
    return _curves(files.history, {"this site": files.own}, first, "here and at all sites")


def _curves(history: Sequence[Row], own: Mapping[str, Sequence[Row]], first: str | None, where: str) -> list[str]:
    wanted = [("train_loss", "Training loss"), ("validation_loss", "Validation loss")]
    if first is not None:
        wanted.append((f"validation_{first}", f"{label(first)}, validation"))
    found = []
    for name, title in wanted:
        sites = {site: column(rows, name) for site, rows in own.items()}
        drawn = {site: points for site, points in sites.items() if extent(y for _, y in points)}
        if drawn:
            found.append(_curve_figure(f"{title}, {where}", history, name, drawn))
    return [figure for figure in found if figure]


def _curve_figure(title: str, history: Sequence[Row], name: str, sites: Mapping[str, Any]) -> str:
    """With few sites a curve of each; with many the pooled one, the others in the background."""
    few = len(sites) < STYLES
    series = [Series("" if not few else site, points, index + 1 if few else -1)
              for index, (site, points) in enumerate(sites.items())]  # fmt: skip
    pooled = Series("all sites", column(history, name), 0)
    whole = extent(x for x, _ in column(history, "epoch", "epoch"))
    axes = Axes("epoch", x_range=whole, whole_x=True)
    return line_chart(title, [pooled, *series] if few else [*series, pooled], axes)


def spread_sentence(judged: Mapping[str, JudgedSplit], split: str, first: str | None) -> str:
    """At which sites the model does best and worst."""
    values = {
        site: value for site, one in judged.items() if (value := _number(one.scores.get(first or ""))) is not None
    }
    if len(values) < 2 or first is None:
        return ""
    low, high = min(values, key=lambda site: values[site]), max(values, key=lambda site: values[site])
    if values[low] == values[high]:
        return f"Its {plain_name(first)} is {score(values[low])} at every site ({split} items)."
    ends = f"from {score(values[low])} at {low} to {score(values[high])} at {high}"
    return f"Site by site its {plain_name(first)} goes {ends} ({split} items)."
