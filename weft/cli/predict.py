"""`weft predict`: write what a trained network says about data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from weft.cli.shared import Base, Json, RunPath, Set, everything_else_on_stderr, print_json


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("predict")(predict)


def predict(
    run: RunPath,
    split: Annotated[str, typer.Option("--split", help="Split to predict.")] = "test",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder; by default RUN/predictions.")] = None,
    weights: Annotated[Path | None, typer.Option("--weights", "-w", help="Other weights than the run's.")] = None,
    base: Base = None,
    overrides: Set = None,
    json: Json = False,
) -> None:
    """Predict a split with the weights of a run; `--set dataset.table.test=new.csv` predicts new data.

    Classes and numbers go to one CSV per split, label maps to one .npy file per case. The table of new data needs no
    target columns. Prints what was written.
    """
    from weft.actions import predict as action

    with everything_else_on_stderr():
        files = action(run, overrides or (), split=split, out=out, weights=weights, base=base)
    if json:
        print_json({"files": [str(file) for file in files]})
        return
    for file in files:
        typer.echo(str(file))
