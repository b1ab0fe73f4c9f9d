"""`weft train`: train an experiment, or go on with a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from weft.cli.shared import Json, RunOut, Set, Settings, everything_else_on_stderr, print_json, with_settings
from weft.errors import UsageError


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("train")(train)


def train(
    source: Annotated[
        Path | None,
        typer.Argument(
            help="Experiment file (.yaml or .py); with --resume alone, a run directory.",
            metavar="FILE",
            show_default=False,
        ),
    ] = None,
    out: RunOut = None,
    resume: Annotated[
        bool, typer.Option("--resume", "-r", help="Go on with the run that was stopped, if there is one.")
    ] = False,
    processes: Annotated[
        int | None, typer.Option("--processes", "-p", min=1, help="Number of processes that train together.")
    ] = None,
    restarts: Annotated[
        int | None, typer.Option("--restarts", min=0, help="How often failed processes are started again.")
    ] = None,
    min_processes: Annotated[
        int | None,
        typer.Option("--min-processes", min=1, help="Fewest processes that restarts may go on with; see --restarts."),
    ] = None,
    debug: Annotated[
        bool, typer.Option("--debug", help="Log statistics of the first batches and of gradients.", show_default=False)
    ] = False,
    overrides: Set = None,
    json: Json = False,
) -> None:
    """Train the experiment in FILE. The last line of standard output is the run directory.

    `weft train --resume RUN` goes on with a run that was stopped or killed, exactly where it was saved.
    `weft train FILE --out RUN --resume` begins it where there is none yet: the same command until it succeeds.
    """
    from weft import actions
    from weft.actions.stopping import stoppable

    counts = {"run.processes": processes, "run.restarts": restarts, "run.min_processes": min_processes}
    changes = [
        *with_settings(overrides),
        *(["run.debug=true"] if debug else []),
        *(f"{key}={count}" for key, count in counts.items() if count is not None),
    ]
    with everything_else_on_stderr(), stoppable():  # also while torch is imported
        if source is None:
            raise UsageError("nothing to train is named", "weft train FILE, or weft train --resume RUN")
        if resume and out is None:
            if source.is_file():
                raise UsageError(
                    f"{source} is an experiment file: which of its runs shall be gone on with?",
                    f"weft train --resume RUN, or weft train {source} --out RUN --resume",
                )
            trained = actions.resume(source, changes)
        else:
            trained = actions.train(source, changes, out=out, resume=resume)
    if not actions.reports():
        return
    if json:
        print_json({"run": str(trained.path), **trained.result})
        return
    if not Settings.quiet:
        typer.echo(f"report: {trained.path / 'report.html'}", err=True)
    typer.echo(str(trained.path))
