"""The sites of a study over its folds: scores at each site, and the comparison."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean, stdev
from typing import Any

from weft.report.sections import Table
from weft.report.sites import MOST_SITES
from weft.report.words import label, score

_SPLIT = "validation"  # the items that a fold leaves out
_WAYS = {"study": "Study", "pooled": "One place", "alone": "Each alone"}


def fold_tables(results: Mapping[str, Mapping[str, Any]]) -> list[Table]:
    """Mean and standard deviation over the folds of each site's scores, and of the comparison.

    Args:
        results: result.json of each fold, by its name.
    """
    told = [result["sites"] for result in results.values() if isinstance(result.get("sites"), Mapping)]
    compared = [one["comparison"] for one in results.values() if isinstance(one.get("comparison"), Mapping)]
    return [table for table in (_sites(told), _comparison(compared)) if table is not None]


def _sites(told: list[Mapping[str, Any]]) -> Table | None:
    sites = sorted({str(name) for one in told for name in one})
    scores = {site: [_part(one.get(site), "scores", _SPLIT) for one in told if site in one] for site in sites}
    names = list(dict.fromkeys(name for own in scores.values() for part in own for name in part))
    if not names:
        return None
    rows = [
        [site, str(len(scores[site])), *(_spread([part.get(name) for part in scores[site]]) for name in names)]
        for site in sites[:MOST_SITES]
    ]
    note = "Mean ± standard deviation over the folds, of the items that each left out at the site."
    return Table("At each site, held-out items", ["Site", "Folds", *(label(name) for name in names)], rows, note)


def _comparison(told: list[Mapping[str, Any]]) -> Table | None:
    parts = {way: [_part(one, way, _SPLIT) for one in told] for way in _WAYS}
    names = list(dict.fromkeys(name for own in parts.values() for part in own for name in part))
    if not names:
        return None
    rows = [[label(name), *(_spread([part.get(name) for part in parts[way]]) for way in _WAYS)] for name in names]
    note = (
        "Mean ± standard deviation over the folds. One place: all data together, as many items in a step as all sites "
        "have. Each alone: every site's own model on its own items, counts added up."
    )
    return Table("The same folds, trained otherwise, held-out items", ["Score", *_WAYS.values()], rows, note)


def _part(value: object, *keys: str) -> Mapping[str, Any]:
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value if isinstance(value, Mapping) else {}


def _spread(values: list[Any]) -> str:
    found = [float(value) for value in values if isinstance(value, int | float)]
    if not found:
        return "–"
    return f"{score(fmean(found))} ± {score(stdev(found))}" if len(found) > 1 else score(found[0])
