"""`weft show`: the experiment as Weft understands it, and its fingerprint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from weft.cli.shared import Json, Set, everything_else_on_stderr, print_json


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("show")(show)


def show(
    file: Annotated[Path, typer.Argument(help="Experiment file (.yaml or .py), or run directory.", show_default=False)],
    overrides: Set = None,
    json: Json = False,
) -> None:
    """Check the experiment in FILE and print it with all defaults filled in, and its fingerprint.

    The fingerprint needs a digest of the data; it is taken where it was made before (by training), else the page says
    so.
    """
    from weft.actions import show as action

    with everything_else_on_stderr():  # patches are loaded
        shown = action(file, overrides or ())
    if json:
        print_json({"experiment": shown.experiment, "fingerprint": shown.fingerprint, "data_digest": shown.data_digest})
        return
    typer.echo(shown.yaml.rstrip())
    if shown.fingerprint is None:
        typer.echo("# no fingerprint yet: training.batch_size is found when training begins")
        return
    typer.echo(f"# fingerprint: {shown.fingerprint}" + ("" if shown.data_digest else " (data not digested)"))
