"""`weft federate profile`: what the sites of a study take, also while it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from weft.cli.shared import Json, Settings, looking, print_json
from weft.errors import UsageError


def profile(
    study: Annotated[Path, typer.Argument(help="Directory of a study, or of one fold of it.", show_default=False)],
    json: Json = False,
) -> None:
    """Show what each site of a study took so far: computing, waiting, messages, bytes, memory.

    The rows are those of `profile.csv`, which grows by one for every site and epoch; ask again while the study runs.
    In a simulation, waiting is how long a site would have waited for the slowest, had all computed at once.
    """
    with looking():
        from weft.report.reading import read_run
        from weft.report.sitecosts import memory_table, site_costs, time_table, traffic_table
        from weft.report.studyfiles import read_study

        found = read_study(read_run(study, whole=False))
        shown = [one for one in (time_table(found), traffic_table(found), memory_table(found)) if one is not None]
        if not shown and not json:
            raise UsageError(
                f"{study} tells nothing of what its sites took: nothing was trained there, or not yet",
                "name a study that trains or was trained",
            )
    if json:
        print_json({"study": str(study), "sites": site_costs(found)})
        return
    from weft.cli.comparing import table

    for one in shown:
        typer.echo(f"{one.caption}")
        for line in table(one.head, one.rows):
            typer.echo(line)
        if one.note and not Settings.quiet:
            typer.echo(one.note, err=True)
