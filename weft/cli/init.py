"""`weft init`: start a project."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer

from weft.cli.shared import Json, Settings, everything_else_on_stderr, looking, print_json, with_settings


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("init")(init)


def init(
    name: Annotated[Path, typer.Argument(help="Folder of the project; new, or empty.", show_default=False)],
    template: Annotated[
        Literal["tabular", "classification", "segmentation"],
        typer.Option(
            "--template", "-t", help="What it begins with: a table, images of classes, images with label maps."
        ),
    ] = "tabular",
    train: Annotated[bool, typer.Option("--train", help="Train it at once.", show_default=False)] = False,
    json: Json = False,
) -> None:
    """Write a complete small project into a new folder NAME: experiment, data, own code, notebook, tests, CI, README.

    It trains at once on data that come with it. The last line of standard output is the folder, or with --train the
    run directory.
    """
    with looking():
        from weft.actions import start_project

        folder = start_project(name, template)
    if not train:
        if json:
            print_json({"project": str(folder), "template": template})
            return
        if not Settings.quiet:
            typer.echo(
                f"next: cd {shlex.quote(str(name))}; weft check experiment.yaml; weft train experiment.yaml", err=True
            )
        typer.echo(str(folder))
        return
    from weft.actions import train as action

    with everything_else_on_stderr():
        trained = action(folder / "experiment.yaml", with_settings(None))
    if json:
        print_json({"project": str(folder), "template": template, "run": str(trained.path), **trained.result})
        return
    if not Settings.quiet:
        typer.echo(f"report: {trained.path / 'report.html'}", err=True)
    typer.echo(str(trained.path))
