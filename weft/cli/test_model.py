"""`weft test-model`: properties that a network should have."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from weft.cli.shared import Json, Set, looking, print_verdict

if TYPE_CHECKING:
    from weft.actions.checking import ModelReport

_STYLES = {"passed": "green", "failed": "bold red", "skipped": "yellow"}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("test-model")(run)


def run(
    source: Annotated[
        Path, typer.Argument(metavar="RUN|FILE", help="Run directory, or experiment file.", show_default=False)
    ],
    overrides: Set = None,
    json: Json = False,
) -> None:
    """Test the network of a run with its weights, or of an experiment as initialised; exit code 1 when a test fails.

    Finite parameters, shapes, gradients, samples that do not mix, determinism, overfitting, saving, low precision.
    """
    with looking():
        from weft.actions import test_model as action

        report = action(source, overrides or ())
    print_verdict(report, _print, json=json)


def _print(report: ModelReport) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for title in ("result", "test", "evidence"):
        table.add_column(title, overflow="fold", no_wrap=title == "result")
    for test in report.tests:
        told = Text(test.message)
        if test.remedy:
            told.append(f"\n→ {test.remedy}", style="green")
        table.add_row(Text(test.status, style=_STYLES[test.status]), Text(test.name), told)
    console.print(table)
    failed = sum(test.status == "failed" for test in report.tests)
    console.print(
        Text(f"{report.name}, {report.parameters:,} parameters: {failed} of {len(report.tests)} tests failed")
    )
