"""`weft reproduce`: train a run again and compare."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from weft.cli.shared import Base, Json, RunPath, Set, everything_else_on_stderr, print_json, with_settings


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("reproduce")(reproduce)


def reproduce(
    run: RunPath,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Directory of the new run; by default beside the old.")
    ] = None,
    base: Base = None,
    overrides: Set = None,
    json: Json = False,
) -> None:
    """Train RUN again from its own directory and compare weights, history and scores; exit code 1 when they differ."""
    from weft.actions import reproduce as action

    with everything_else_on_stderr():
        comparison = action(run, with_settings(overrides), out=out, base=base)
    if json:
        print_json(comparison.as_dict())
    else:
        for line in comparison.lines():
            typer.echo(line)
    if not comparison.identical:
        raise typer.Exit(1)
