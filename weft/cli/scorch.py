"""`scorch-train` and `weft scorch`: scorch's commands."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from weft.cli.shared import Set, Settings

group = typer.Typer(
    name="scorch", help="Train scorch-style model and dataset files.", no_args_is_help=True, rich_markup_mode=None
)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group.command("train")(train)
    app.add_typer(group)


def main() -> NoReturn:
    """`scorch-train`: `weft scorch train` under its own name."""
    from weft.cli.app import main as weft_main

    words = sys.argv[1:]
    ahead = [word for word in ("--traceback", "--quiet") if word in words]
    Settings.original_name = True
    weft_main([*ahead, "scorch", "train", *(word for word in words if word not in ahead)])


def train(
    model: Annotated[Path, typer.Option("--model", help="File with Network and Socket.", show_default=False)],
    dataset: Annotated[Path, typer.Option("--dataset", help="File with DataSet and DataSetIndex.", show_default=False)],
    dataset_path: Annotated[
        str, typer.Option("--dataset-path", "-dp", help="What DataSetIndex is given.", show_default=False)
    ],
    batch_size: Annotated[int, typer.Option("--batch-size", "-b", help="Items of a step, over all processes.")] = 8,
    workers: Annotated[int, typer.Option("--workers", "-w", min=0, help="Processes that load items.")] = 0,
    dump_period: Annotated[int, typer.Option("--dump-period", "-d", help="Epochs between checkpoints.")] = 1,
    epochs: Annotated[int, typer.Option("--epochs", "-e", help="Epochs to train, beyond a checkpoint's.")] = 1000,
    checkpoint: Annotated[
        Path | None, typer.Option("--checkpoint", "-c", help="Checkpoint to go on from.", show_default=False)
    ] = None,
    use_cuda: Annotated[bool, typer.Option("--use-cuda", help="Train on GPUs.")] = False,
    validate_on_train: Annotated[
        bool, typer.Option("--validate-on-train", help="Score the training items after each epoch, too.")
    ] = False,
    max_train_iterations: Annotated[
        int, typer.Option("--max-train-iterations", help="Batches of an epoch; -1 for all.")
    ] = -1,
    max_valid_iterations: Annotated[
        int, typer.Option("--max-valid-iterations", help="Batches of a validation; -1 for all.")
    ] = -1,
    verbosity: Annotated[
        int,
        typer.Option("--verbosity", "-v", help="-1: no lines; 0: lines for epochs; n: for every n-th batch as well."),
    ] = -1,
    checkpoint_prefix: Annotated[
        str, typer.Option("--checkpoint-prefix", "-cp", help="What names of checkpoints begin with.")
    ] = "",
    model_args: Annotated[
        str, typer.Option("--model-args", help="Arguments of Network, as in a dict without braces: \"'hidden': 20\".")
    ] = "",
    dataset_args: Annotated[
        str, typer.Option("--dataset-args", help="Further arguments of DataSetIndex, written likewise.")
    ] = "",
    strict: Annotated[
        bool, typer.Option("--strict-scorch", help="Keep the original's numbers where it was mistaken.")
    ] = False,
    test: Annotated[bool, typer.Option("--test", help="Score the items of mode 'test' in the end.")] = False,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of everything random.")] = 0,
    processes: Annotated[
        int, typer.Option("--processes", "-p", min=1, help="Number of processes that train together.")
    ] = 1,
    restarts: Annotated[
        int, typer.Option("--restarts", min=0, help="How often failed processes are started again.")
    ] = 0,
    progress: Annotated[bool, typer.Option(help="Show progress where no lines are printed.")] = True,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Run directory; by default a new one under runs/.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", "-r", help="Go on with the run in --out that was stopped, if there is one.")
    ] = False,
    overrides: Set = None,
) -> None:
    """Train the Network in a model file on the DataSet in a dataset file, as scorch-train did.

    Checkpoints are written to PREFIXcheckpoint.pth.tar and PREFIXcheckpoint_best.pth.tar, curves for TensorBoard below
    runs/. What else a run of Weft has lies in its run directory.
    """
    from weft import actions
    from weft.interop import scorch

    flags = scorch.Flags(
        model, dataset, dataset_path, batch_size, workers, dump_period, epochs, checkpoint, use_cuda,
        validate_on_train, max_train_iterations, max_valid_iterations, verbosity, checkpoint_prefix, model_args,
        dataset_args, seed, strict, test, processes, restarts, progress and not Settings.quiet,
    )  # fmt: skip
    trained = scorch.train(flags, out=out, resume=resume, overrides=overrides or ())
    if not actions.reports():
        return
    if not Settings.quiet:
        typer.echo(f"report: {trained.path / 'report.html'}", err=True)
    typer.echo(str(trained.path), err=Settings.original_name)
