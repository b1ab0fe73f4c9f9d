"""`weft components`: what can be named in an experiment file."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from weft.cli.shared import Json, everything_else_on_stderr, print_json


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("components")(components)


def components(
    name: Annotated[
        str | None, typer.Argument(help="A component, or a kind: model, optimizer, loss, …", show_default=False)
    ] = None,
    patch: Annotated[list[Path] | None, typer.Option("--patch", help="Patch file to look into first.")] = None,
    json: Json = False,
) -> None:
    """List what can be named in an experiment file, or one component's arguments with their defaults."""
    from weft.actions import components as action

    with everything_else_on_stderr():  # patches are loaded
        listed = action(name, patch or ())
    if json:
        print_json([asdict(entry) for entry in listed])
        return
    detailed = name is not None and len({entry.name for entry in listed}) == 1
    kind = ""
    for entry in listed:
        if entry.kind != kind:
            kind = entry.kind
            typer.echo(f"{kind}:")
        arguments = ", ".join(
            argument.name if argument.required else f"{argument.name}={argument.default}"
            for argument in entry.arguments
        )
        typer.echo(f"  {entry.name}" if detailed else f"  {entry.name}({arguments})")
        if detailed:
            typer.echo("".join(f"    {line}\n" for line in (entry.summary, f"from {entry.path}") if line), nl=False)
            for argument in entry.arguments:
                default = "must be given" if argument.required else f"default {argument.default}"
                typer.echo(f"      {argument.name}: {argument.kind or 'anything'}, {default}")
