"""Training: a new run, a run that goes on, or one run per fold."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from weft.actions.folds import resume_folds, train_folds
from weft.actions.opening import Source, load
from weft.actions.single import TrainedRun, resume_one, train_one
from weft.config import dump_yaml, refuse_while_loading
from weft.engine import Observer
from weft.errors import UsageError
from weft.runs import RunDirectory

__all__ = ["TrainedRun", "train"]


def train(
    source: Source | None = None,
    overrides: Sequence[str] = (),
    *,
    out: Path | str | None = None,
    resume: Path | str | None = None,
    observers: Sequence[Observer] = (),
) -> TrainedRun:
    """Train an experiment, or go on with a run that was stopped.

    Args:
        source: experiment file, dict or `Experiment`; not with `resume`.
        overrides: `key=value` texts as for `--set`; with `resume` only `run.…` may be changed.
        out: the run directory; by default a new folder under `run.output`.
        resume: the run directory to go on with.
        observers: further observers.

    Returns:
        the trained run; for an experiment with folds and no `fold`, the summary of all of them.

    Raises:
        ConfigError, DataError: the experiment or its data are wrong; nothing was trained.
        Stopped: a signal came; the run can be resumed.
        NotFiniteError: training diverged.
        RunDirectoryError: the directory cannot be written; what was saved is kept.
    """
    refuse_while_loading()
    if (source is None) == (resume is None):
        raise UsageError(
            "give an experiment to train, or a run to resume", "weft train FILE, or weft train --resume RUN"
        )
    if resume is not None:
        return _resume(Path(resume), overrides, observers)
    assert source is not None
    experiment = load(source, overrides)
    dump_yaml(experiment)  # what cannot be written down could not be resumed: told before a directory is made
    split = experiment.dataset.split
    if split is not None and split.folds is not None and experiment.fold is None:
        return train_folds(experiment, out, observers)
    return train_one(experiment, out, observers)


def _resume(path: Path, overrides: Sequence[str], observers: Sequence[Observer]) -> TrainedRun:
    wrong = [text for text in overrides if not text.startswith("run.")]
    if wrong:
        raise UsageError(
            f"--set {wrong[0]} would make a resumed run another experiment",
            "with --resume only run.… can be changed; train the changed experiment as a new run",
        )
    directory = RunDirectory.open(path)
    if directory.summary_file.exists() or directory.folds():
        return resume_folds(path, overrides, observers)
    return resume_one(path, overrides, observers)
