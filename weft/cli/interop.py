"""`weft interop`: what runs other systems' code."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from weft.cli.shared import Settings, everything_else_on_stderr
from weft.errors import EXIT_INTERRUPTED

group = typer.Typer(name="interop", help="Run code that was written for other systems.", no_args_is_help=True)
coinstac = typer.Typer(name="coinstac", help="Computations written for coinstac-dinunet.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    coinstac.command("simulate")(simulate)
    coinstac.command("compspec")(compspec)
    group.add_typer(coinstac)
    app.add_typer(group)


def simulate(
    folder: Annotated[
        Path,
        typer.Argument(
            help="Folder with inputspec.json and input/localN/simulatorRun.", metavar="DIR", show_default=False
        ),
    ],
    local: Annotated[Path, typer.Option("--local", help="Script of the sites.", show_default=False)],
    remote: Annotated[Path, typer.Option("--remote", help="Script of the remote.", show_default=False)],
    alias: Annotated[
        bool, typer.Option("--alias", help="Let the scripts say `import coinstac_dinunet`, unchanged.")
    ] = False,
    persistent: Annotated[
        bool, typer.Option("--persistent", help="One process per node, called again and again.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", "-r", help="Go on with a computation that was stopped.")] = False,
) -> None:
    """Play COINSTAC's pipeline over DIR. The last line of standard output is the folder of what was written.

    Each call of a site or of the remote is a process of its own, as in COINSTAC, with JSON on its standard input and
    output; files between them are moved from transfer to base directories. With --persistent a script has a function
    `run(data)` or starts a service; one that has neither is run again and again in one process.
    """

    def watch(iteration: int, phase: str) -> None:
        if not Settings.quiet and (phase != "computation" or iteration % 50 == 0):
            typer.echo(f"round {iteration}: {phase}", err=True)

    def tell(line: str) -> None:
        if not Settings.quiet:
            typer.echo(line, err=True)

    with everything_else_on_stderr():
        from weft.interop.coinstac.simulator import simulate as action

        try:
            output = action(
                folder, local, remote, alias=alias, persistent=persistent, resume=resume, watch=watch, tell=tell
            )
        except KeyboardInterrupt:
            typer.echo("interrupted: go on with the same command and --resume", err=True)
            raise typer.Exit(EXIT_INTERRUPTED) from None
    typer.echo(str(output))


def compspec(
    scripts: Annotated[
        list[Path], typer.Argument(help="The computation's scripts.", metavar="SCRIPT...", show_default=False)
    ],
    name: Annotated[str, typer.Option("--name", help="What people see.")] = "computation",
    image: Annotated[str, typer.Option("--image", help="The container's image; by default made of the name.")] = "",
    folder: Annotated[
        Path | None,
        typer.Option("--values", help="Folder whose inputspec.json gives default values.", metavar="DIR"),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to write.")] = Path("compspec.json"),
) -> None:
    """Write a compspec.json that asks for every argument that the scripts use. They are read, not run."""
    from weft.interop.coinstac import compspec as written
    from weft.interop.coinstac.simulator import read_inputspec

    values = next(iter(read_inputspec(folder).values())) if folder is not None else None
    spec = written.compspec(scripts, name=name, image=image, inputspec=values)
    out.write_text(written.dumps(spec), encoding="utf-8")
    typer.echo(str(out))
