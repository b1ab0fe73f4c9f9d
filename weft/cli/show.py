"""`weft show`: the experiment as Weft understands it, and its fingerprint."""

from __future__ import annotations

import typer

from weft.cli.shared import File, Json, Set, print_json


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("show")(show)


def show(file: File, overrides: Set = None, json: Json = False) -> None:
    """Check the experiment in FILE and print it with all defaults filled in, and its fingerprint.

    The fingerprint needs a digest of the data; it is taken where it was made before (by training), else the page says
    so.
    """
    from weft.actions import show as action

    shown = action(file, overrides or ())
    if json:
        print_json({"experiment": shown.experiment, "fingerprint": shown.fingerprint, "data_digest": shown.data_digest})
        return
    typer.echo(shown.yaml.rstrip())
    typer.echo(f"# fingerprint: {shown.fingerprint}" + ("" if shown.data_digest else " (data not digested)"))
