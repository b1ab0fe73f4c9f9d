"""`weft federate`: studies over several sites."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from weft.cli.shared import (
    Json,
    Set,
    Settings,
    everything_else_on_stderr,
    print_json,
    print_scores,
    with_settings,
)
from weft.cli.siteprofile import profile

federate = typer.Typer(
    name="federate", help="Train one model over several sites that keep their data to themselves.", no_args_is_help=True
)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    federate.command("simulate")(simulate)
    federate.command("profile")(profile)
    federate.command("evaluate")(evaluate)
    app.add_typer(federate)


def simulate(
    source: Annotated[
        Path,
        typer.Argument(
            help="Experiment file with a section federation; with --resume alone, a study's directory.",
            metavar="FILE",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Directory of the study; by default a new one under runs/.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", "-r", help="Go on with the study that was stopped, if there is one.")
    ] = False,
    compare: Annotated[
        bool, typer.Option("--compare", help="Also train with all data in one place, and each site alone.")
    ] = False,
    scenario: Annotated[
        Path | None,
        typer.Option("--scenario", help="YAML file of what goes wrong, where and when.", show_default=False),
    ] = None,
    overrides: Set = None,
    json: Json = False,
) -> None:
    """Run the study in FILE with all its sites in this process. The last line of standard output is its directory.

    Each site has data, random generators and a run directory of its own, `sites/NAME`; what they tell one another is
    what they would send over a network. Scores are pooled over the sites.
    """
    from weft.actions.stopping import stoppable

    with everything_else_on_stderr(), stoppable():
        from weft.federated.study import simulate as action

        done = action(source, with_settings(overrides), out=out, resume=resume, compare=compare, scenario=scenario)
    if json:
        print_json({"run": str(done.path), **done.result})
        return
    if "comparison" in done.result:
        if "folds" in done.result:
            typer.echo("means over the folds:")
        _print_comparison(done.result["comparison"])
    if not Settings.quiet:
        for name, site in done.result["sites"].items():
            moved = site["bytes"]
            typer.echo(f"site {name}: {moved['sent']:,} bytes sent, {moved['received']:,} received", err=True)
        _print_scenario(done.result.get("scenario", []))
    typer.echo(str(done.path))


def evaluate(
    source: Annotated[
        Path, typer.Argument(help="Directory of a study, or its file with --weights.", show_default=False)
    ],
    weights: Annotated[
        Path | None,
        typer.Option(
            "--weights", "-w", help="Weights file (.safetensors or .pt); by default the study's, or model.weights."
        ),
    ] = None,
    splits: Annotated[
        list[str] | None, typer.Option("--split", help="Split to score; may be repeated. Default: all.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Directory of the test; by default a new one under runs/.")
    ] = None,
    overrides: Set = None,
    json: Json = False,
) -> None:
    """Score given weights at all sites of a study; nothing is trained. The last line of standard output is its
    directory.

    No site needs training data. Scores are pooled over the sites, and those of each site's own items are kept beside.
    """
    from weft.actions.stopping import stoppable

    with everything_else_on_stderr(), stoppable():
        from weft.federated.evaluating import evaluate as action

        done = action(source, with_settings(overrides), weights=weights, splits=splits, out=out)
    if json:
        print_json({"run": str(done.path), **done.result})
        return
    print_scores(done.scores)
    typer.echo(str(done.path))


def _print_scenario(events: list[dict[str, Any]]) -> None:
    """How much of a scenario came, and what did not."""
    if not events:
        return
    missed = [one for one in events if not one["happened"]]
    named = "".join(f"; {one['site']}: {one['words']} ({one['place']}) {one['why']}" for one in missed)
    typer.echo(f"scenario: {len(events) - len(missed)} of {len(events)} events came{named}", err=True)


def _print_comparison(comparison: dict[str, Any]) -> None:
    """A table per split: the study, all data in one place, each site alone (their counts added up)."""
    for split in comparison["study"]:
        typer.echo(f"{split}:")
        columns = {way: comparison[way].get(split, {}) for way in ("study", "pooled", "alone")}
        print_scores(columns)
