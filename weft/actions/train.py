"""Training: a new run, a run that goes on, or one run per fold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from weft.actions.batch_size import is_auto, settle
from weft.actions.beginning import begun_already
from weft.actions.folds import follow_folds, resume_folds, stored_folds, train_folds
from weft.actions.launching import launch, reported, reports
from weft.actions.launching_elastic import is_restart, run_of_job, warn_of_closed_door
from weft.actions.opening import Source, folds_of, load, open_run, require_same_experiment
from weft.actions.single import follows, is_finished, resume_one, train_one
from weft.actions.stopping import leaving_at_once, stoppable
from weft.actions.trained import TrainedRun
from weft.config import Experiment, dump_yaml, refuse_while_loading
from weft.engine import Observer
from weft.engine.leaving import keep_group
from weft.engine.processes import find_place, is_launched, joined
from weft.errors import UsageError
from weft.runs import RunDirectory, new_run_path, resume_command, study_of

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
    with stoppable(out):
        return _begin(source, overrides, out, resume, observers)


def _begin(
    source: Source, overrides: Sequence[str], out: Path | str | None, resume: bool, observers: Sequence[Observer]
) -> TrainedRun:
    experiment = load(source, overrides)
    if experiment.federation is not None:
        raise UsageError(
            f"{experiment.name} is a study of {len(experiment.federation.sites)} sites, which weft train does not run",
            f"run it with: weft federate simulate {source if isinstance(source, str | Path) else 'FILE'}",
        )
    if _starts_processes(experiment):
        if not isinstance(source, str | Path) or observers:
            raise UsageError(
                "several processes, and restarts, need an experiment file, and observers named in it",
                "write the experiment to a file, or start this program itself with torchrun",
            )
        if out is not None and Path(out).exists() and not resume:
            RunDirectory.create(out).unlock()  # refuses a folder that holds something
        path = Path(out) if out is not None else new_run_path(experiment.path(experiment.run.output), experiment.name)
        path = path.absolute()
        if is_auto(experiment):
            settled = settle(experiment, run=path if resume else None).training
            numbers = {"batch_size": settled.batch_size, "accumulate": settled.accumulate}
            overrides = [*overrides, *(f"training.{key}={number}" for key, number in numbers.items())]
        return _launch(["train", str(source), "--out", str(path), "--resume"], overrides, path, experiment)
    if out is None and (of_job := run_of_job(experiment)) is not None:
        out, resume = of_job, True
    with _among_processes(experiment):
        return _train(experiment, overrides, out, resume or is_restart(), observers)


def _train(
    experiment: Experiment,
    overrides: Sequence[str],
    out: Path | str | None,
    resume: bool,
    observers: Sequence[Observer],
) -> TrainedRun:
    dump_yaml(experiment)  # what cannot be written down could not be resumed: told before a directory is made
    experiment = settle(experiment, run=out if resume else None)
    if follows() and not (out is not None and is_finished(out)):
        if folds_of(experiment) is not None:
            return follow_folds(experiment, Path(out) if out is not None else None, _of_run(overrides))
        return train_one(experiment, out, observers)
    if resume and out is not None and begun_already(out):
        require_same_experiment(out, experiment)
        return _go_on(Path(out), _of_run(overrides), observers)
    if folds_of(experiment) is not None:
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
    with stoppable(run):
        return _resume(Path(run), overrides, observers)


def _resume(run: Path, overrides: Sequence[str], observers: Sequence[Observer]) -> TrainedRun:
    if study_of(run) is not None:
        raise UsageError(f"{run} belongs to a study, whose sites go on together", f"run: {resume_command(run)}")
    if (experiment := _stored_experiment(run, overrides)) is None:
        return _go_on(run, overrides, observers)
    if _starts_processes(experiment) and not is_finished(run):
        return _launch(["train", "--resume", str(run)], overrides, run, experiment)
    with _among_processes(experiment):
        return _go_on(run, overrides, observers)


def _stored_experiment(path: Path, overrides: Sequence[str]) -> Experiment | None:
    """The experiment of a run or of k folds; None where there is none, which is told later."""
    if (path / "summary.json").exists():
        return stored_folds(path, overrides)
    return open_run(path, overrides).experiment if (path / "provenance.json").exists() else None


def _of_run(overrides: Sequence[str]) -> list[str]:
    return [text for text in overrides if text.startswith("run.")]


def _starts_processes(experiment: Experiment) -> bool:
    """Whether this process only starts others, which train, and starts them again."""
    return max(experiment.run.processes, experiment.run.restarts + 1) > 1 and not is_launched()


def _launch(arguments: Sequence[str], overrides: Sequence[str], path: Path, experiment: Experiment) -> TrainedRun:
    settings = experiment.run
    changes = [word for text in overrides for word in ("--set", text)]
    launch(
        [*arguments, *changes], path,
        processes=settings.processes, restarts=settings.restarts, fewest=settings.min_processes,
        device=settings.device,
    )  # fmt: skip
    return TrainedRun(path, RunDirectory.open(path).result() or {})


@contextmanager
def _among_processes(experiment: Experiment) -> Iterator[None]:
    """Join the other processes, where a launcher started several."""
    warn_of_closed_door()
    place = find_place()
    if place is None:
        with reported(0, experiment.run.timeout):
            yield
        return
    with reported(place.rank, experiment.run.timeout), ExitStack() as stack:
        with leaving_at_once(silent=not reports()):
            stack.enter_context(joined(place, timeout=experiment.run.timeout))
        if experiment.run.sharding != "none":
            keep_group("the caches of torch.distributed.tensor")
        yield


def _go_on(path: Path, overrides: Sequence[str], observers: Sequence[Observer]) -> TrainedRun:
    directory = RunDirectory.open(path)
    if directory.summary_file.exists() or directory.folds():
        return resume_folds(path, overrides, observers)
    return resume_one(path, overrides, observers)
