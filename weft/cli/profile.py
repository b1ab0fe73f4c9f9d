"""`weft profile`: where the time of training goes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from weft.cli.shared import Json, Set, everything_else_on_stderr, print_json

if TYPE_CHECKING:
    from weft.actions.profiling import Profile


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("profile")(profile)


def profile(
    source: Annotated[
        Path, typer.Argument(metavar="FILE|RUN", help="Experiment file, or run directory.", show_default=False)
    ],
    steps: Annotated[int, typer.Option("--steps", min=1, help="Number of optimizer steps that are measured.")] = 50,
    trace: Annotated[
        Path | None, typer.Option("--trace", help="Write a trace of ten steps, for chrome://tracing or Perfetto.")
    ] = None,
    processes: Annotated[
        int | None, typer.Option("--processes", "-p", min=1, help="Number of processes that train together.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write the result as JSON to this file.")] = None,
    overrides: Set = None,
    json: Json = False,
) -> None:
    """Train some steps, throw them away, and say where their time went: loading, forward, backward, optimizer, ...

    With a run directory, the result is kept there as profile.json and shown in its report.
    """
    from weft import actions
    from weft.engine.processes import find_place
    from weft.runs import write_json

    place = find_place()
    changes = [*(overrides or ()), *([f"run.processes={processes}"] if processes is not None else [])]
    with everything_else_on_stderr():
        found = actions.profile(source, changes, steps=steps, trace=trace)
    if out is not None and (place is None or place.first):
        write_json(out, found.as_dict())
    if not actions.reports():
        return
    if json:
        print_json(found.as_dict())
    else:
        _print(found)


def _print(found: Profile) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from weft.actions.advice import circumstances, epoch_words

    console = Console(highlight=False, soft_wrap=True)
    console.print(Text(circumstances(found)))
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("phase", no_wrap=True)
    for title in ("median ms", "90 % ms", "share"):
        table.add_column(title, justify="right", no_wrap=True)
    for name, phase in found.phases.items():
        cells = (f"{1000 * phase.median:.3f}", f"{1000 * phase.p90:.3f}", f"{phase.share:.0%}")
        table.add_row(name, *cells, style="bold" if name == "step" else "")
    console.print(table)
    for line in epoch_words(found):
        console.print(Text(line))
    for hint in found.hints:
        console.print(Text(f"→ {hint}", style="green"))
