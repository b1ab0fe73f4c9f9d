"""One run: from an experiment to a run directory with weights, history, scores and a report."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from weft.actions.beginning import begun, describe_run, require_training_data, try_out
from weft.actions.ending import found_finished, report_on, write_failure, write_outcome
from weft.actions.opening import (
    OpenedRun,
    digest_experiment_data,
    open_experiment_data,
    open_run,
    threads_of,
)
from weft.actions.stopping import remember, stopped
from weft.actions.trained import TrainedRun
from weft.config import Experiment, fingerprint
from weft.data import Data
from weft.engine import CheckpointFolder, Membership, Observer, RunResult, build_run, drive_alone, pick_device, training
from weft.engine.background import BackgroundCheckpoints
from weft.engine.checkpoints import CheckpointStore
from weft.engine.determinism import reproducible
from weft.engine.fully_sharded import summed
from weft.engine.processes import Place, drive_among_processes, find_place, is_launched
from weft.engine.run import Run
from weft.engine.seeding import outer_randomness_kept
from weft.engine.signals import Interruption
from weft.errors import ExchangeError, RunDirectoryError, UsageError, WeftError
from weft.monitor import Heartbeat, Signs, messages_kept, standard_observers
from weft.runs import RunDirectory, is_run

logger = logging.getLogger("weft")

MEMORY_HINT = "lower training.batch_size (training.accumulate makes up for it), or use training.precision: bf16"


def follows() -> bool:
    """Whether this is one of several processes, and not the one that writes the run directory."""
    place = find_place()
    return place is not None and not place.first


def is_finished(path: Path | str) -> bool:
    """Whether there is a run that is finished."""
    return is_run(path) and (RunDirectory.open(path).result() or {}).get("status") == "finished"


def train_one(experiment: Experiment, out: Path | str | None, observers: Sequence[Observer]) -> TrainedRun:
    """Train one experiment (one fold) in a new run directory."""
    place = find_place()
    if place is not None and follows():
        return _follow(experiment, place)
    with begun(experiment, out) as directory:
        data = open_experiment_data(experiment)
        require_training_data(data)
        threads = threads_of(experiment, data)
        return _execute(directory, experiment, data, threads, observers, resumed=False)


def resume_one(path: Path, overrides: Sequence[str], observers: Sequence[Observer]) -> TrainedRun:
    """Go on with one run; one that is finished is returned as it is."""
    place = find_place()
    if place is not None and follows():
        if is_finished(path):  # the first one looks after its folder, and locks it
            return TrainedRun(Path(path), RunDirectory.open(path).result() or {})
        return _follow(open_run(path, overrides).experiment, place)
    opened = open_run(path, overrides, writing=True)
    with opened.directory as directory:
        done = directory.result()
        if done is not None and done.get("status") == "finished":
            found_finished(directory)
            return TrainedRun(directory.path, done)
        refuse_other_code(opened)
        data = open_experiment_data(opened.experiment)
        threads = (
            int(opened.experiment.run.threads)
            if overrides and opened.experiment.run.threads != "auto"
            else int(opened.provenance["run_threads"])
        )
        return _execute(directory, opened.experiment, data, threads, observers, resumed=True)


def refuse_other_code(opened: OpenedRun) -> None:
    """Data, patches and settings must be those the run began with; what else differs is a matter of `weft
    reproduce`.
    """
    manifest = digest_experiment_data(opened.experiment)
    if fingerprint(opened.experiment, manifest.digest) == opened.provenance["fingerprint"]:
        return
    what = "its code or settings"
    if manifest.digest != opened.provenance["data"]["digest"]:
        before = {file["path"]: file["sha256"] for file in opened.provenance["data"]["files"]}
        now = {file["path"]: file["sha256"] for file in manifest.as_dict()["files"]}
        changed = sorted(path for path in before.keys() | now.keys() if before.get(path) != now.get(path))
        what = "its data" + (f" ({', '.join(changed[:3])}{', …' if len(changed) > 3 else ''})" if changed else "")
    raise RunDirectoryError(
        f"{opened.directory.path} cannot be resumed: {what} changed since it began",
        "put them back as they were, or train the changed experiment as a new run",
    )


def _execute(
    directory: RunDirectory,
    experiment: Experiment,
    data: Data,
    threads: int,
    observers: Sequence[Observer],
    *,
    resumed: bool,
) -> TrainedRun:
    """Drive the run to its end and write down how it ended, whatever happens."""
    started = time.monotonic()
    device = pick_device(experiment.run.device)
    deterministic = experiment.training.deterministic
    try:
        with (
            Interruption() as interruption,
            reproducible(threads=threads, deterministic=deterministic, device=device),
            messages_kept(directory),
        ):
            run = _build(directory, experiment, data, observers, interruption, resumed=resumed)
            with _told_and_closed(run):
                _try_out(run, experiment, data, wanted=not resumed)
                if not resumed:
                    with outer_randomness_kept():
                        describe_run(directory, experiment, data, threads)
                result = _drive(run)
                write_outcome(directory, experiment, run, result)
            run.observers.notify("on_end", result)
    except torch.OutOfMemoryError as error:
        explained = WeftError(f"out of memory on {device}: {str(error).splitlines()[0]}", MEMORY_HINT)
        write_failure(directory, explained, time.monotonic() - started)
        raise explained from error
    except BaseException as error:
        write_failure(directory, error, time.monotonic() - started)
        raise
    done = directory.result() or {}
    remember(interruption.received)
    report_on(directory)
    return TrainedRun(directory.path, done)


@contextmanager
def _told_and_closed(run: Run) -> Iterator[None]:
    """Tell the run's observers of an error, and close the run however it ends."""
    try:
        yield
    except BaseException as error:
        run.observers.notify("on_error", error)
        raise
    finally:
        run.close()


def _try_out(run: Run, experiment: Experiment, data: Data, *, wanted: bool) -> None:
    """Try the model out where the first process wants it; a sharded one takes all processes."""
    if run.state.sharded:
        wanted = summed([int(wanted)])[0] > 0
    if wanted:
        with outer_randomness_kept():
            try_out(run, experiment, data)


def _drive(run: Run) -> RunResult:
    place = find_place()
    if place is None:
        return drive_alone(training(run))
    try:
        return drive_among_processes(training(run), place, lambda: run.state.position)
    except ExchangeError as error:
        if (name := run.interruption.received) is not None:  # the others were asked as well, and have left
            raise stopped(name, run.path) from error
        signs = Signs.of_run(run.path)
        if signs is None:
            raise
        raise signs.explained(error, place.rank, place.world) from error


def _follow(experiment: Experiment, place: Place) -> TrainedRun:
    """Take part in a run whose directory another process writes."""
    data = open_experiment_data(experiment)
    device = pick_device(experiment.run.device)
    with (
        Interruption() as interruption,
        reproducible(
            threads=threads_of(experiment, data), deterministic=experiment.training.deterministic, device=device
        ),
    ):
        run = build_run(
            experiment, data, interruption=interruption, observers=[Heartbeat(place.rank, experiment.run.timeout)],
            membership=Membership.of(place),
        )  # fmt: skip
        with _told_and_closed(run):
            _try_out(run, experiment, data, wanted=False)
            result = _drive(run)
        run.observers.notify("on_end", result)
    remember(interruption.received)
    return TrainedRun(run.path or Path(), {"status": result.status, "scores": result.scores})


def _build(
    directory: RunDirectory,
    experiment: Experiment,
    data: Data,
    observers: Sequence[Observer],
    interruption: Interruption,
    *,
    resumed: bool,
) -> Run:
    namespace = experiment.namespace()
    own = [namespace.build(component, "observer") for component in experiment.run.observers]
    require_observers([*own, *observers])
    history = directory.history()
    place = find_place()
    if resumed and place is not None:
        Signs.in_run(directory.path).forget_all()
    run = build_run(
        experiment,
        data,
        membership=Membership.of(place),
        path=directory.path,
        checkpoints=_checkpoints(directory, experiment),
        history=history,
        observers=[
            *standard_observers(experiment, directory),
            *([Heartbeat(0, experiment.run.timeout)] if is_launched() else []),
            *own,
            *observers,
        ],
        interruption=interruption,
    )
    state = run.checkpoints.load_last() if resumed else None
    if state is not None:
        run.state.load_state_dict(state, 0, run.participants)
    run.resumed = state is not None
    history.restore(run.state.history)
    directory.steps().truncate_after(run.state.position.step)
    return run


def _checkpoints(directory: RunDirectory, experiment: Experiment) -> CheckpointStore:
    folder = CheckpointFolder(directory.checkpoints, keep=experiment.run.keep_last)
    return BackgroundCheckpoints(folder) if experiment.run.checkpoint_async else folder


def require_observers(observers: Sequence[object]) -> None:
    wrong = [observer for observer in observers if not isinstance(observer, Observer)]
    if wrong:
        what = wrong[0].__name__ + " (the class)" if isinstance(wrong[0], type) else type(wrong[0]).__name__
        raise UsageError(f"{what} is not an observer", "give an object of a class derived from weft.engine.Observer")
