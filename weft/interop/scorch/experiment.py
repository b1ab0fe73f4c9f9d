"""From the flags of scorch-train to an experiment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from weft.engine.processes import find_place
from weft.errors import ConfigError, UsageError
from weft.interop.scorch.checkpoints import best_before, read_checkpoint
from weft.interop.scorch.contract import read_file
from weft.interop.scorch.items import MODES
from weft.interop.scorch.literals import parse_arguments

_HERE = "weft.interop.scorch"
# Names that are looked up in the model file, and in the dataset file.
_MODEL, _DATASET = ("Network", "Socket"), ("DataSet", "DataSetIndex")


@dataclass(frozen=True, slots=True)
class Flags:
    """What scorch-train is told; names and defaults are those of its flags.

    Args:
        model: file with Network and Socket.
        dataset: file with DataSet and, as a rule, DataSetIndex.
        dataset_path: what DataSetIndex is given.
        batch_size: items of a step, over all processes; strictly, of each process.
        workers: processes that load items.
        dump_period: epochs between checkpoints.
        epochs: how many are trained, beyond those of `checkpoint`.
        checkpoint: file to go on from.
        use_cuda: train on GPUs.
        validate_on_train: score the training items after each epoch as well.
        max_train_iterations, max_valid_iterations: batches of an epoch and of a validation, -1 for all.
        verbosity: -1 for silence, 0 for a line per epoch, n for one per n-th batch as well.
        checkpoint_prefix: what names of checkpoints begin with.
        model_args, dataset_args: arguments of Network and DataSetIndex, as the inside of a dict of literals.
        seed: decides everything random.
        strict: keep what the original did where it was mistaken.
        test: score mode `test` in the end.
        processes: how many train together.
        restarts: how often they are started again when one fails.
        progress: show a bar.
    """

    model: Path
    dataset: Path
    dataset_path: str
    batch_size: int = 8
    workers: int = 0
    dump_period: int = 1
    epochs: int = 1000
    checkpoint: Path | None = None
    use_cuda: bool = False
    validate_on_train: bool = False
    max_train_iterations: int = -1
    max_valid_iterations: int = -1
    verbosity: int = -1
    checkpoint_prefix: str = ""
    model_args: str = ""
    dataset_args: str = ""
    seed: int = 0
    strict: bool = False
    test: bool = False
    processes: int = 1
    restarts: int = 0
    progress: bool = True


def as_experiment(flags: Flags) -> dict[str, Any]:
    """The experiment that the flags describe, in the form of the experiment file.

    Raises:
        ConfigError: a file is missing, or does not define what it must.
        UsageError: a flag has a value that it cannot have.
        CheckpointError: the checkpoint cannot be read.
    """
    _check(flags)
    has_index = hasattr(read_files(flags)[1], "DataSetIndex")
    world = _world(flags)
    batch_size = flags.batch_size * (world if flags.strict else 1)
    before, best = 0, None
    if flags.checkpoint is not None:
        before = int(read_checkpoint(flags.checkpoint)["epoch"])
        best = None if flags.strict else best_before(flags.checkpoint, flags.checkpoint_prefix)
    modes = {split: mode for split, mode in MODES.items() if split != "test" or flags.test}
    training: dict[str, Any] = {
        "task": {f"{_HERE}.ScorchTask": {"strict": flags.strict}},
        "epochs": flags.epochs,
        "batch_size": batch_size,
        "drop_last": True,
        "optimizer": "weft.tasks.OwnOptimizer",
        "monitor": {"metric": "main", "mode": "max"},
    }
    if flags.max_train_iterations > 0:
        training["train_batches"] = flags.max_train_iterations
    if flags.max_valid_iterations > 0:
        training["evaluation_batches"] = flags.max_valid_iterations
    dataset: dict[str, Any] = {"class": {split: _items(flags, mode, has_index) for split, mode in modes.items()}}
    if flags.strict:
        samplers = {"train": "FixedOrder", "validation": "FirstShard"}
        dataset["samplers"] = {split: {f"{_HERE}.{name}": {"world": world}} for split, name in samplers.items()}
    return {
        "name": flags.model.stem,
        "seed": flags.seed,
        "dataset": dataset,
        "model": {f"{_HERE}.ScorchModel": _model(flags)},
        "training": training,
        "patches": _patches(flags),
        "run": _run(flags, before, best),
    }


def _check(flags: Flags) -> None:
    for name in ("batch_size", "dump_period", "epochs"):
        if getattr(flags, name) < 1:
            raise UsageError(f"--{name.replace('_', '-')} is {getattr(flags, name)}", "use at least 1")
    parse_arguments(flags.model_args, "--model-args")
    parse_arguments(flags.dataset_args, "--dataset-args")
    folder = Path(f"{flags.checkpoint_prefix}checkpoint.pth.tar").parent
    if not folder.is_dir():
        raise UsageError(f"--checkpoint-prefix {flags.checkpoint_prefix}: there is no folder {folder}", "make it first")


def read_files(flags: Flags) -> tuple[ModuleType, ModuleType]:
    """Load model file and dataset file.

    Raises:
        ConfigError: one is missing, cannot be loaded, or lacks a class.
    """
    return read_file(flags.model, _MODEL, "--model"), read_file(flags.dataset, ("DataSet",), "--dataset")


def _patches(flags: Flags) -> list[str]:
    """Both files, in an order in which each name is found in the right one first: one may import the other's."""
    model, dataset = read_files(flags)
    wrong = [name for name in _DATASET if _differs(name, model, dataset)]
    paths = [flags.model.absolute(), flags.dataset.absolute()]
    if wrong:
        paths.reverse()
        also = [name for name in _MODEL if _differs(name, model, dataset)]
        if also:
            raise ConfigError(
                f"{flags.model} has a {wrong[0]} of its own, and {flags.dataset} a {also[0]}",
                f"keep {also[0]} in the model file only, or {wrong[0]} in the dataset file",
            )
    return [str(path) for path in dict.fromkeys(paths)]


def _differs(name: str, one: ModuleType, other: ModuleType) -> bool:
    return name in vars(one) and name in vars(other) and vars(one)[name] is not vars(other)[name]


def _world(flags: Flags) -> int:
    place = find_place()
    return flags.processes if place is None else place.world


def _items(flags: Flags, mode: str, has_index: bool) -> dict[str, Any]:
    path = Path(flags.dataset_path)
    arguments: dict[str, Any] = {
        "dataset": {"object": "DataSet"},
        "path": str(path.absolute()) if path.exists() else flags.dataset_path,
        "mode": mode,
        "seed": flags.seed,
    }
    if has_index:
        arguments["index"] = {"object": "DataSetIndex"}
    if flags.dataset_args:
        arguments["arguments"] = flags.dataset_args
    return {f"{_HERE}.ScorchItems": arguments}


def _model(flags: Flags) -> dict[str, Any]:
    arguments: dict[str, Any] = {"network": {"object": "Network"}, "socket": {"object": "Socket"}}
    if flags.model_args:
        arguments["arguments"] = flags.model_args
    if flags.checkpoint is not None:
        arguments["checkpoint"] = str(flags.checkpoint.absolute())
    if flags.use_cuda:
        arguments["cuda"] = True
    if flags.strict:
        arguments["strict"] = True
    return arguments


def _run(flags: Flags, before: int, best: float | None) -> dict[str, Any]:
    files = {
        "folder": str(Path.cwd()), "prefix": flags.checkpoint_prefix, "dump_period": flags.dump_period,
        "verbosity": flags.verbosity, "first_epoch": before, "best": best, "strict": flags.strict,
    }  # fmt: skip
    printer = {"verbosity": flags.verbosity, "first_epoch": before}
    run: dict[str, Any] = {
        "device": "cuda" if flags.use_cuda else "cpu",
        "processes": flags.processes,
        "restarts": flags.restarts,
        "num_workers": flags.workers,
        "progress": flags.progress and flags.verbosity < 0,
        "score_train": "epochs" if flags.validate_on_train else "never",
        "observers": [{f"{_HERE}.ScorchPrinter": printer}, {f"{_HERE}.ScorchFiles": files}],
    }
    if flags.verbosity > 0:
        run["log_every"] = 1  # the lines show a mean over every loss
    return run
