"""scorch-train: the flags become an experiment, and that is trained as any other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from weft import actions
from weft.actions.launching import launch
from weft.actions.opening import load
from weft.engine.processes import find_place
from weft.interop.scorch.experiment import Flags, as_experiment
from weft.interop.scorch.watching import commanded
from weft.runs import RunDirectory, new_run_path


def train(
    flags: Flags, *, out: Path | str | None = None, resume: bool = False, overrides: Sequence[str] = ()
) -> actions.TrainedRun:
    """Train a scorch-style model on a scorch-style dataset.

    Args:
        flags: what scorch-train is told.
        out: Weft's run directory; by default a new one under `runs/`.
        resume: go on with the run in `out` where there is one.
        overrides: `key=value` texts that replace a value of the experiment.

    Returns:
        the trained run.

    Raises:
        ConfigError, DataError, UsageError: files or flags are wrong; nothing was trained.
        CheckpointError: the checkpoint cannot be read, or does not fit.
        Stopped: a signal came; the run can be resumed.
    """
    experiment = as_experiment(flags)
    settings = load(experiment, overrides).run
    if settings.processes == 1 or find_place() is not None:
        token = commanded.set(True)
        try:
            return actions.train(experiment, overrides, out=out, resume=resume)
        finally:
            commanded.reset(token)
    if out is not None and Path(out).exists() and not resume:
        RunDirectory.create(out).unlock()  # refuses a folder that holds something
    path = (Path(out) if out is not None else new_run_path(Path("runs"), flags.model.stem)).absolute()
    words = [word for text in overrides for word in ("--set", text)]
    command = ["scorch", "train", *as_arguments(flags), *words, "--out", str(path), "--resume"]
    launch(
        command, path, processes=settings.processes, restarts=settings.restarts, fewest=settings.min_processes,
        device=settings.device,
    )  # fmt: skip
    return actions.open(path)


def as_arguments(flags: Flags) -> list[str]:
    """The command line that says the same."""
    words = []
    for field in fields(flags):
        value = getattr(flags, field.name)
        flag = "--" + {"strict": "strict-scorch"}.get(field.name, field.name).replace("_", "-")
        if value is None or value == field.default:
            continue
        if field.name == "progress":
            words.append("--no-progress")
        else:
            words += [flag] if value is True else [f"{flag}={value}"]
    return words
