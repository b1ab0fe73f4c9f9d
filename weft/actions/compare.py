"""Runs beside each other: what differs, and whether their scores do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from weft.report.comparepage import write_comparison
from weft.report.comparison import RunComparison, compare_runs

__all__ = ["RunComparison", "compare"]


def compare(runs: Sequence[Path | str], *, split: str | None = None, html: Path | str | None = None) -> RunComparison:
    """Compare runs with the first of them: configuration, data, code, environment, and scores on the same cases.

    Args:
        runs: two or more run directories.
        split: whose scores are tested; by default test, else validation.
        html: where to write the comparison as a self-contained page; None writes none.

    Raises:
        RunDirectoryError: one of them is no run, or the page cannot be written.
        UsageError: fewer than two runs, or one was not scored on the split.
    """
    comparison = compare_runs([Path(run) for run in runs], split)
    if html is not None:
        write_comparison(comparison, Path(html))
    return comparison
