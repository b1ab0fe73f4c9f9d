"""`weft predict`: write what a trained network says about data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from weft.cli.shared import RunPath, Set


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("predict")(predict)


def predict(
    run: RunPath,
    split: Annotated[str, typer.Option("--split", help="Split to predict.")] = "test",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder; by default RUN/predictions.")] = None,
    weights: Annotated[Path | None, typer.Option("--weights", "-w", help="Other weights than the run's.")] = None,
    overrides: Set = None,
) -> None:
    """Predict a split with the weights of a run; `--set dataset.table.test=new.csv` predicts new data.

    Class and numbers go to one CSV per split, label maps to one .npy file per case. Prints what was written.
    """
    from weft.actions import predict as action

    for path in action(run, overrides or (), split=split, out=out, weights=weights):
        typer.echo(str(path))
