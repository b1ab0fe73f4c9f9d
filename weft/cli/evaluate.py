"""`weft evaluate`: score weights on the splits of an experiment."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from weft.cli.shared import Base, Json, Set, everything_else_on_stderr, print_json, print_scores


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("evaluate")(evaluate)


def evaluate(
    source: Annotated[
        Path, typer.Argument(help="Run directory, or an experiment file with --weights.", show_default=False)
    ],
    weights: Annotated[Path | None, typer.Option("--weights", "-w", help="Weights file (.safetensors or .pt).")] = None,
    splits: Annotated[
        list[str] | None, typer.Option("--split", help="Split to score; may be repeated. Default: all.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for scores per split and case.")] = None,
    base: Base = None,
    overrides: Set = None,
    json: Json = False,
) -> None:
    """Score the weights of a run, or any weights with `--weights`; nothing is trained."""
    from weft.actions import evaluate as action

    with everything_else_on_stderr():
        evaluation = action(source, overrides or (), weights=weights, splits=splits, out=out, base=base)
    if json:
        print_json(evaluation)
    else:
        print_scores(evaluation["scores"])
