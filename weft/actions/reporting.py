"""The report of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from weft.report import write_report
from weft.runs import RunDirectory


def report(run: Path | str, by: Sequence[str] = ()) -> Path:
    """Write the report of a run and return its path.

    Args:
        run: the run directory.
        by: columns (of the rows of cases, or of the experiment's tables) by whose values scores are shown too.

    Raises:
        RunDirectoryError: there is no run.
        UsageError: there is no such column.
    """
    return write_report(RunDirectory.open(run).path, by=by)
