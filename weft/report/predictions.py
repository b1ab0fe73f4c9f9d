"""What a split's scores show beyond their values: confusion matrix, curves, tables per class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import unescape
from typing import Any

from markupsafe import Markup

from weft.report.bygroup import GroupScores
from weft.report.caselists import case_figures, extreme_cases
from weft.report.curves import detail_figures
from weft.report.judging import JudgedSplit
from weft.report.matrices import confusion_matrix, confusions, read_confusion
from weft.report.sections import Table, detail_tables, in_order
from weft.report.summary import main_split
from weft.report.words import label


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure with its title."""

    title: str
    svg: Markup


def details(
    scores: Mapping[str, Mapping[str, Any]],
    names: Mapping[str, str],
    judged: Mapping[str, JudgedSplit],
    first_score: str | None,
) -> list[dict[str, Any]]:
    """Matrix, curves, tables and cases of each split, the one that tells most first.

    Args:
        scores: contents of scores/<split>.json.
        names: what splits are called, where it is not their own name.
        judged: the splits with their rows of cases.
        first_score: the score that cases are ordered by where they have several.
    """
    first = main_split(scores)
    order = [name for name in in_order(scores) if name != first]
    found = []
    for split in [first, *order] if first else []:
        word, content = names.get(split, split), scores[split].get("details")
        part = split_details(word, content if isinstance(content, dict) else {})
        one = judged.get(split)
        if one is not None and one.rescored is not None:
            part["curves"] += figures_of(case_figures(one.rescored, first_score, word))
            part["cases"] = extreme_cases(one.rescored, first_score)
        if any(part[key] for key in ("matrix", "confusions", "curves", "tables", "cases")):
            found.append(part)
    return found


def split_details(word: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """Matrix, curves and tables of one split, called `word`."""
    confusion = read_confusion(content)
    matrix, worst = "", []
    if confusion is not None:
        matrix = confusion_matrix(f"Confusion matrix, {word}", *confusion)
        worst = confusions(*confusion)
    rows = [[one.truth, one.prediction, f"{one.count:,}", f"{one.share:.1%}"] for one in worst]
    head = ["True class", "Predicted", "Times", "Of the class"]
    return {
        "title": f"{label(word)} items",
        "matrix": next(iter(figures_of([matrix])), None),
        "confusions": Table("Most frequent mistakes", head, rows) if rows else None,
        "curves": figures_of(detail_figures(content, word)),
        "tables": list(detail_tables(content)),
        "cases": [],
    }


def figures_of(drawings: Sequence[str]) -> list[Figure]:
    """Drawings with the titles that they carry; our own markup, whose texts were escaped when it was made."""
    found = []
    for drawing in drawings:
        if drawing:
            title = drawing.split("<title>", 1)[1].split("</title>", 1)[0]
            found.append(Figure(unescape(title), Markup(drawing)))
    return found


def shown_groups(groups: Sequence[GroupScores]) -> list[dict[str, Any]]:
    """Tables of scores by group with their figures."""
    return [{"table": group.table, "figures": figures_of([group.figure])} for group in groups]
