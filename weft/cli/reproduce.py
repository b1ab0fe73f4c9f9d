"""`weft reproduce`: train a run again and compare."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from weft.cli.shared import Json, RunPath, print_json


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("reproduce")(reproduce)


def reproduce(
    run: RunPath,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Directory of the new run; by default beside the old.")
    ] = None,
    json: Json = False,
) -> None:
    """Train RUN again from its own directory and compare weights, history and scores; exit code 1 when they differ."""
    from weft.actions import reproduce as action

    comparison = action(run, out=out)
    if json:
        print_json(comparison.as_dict())
    else:
        for line in comparison.lines():
            typer.echo(line)
    if not comparison.identical:
        raise typer.Exit(1)
