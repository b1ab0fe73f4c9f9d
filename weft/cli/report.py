"""`weft report`: write the reports of runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from weft.cli.shared import Json, looking, print_json
from weft.errors import WeftError


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("report")(report)


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run directories.", show_default=False)],
    by: Annotated[
        list[str] | None,
        typer.Option("--by", metavar="COLUMN", help="Show scores by a column of the data too; may be repeated."),
    ] = None,
    json: Json = False,
) -> None:
    """Write RUN/report.html of each run, one self-contained page, and print where it lies.

    `--by COLUMN` adds scores for each value of a column: one of the experiment's tables (sex, site, age), the data's
    group column, or one of the rows of cases. To see several runs beside each other: `weft compare`.
    """
    failures: list[WeftError] = []
    reports = []
    with looking():
        from weft.actions import report as action

        for run in runs:
            try:
                reports.append(str(action(run, by or ())))
            except WeftError as error:  # the others get theirs
                failures.append(error)
    if json:
        print_json({"reports": reports})
    else:
        for path in reports:
            typer.echo(path)
    for further in failures[1:]:
        typer.echo(f"error: {further}", err=True)
    if failures:
        raise failures[0]
