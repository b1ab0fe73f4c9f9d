"""Options and printing that commands share."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any

import typer

File = Annotated[Path, typer.Argument(help="Experiment file (.yaml or .py).", show_default=False)]
RunPath = Annotated[Path, typer.Argument(help="Run directory.", show_default=False)]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", metavar="KEY=VALUE", help="Replace a value, e.g. training.optimizer.AdamW.lr=3e-4."),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]


def print_json(value: Any) -> None:
    """Print JSON; NaN and infinities become null, as JSON knows none."""
    typer.echo(json.dumps(_finite(value), indent=2, ensure_ascii=False, default=str))


def print_scores(scores: dict[str, dict[str, float]]) -> None:
    """Print scores as a table with a column per split, on standard error: standard output is for scripts."""
    splits = list(scores)
    names = list(dict.fromkeys(name for values in scores.values() for name in values))
    if not names:
        return
    width = max(len(name) for name in names)
    typer.echo(" " * width + "".join(f"{split:>13}" for split in splits), err=True)
    for name in names:
        cells = (scores[split].get(name) for split in splits)
        row = "".join(f"{'–' if cell is None or math.isnan(cell) else format(cell, '.4f'):>13}" for cell in cells)
        typer.echo(f"{name:<{width}}{row}", err=True)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
