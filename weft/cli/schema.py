"""`weft schema`: the JSON schema of experiment files, for editors."""

from __future__ import annotations

import typer

from weft.cli.shared import print_json


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("schema")(schema)


def schema() -> None:
    """Print the JSON schema of experiment files; editors complete and check with it."""
    from weft.config import json_schema

    print_json(json_schema())
