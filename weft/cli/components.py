"""`weft components`: what can be named in an experiment file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from weft.cli.shared import Json, print_json


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("components")(components)


def components(
    name: Annotated[str | None, typer.Argument(help="A component, or a kind: model, optimizer, loss, …", show_default=False)] = None,
    patch: Annotated[list[Path] | None, typer.Option("--patch", help="Patch file to look into first.")] = None,
    json: Json = False,
) -> None:
    """List what can be named in an experiment file, or one component's arguments with their defaults."""
    from weft.actions import components as action

    listed = action(name, patch or ())
    if json:
        print_json([entry.as_dict() for entry in listed])
        return
    kind = ""
    for entry in listed:
        if entry.kind != kind:
            kind = entry.kind
            typer.echo(f"\n{kind}:" if name is None else f"{kind}:")
        typer.echo(f"  {entry.name}{entry.signature}")
        if entry.summary and (name is not None and len(listed) <= 3):
            typer.echo(f"      {entry.summary}")
