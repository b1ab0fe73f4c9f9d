"""`weft report`: write the report of a run."""

from __future__ import annotations

import typer

from weft.cli.shared import Json, RunPath, print_json


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("report")(report)


def report(run: RunPath, json: Json = False) -> None:
    """Write RUN/report.html, one self-contained page, and print where it lies."""
    from weft.actions import report as action

    path = action(run)
    if json:
        print_json({"report": str(path)})
    else:
        typer.echo(str(path))
