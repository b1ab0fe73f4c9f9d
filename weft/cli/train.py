"""`weft train`: train an experiment, or go on with a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from weft.cli.shared import Json, Set, print_json


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("train")(train)


def train(
    file: Annotated[Path | None, typer.Argument(help="Experiment file (.yaml or .py).", show_default=False)] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Run directory; by default a new one under runs/.")
    ] = None,
    resume: Annotated[Path | None, typer.Option("--resume", "-r", help="Go on with the run in this directory.")] = None,
    overrides: Set = None,
    json: Json = False,
) -> None:
    """Train the experiment in FILE. The last line of standard output is the run directory.

    `weft train --resume RUN` goes on with a run that was stopped or killed, exactly where it was saved.
    """
    from weft.actions import train as action

    trained = action(file, overrides or (), out=out, resume=resume)
    if json:
        print_json({"run": str(trained.path), **trained.result})
    else:
        typer.echo(str(trained.path))
