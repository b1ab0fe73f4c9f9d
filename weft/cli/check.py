"""`weft check`: look at an experiment and its data before training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from weft.cli.shared import Json, Set, looking, print_verdict

if TYPE_CHECKING:
    from rich.console import Console

    from weft.actions.checking import CheckReport

_STYLES = {"error": "bold red", "warning": "yellow", "note": "cyan"}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("check")(check)


def check(
    file: Annotated[Path, typer.Argument(help="Experiment file (.yaml or .py).", show_default=False)],
    overrides: Set = None,
    thorough: Annotated[
        bool, typer.Option("--thorough", help="Look at every item, however long it takes.", show_default=False)
    ] = False,
    json: Json = False,
) -> None:
    """Look at the experiment in FILE, its data and its first steps; exit code 1 when there are errors.

    Nothing is trained or written. Every finding says what, where, the evidence, and what to do. Of a study, the data of
    each site are looked at, what sets the sites apart, and what each would send.
    """
    with looking():
        from weft.federated.checking import check as action

        report = action(file, overrides or (), thorough=thorough)
    print_verdict(report, _print, json=json)


def _print(report: CheckReport) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from weft.actions.checking.estimates import words

    console = Console(highlight=False)
    if report.study:
        _print_sites(console, report)
    else:
        _print_splits(console, report)
    for line in words(report.estimates):
        console.print(Text(f"simulated in one process, {line}" if report.study else line))
    for what, why in report.left_out.items():
        console.print(Text(f"left out: {what} ({why})"))
    if report.findings:
        table = Table(box=None, pad_edge=False, header_style="bold", show_lines=False, padding=(0, 2, 1, 0))
        table.add_column("severity", no_wrap=True)
        table.add_column("where", ratio=1, overflow="fold")
        table.add_column("finding", ratio=3, overflow="fold")
        for one in report.findings:
            told = Text(f"{one.check}: ", style="bold").append(one.message, style="not bold")
            if one.remedy:
                told.append(f"\n→ {one.remedy}", style="not bold green")
            table.add_row(Text(one.severity, style=_STYLES[one.severity]), Text(one.where), told)
        console.print()
        console.print(table)
    counts = ", ".join(f"{amount} {word}{'' if amount == 1 else 's'}" for word, amount in report.counts.items())
    console.print(Text(f"{report.name}: {counts}, in {report.seconds:.1f} s"))


def _print_splits(console: Console, report: CheckReport) -> None:
    from rich.text import Text

    for split, seen in report.looked_at.items():
        shapes = ", ".join("×".join(map(str, shape)) or "1" for facts in seen["inputs"] for shape in facts["shapes"])
        console.print(Text(f"{split}: {seen['looked_at']:,} of {seen['items']:,} items looked at, inputs {shapes}"))


def _print_sites(console: Console, report: CheckReport) -> None:
    from rich.table import Table
    from rich.text import Text

    from weft.federated.checking.words import SPLITS, rows_of_sites, words_of_study

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("site", overflow="fold")
    for name in (*SPLITS, "inputs", "batches", "sends"):
        table.add_column(name, justify="right", overflow="fold")
    for row in rows_of_sites(report):
        table.add_row(*map(Text, row))
    console.print(table)
    for line in words_of_study(report):
        console.print(Text(line))
