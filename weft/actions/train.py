"""Training: a new run, a run that goes on, or one run per fold."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from weft.actions.folds import resume_folds, train_folds
from weft.actions.opening import Source, load, require_same_experiment
from weft.actions.single import TrainedRun, resume_one, train_one
from weft.config import Experiment, dump_yaml, refuse_while_loading
from weft.data import fold_count
from weft.engine import Observer
from weft.errors import UsageError
from weft.runs import RunDirectory, is_run

__all__ = ["TrainedRun", "resume", "train"]


def train(
    source: Source,
    overrides: Sequence[str] = (),
    *,
    out: Path | str | None = None,
    resume: bool = False,
    observers: Sequence[Observer] = (),
) -> TrainedRun:
    """Train an experiment in a new run directory, or go on with the run that is there.

    Args:
        source: experiment file, dict or `Experiment`.
        overrides: `key=value` texts that replace what is written, as for `--set`.
        out: the run directory, new or empty; by default a new folder under `run.output`.
        resume: when `out` holds a run of this experiment already, go on with it (see `weft.resume`) instead of
            refusing, so that the same call can be made until it succeeds. A run that is finished is returned as it is.
        observers: further observers, see `weft.engine.Observer`.

    Returns:
        the trained run; for an experiment with folds and no `fold`, the summary of all of them.

    Raises:
        ConfigError, DataError: the experiment or its data are wrong; nothing was trained.
        Stopped: a signal came; the run can be resumed.
        NotFiniteError: training diverged.
        RunDirectoryError: the directory cannot be written; what was saved is kept.
        UsageError: `resume` without `out`, or `out` holds a run of another experiment.
    """
    refuse_while_loading()
    if resume and out is None:
        raise UsageError("which run shall be gone on with?", "name its directory as well: --out RUN")
    experiment = load(source, overrides)
    dump_yaml(experiment)  # what cannot be written down could not be resumed: told before a directory is made
    if resume and out is not None and is_run(out):
        require_same_experiment(out, experiment)
        return _go_on(Path(out), [text for text in overrides if text.startswith("run.")], observers)
    if _is_cross_validation(experiment):
        return train_folds(experiment, out, observers)
    return train_one(experiment, out, observers)


def resume(run: Path | str, overrides: Sequence[str] = (), *, observers: Sequence[Observer] = ()) -> TrainedRun:
    """Go on with a run that was stopped or killed, exactly where it was saved.

    It ends with the same weights and history, to the bit, as if it had been left alone.

    Args:
        run: the run directory, also one of k folds. A run that is finished is returned as it is.
        overrides: `key=value` texts; only `run.…` may be changed.
        observers: further observers, see `weft.engine.Observer`.

    Returns:
        the trained run.

    Raises:
        RunDirectoryError: there is no run, another process writes there, or its data or code changed.
        UsageError: an override would make it another experiment.
        Stopped, NotFiniteError: as for `weft.train`.
    """
    refuse_while_loading()
    wrong = [text for text in overrides if not text.startswith("run.")]
    if wrong:
        raise UsageError(
            f"--set {wrong[0]} would make a resumed run another experiment",
            "with --resume only run.… can be changed; train the changed experiment as a new run",
        )
    return _go_on(Path(run), overrides, observers)


def _go_on(path: Path, overrides: Sequence[str], observers: Sequence[Observer]) -> TrainedRun:
    directory = RunDirectory.open(path)
    if directory.summary_file.exists() or directory.folds():
        return resume_folds(path, overrides, observers)
    return resume_one(path, overrides, observers)


def _is_cross_validation(experiment: Experiment) -> bool:
    return experiment.fold is None and fold_count(experiment.dataset, experiment.base) is not None
