"""`weft compare`: runs beside each other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from weft.cli.shared import Json, looking, print_json


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("compare")(compare)


def compare(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN RUN...", help="Run directories, two or more.", show_default=False)
    ],
    split: Annotated[
        str | None, typer.Option("--split", help="Whose scores are tested. Default: test, else validation.")
    ] = None,
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write the comparison as a page.")] = None,
    json: Json = False,
) -> None:
    """Compare runs with the first of them: configuration, data, code, environment, and scores on the same cases.

    Differences in scores come with 95 % intervals and paired tests, corrected for their number.
    """
    with looking():
        from weft.actions import compare as action
        from weft.cli.comparing import lines

        comparison = action(runs, split=split, html=html)
    if json:
        print_json(comparison.as_dict())
        return
    for line in lines(comparison):
        typer.echo(line)
    if html is not None:
        typer.echo(f"\npage: {html}")
