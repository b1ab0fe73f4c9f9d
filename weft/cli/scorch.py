"""`scorch-train` and `weft scorch`: scorch's commands."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from weft.cli.shared import RunOut, Set, Settings

group = typer.Typer(
    name="scorch",
    help="Train scorch-style model and dataset files, and apply what was trained.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Model = Annotated[Path, typer.Option("--model", help="File with Network and Socket.", show_default=False)]
Dataset = Annotated[Path, typer.Option("--dataset", help="File with DataSet and DataSetIndex.", show_default=False)]
DatasetPath = Annotated[
    str, typer.Option("--dataset-path", "-dp", help="What DataSetIndex is given.", show_default=False)
]
Workers = Annotated[int, typer.Option("--workers", "-w", min=0, help="Processes that load items.")]
UseCuda = Annotated[bool, typer.Option("--use-cuda", help="Use GPUs.")]
ModelArgs = Annotated[
    str, typer.Option("--model-args", help="Arguments of Network, as in a dict without braces: \"'hidden': 20\".")
]
DatasetArgs = Annotated[
    str, typer.Option("--dataset-args", help="Further arguments of DataSetIndex, written likewise.")
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of everything random.")]
BatchSize = Annotated[int, typer.Option("--batch-size", "-b", help="Items of a step, over all processes.")]
DumpPeriod = Annotated[int, typer.Option("--dump-period", "-d", help="Epochs between checkpoints.")]
Epochs = Annotated[int, typer.Option("--epochs", "-e", help="Epochs to train, beyond a checkpoint's.")]
Checkpoint = Annotated[
    Path | None, typer.Option("--checkpoint", "-c", help="Checkpoint to go on from.", show_default=False)
]
ValidateOnTrain = Annotated[
    bool, typer.Option("--validate-on-train", help="Score the training items after each epoch, too.")
]
MaxTrainIterations = Annotated[int, typer.Option("--max-train-iterations", help="Batches of an epoch; -1 for all.")]
MaxValidIterations = Annotated[int, typer.Option("--max-valid-iterations", help="Batches of a validation; -1 for all.")]
Verbosity = Annotated[
    int,
    typer.Option("--verbosity", "-v", help="-1: no lines; 0: lines for epochs; n: for every n-th batch as well."),
]
CheckpointPrefix = Annotated[
    str, typer.Option("--checkpoint-prefix", "-cp", help="What names of checkpoints begin with.")
]
StrictScorch = Annotated[
    bool, typer.Option("--strict-scorch", help="Keep the original's numbers where it was mistaken.")
]
Test = Annotated[bool, typer.Option("--test", help="Score the items of mode 'test' in the end.")]
Processes = Annotated[int, typer.Option("--processes", "-p", min=1, help="Number of processes that train together.")]
Restarts = Annotated[int, typer.Option("--restarts", min=0, help="How often failed processes are started again.")]
Progress = Annotated[bool, typer.Option("--progress/--no-progress", help="Show progress where no lines are printed.")]
ResumeOut = Annotated[
    bool, typer.Option("--resume", "-r", help="Go on with the run in --out that was stopped, if there is one.")
]
Traceback = Annotated[bool, typer.Option("--traceback", hidden=True)]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group.command("train")(train)
    group.command("test")(infer)
    app.add_typer(group)


def main() -> NoReturn:
    """`scorch-train`: `weft scorch train` under its own name, with weft's options `--traceback` and `--quiet`."""
    from weft.cli.app import main as run
    from weft.cli.app import options

    words = sys.argv[1:]
    options(traceback="--traceback" in words, quiet="--quiet" in words)
    Settings.original_name = True
    alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    alone.command()(train)
    run([word for word in words if word != "--quiet"], alone, "scorch-train")


def train(
    model: Model,
    dataset: Dataset,
    dataset_path: DatasetPath,
    batch_size: BatchSize = 8,
    workers: Workers = 0,
    dump_period: DumpPeriod = 1,
    epochs: Epochs = 1000,
    checkpoint: Checkpoint = None,
    use_cuda: UseCuda = False,
    validate_on_train: ValidateOnTrain = False,
    max_train_iterations: MaxTrainIterations = -1,
    max_valid_iterations: MaxValidIterations = -1,
    verbosity: Verbosity = -1,
    checkpoint_prefix: CheckpointPrefix = "",
    model_args: ModelArgs = "",
    dataset_args: DatasetArgs = "",
    strict_scorch: StrictScorch = False,
    test: Test = False,
    seed: Seed = 0,
    processes: Processes = 1,
    restarts: Restarts = 0,
    progress: Progress = True,
    out: RunOut = None,
    resume: ResumeOut = False,
    overrides: Set = None,
    traceback: Traceback = False,  # `main` looks for it
) -> None:
    """Train the Network of a model file on the DataSet of a dataset file, as scorch-train did.

    Checkpoints are written to PREFIXcheckpoint.pth.tar and PREFIXcheckpoint_best.pth.tar, curves for TensorBoard below
    runs/. What else a run of Weft has lies in its run directory.
    """
    from weft import actions
    from weft.interop import scorch

    flags = scorch.Flags(
        model=model, dataset=dataset, dataset_path=dataset_path, batch_size=batch_size, workers=workers,
        dump_period=dump_period, epochs=epochs, checkpoint=checkpoint, use_cuda=use_cuda,
        validate_on_train=validate_on_train, max_train_iterations=max_train_iterations,
        max_valid_iterations=max_valid_iterations, verbosity=verbosity, checkpoint_prefix=checkpoint_prefix,
        model_args=model_args, dataset_args=dataset_args, seed=seed, test=test, processes=processes,
        restarts=restarts, strict=strict_scorch, progress=progress and not Settings.quiet,
    )  # fmt: skip
    trained = scorch.train(flags, out=out, resume=resume, overrides=overrides or ())
    if not actions.reports():
        return
    if not Settings.quiet:
        typer.echo(f"report: {trained.path / 'report.html'}", err=True)
    typer.echo(str(trained.path), err=Settings.original_name)


def infer(
    model: Model,
    dataset: Dataset,
    dataset_path: DatasetPath,
    checkpoint: Annotated[Path, typer.Option("--checkpoint", "-c", help="Checkpoint to apply.", show_default=False)],
    mode: Annotated[str, typer.Option("--mode", "-m", help="What DataSet is asked for: test, inference, ...")] = "test",
    out: Annotated[Path, typer.Option("--out", "-o", help="File for rows, outputs and targets.")] = Path(
        "results.pth.tar"
    ),
    batch_size: Annotated[int, typer.Option("--batch-size", "-b", min=1, help="Items at a time.")] = 8,
    workers: Workers = 0,
    use_cuda: UseCuda = False,
    model_args: ModelArgs = "",
    dataset_args: DatasetArgs = "",
    seed: Seed = 0,
) -> None:
    """Apply the Network of a checkpoint to items, score them where they have targets, and write down the outputs.

    A Network with a method `inference` is asked by that, else by `forward`. The file holds a dict that torch.load reads
    with weights_only: rows, outputs and targets.
    """
    from weft.interop import scorch
    from weft.interop.scorch.watching import metrics_line

    flags = scorch.Flags(
        model, dataset, dataset_path, batch_size=batch_size, workers=workers, checkpoint=checkpoint,
        use_cuda=use_cuda, model_args=model_args, dataset_args=dataset_args, seed=seed,
    )  # fmt: skip
    found = scorch.infer(flags, mode, out)
    if found.scores:
        typer.echo(metrics_line(found.scores))
    typer.echo(str(out))
