"""Options and printing that commands share."""

from __future__ import annotations

import contextlib
import gc
import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Protocol, TypeVar

import typer

from weft.errors import EXIT_INTERRUPTED

RunPath = Annotated[Path, typer.Argument(help="Run directory.", show_default=False)]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", metavar="KEY=VALUE", help="Replace a value, e.g. training.optimizer.AdamW.lr=3e-4."),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]
RunOut = Annotated[Path | None, typer.Option("--out", "-o", help="Run directory; by default a new one under runs/.")]
Base = Annotated[
    Path | None,
    typer.Option("--base", help="Folder that relative paths of the data start from now, when they have moved."),
]


_SELDOM = 100_000  # objects made between two looks for garbage


class Settings:
    """Options of `weft` itself, given before the command."""

    traceback = False
    quiet = False
    original_name = False  # scorch-train's output is the original's, and nothing more


def with_settings(overrides: Sequence[str] | None) -> list[str]:
    """The overrides of a command that trains: `--quiet` shows no progress, unless that is asked for by name."""
    return [*(["run.progress=false"] if Settings.quiet else []), *(overrides or ())]


@contextlib.contextmanager
def everything_else_on_stderr() -> Iterator[None]:
    """What models, losses and libraries print goes to standard error: standard output is for the command's result."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


@contextlib.contextmanager
def looking() -> Iterator[None]:
    """For a command that looks, and then ends: what others print goes to standard error, and garbage is looked for
    seldom. Libraries and tables are a million objects that stay; going through them again and again costs a tenth of
    the command's time."""
    before = gc.get_threshold()
    gc.set_threshold(_SELDOM, *before[1:])
    try:
        with everything_else_on_stderr():
            yield
    except KeyboardInterrupt:
        typer.echo("interrupted: nothing half-written is left; give the command again", err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    finally:
        gc.set_threshold(*before)


class Verdict(Protocol):
    """What a command found out, and whether it is good."""

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        ...

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        ...


Found = TypeVar("Found", bound=Verdict)


def print_verdict(found: Found, show: Callable[[Found], None], *, json: bool) -> None:
    """Print what was found, for people or as JSON, and leave with exit code 1 where it is not good."""
    if json:
        print_json(found.as_dict())
    else:
        show(found)
    if not found.ok:
        raise typer.Exit(1)


def print_json(value: Any) -> None:
    """Print JSON; NaN and infinities become null, as JSON knows none."""
    typer.echo(json.dumps(_finite(value), indent=2, ensure_ascii=False, default=str))


def print_scores(scores: dict[str, dict[str, float]]) -> None:
    """Print scores as a table with a column per split."""
    splits = list(scores)
    names = list(dict.fromkeys(name for values in scores.values() for name in values))
    if not names:
        return
    width = max(len(name) for name in names)
    typer.echo(" " * width + "".join(f"{split:>13}" for split in splits))
    for name in names:
        cells = (scores[split].get(name) for split in splits)
        row = "".join(f"{'–' if cell is None or math.isnan(cell) else format(cell, '.4f'):>13}" for cell in cells)
        typer.echo(f"{name:<{width}}{row}")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
