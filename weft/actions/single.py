"""One run: from an experiment to a run directory with weights, history, scores and a report."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from weft.actions.opening import (
    OpenedRun,
    digest_experiment_data,
    open_experiment_data,
    open_run,
)
from weft.actions.scores import write_scores, write_states
from weft.config import Experiment, dump_yaml, fingerprint, to_dict
from weft.data import Data
from weft.engine import CheckpointFolder, Observer, RunResult, build_run, drive_alone, pick_device, training
from weft.engine.determinism import choose_threads, reproducible
from weft.engine.run import Run
from weft.engine.signals import Interruption
from weft.engine.weights import save_weights
from weft.errors import RunDirectoryError, Stopped, WeftError
from weft.monitor import standard_observers
from weft.report import write_report
from weft.runs import (
    RunDirectory,
    append_experiment_row,
    collect_provenance,
    new_run_path,
    resume_command,
    snapshot_code,
    write_atomically,
    write_requirements,
)

logger = logging.getLogger("weft")


@dataclass(frozen=True, slots=True)
class TrainedRun:
    """A run that was trained.

    Args:
        path: its directory.
        result: what `result.json` says; for k folds the summary over them.
    """

    path: Path
    result: dict[str, Any]

    @property
    def scores(self) -> dict[str, dict[str, float]]:
        """Split to score name to value."""
        scores: dict[str, dict[str, float]] = self.result.get("scores", {})
        return scores


def train_one(experiment: Experiment, out: Path | str | None, observers: Sequence[Observer]) -> TrainedRun:
    """Train one experiment (one fold) in a new run directory."""
    path = Path(out) if out is not None else new_run_path(experiment.path(experiment.run.output), experiment.name)
    with RunDirectory.create(path) as directory:
        data = open_experiment_data(experiment)
        threads = _threads(experiment, data)
        describe_run(directory, experiment, data, threads)
        return _execute(directory, experiment, data, threads, observers, resumed=False)


def resume_one(path: Path, overrides: Sequence[str], observers: Sequence[Observer]) -> TrainedRun:
    """Go on with one run; one that is finished is returned as it is."""
    opened = open_run(path, overrides, writing=True)
    with opened.directory as directory:
        done = directory.result()
        if done is not None and done.get("status") == "finished":
            logger.info("%s is finished already", directory.path)
            if not directory.report.exists():  # killed between the two
                write_report(directory.path)
            return TrainedRun(directory.path, done)
        _refuse_other_code(opened)
        data = open_experiment_data(opened.experiment)
        threads = (
            int(opened.experiment.run.threads)
            if overrides and opened.experiment.run.threads != "auto"
            else int(opened.provenance["run_threads"])
        )
        return _execute(directory, opened.experiment, data, threads, observers, resumed=True)


def _refuse_other_code(opened: OpenedRun) -> None:
    """Data, patches and settings must be those the run began with; what else differs is a matter of `weft
    reproduce`.
    """
    manifest = digest_experiment_data(opened.experiment)
    now = fingerprint(opened.experiment, manifest.digest)
    if now != opened.provenance["fingerprint"]:
        what = "its data" if manifest.digest != opened.provenance["data"]["digest"] else "its code or settings"
        raise RunDirectoryError(
            f"{opened.directory.path} cannot be resumed: {what} changed since it began",
            "put them back as they were, or train the changed experiment as a new run",
        )


def describe_run(directory: RunDirectory, experiment: Experiment, data: Data, threads: int) -> None:
    """Write everything that is known before training: experiment, code, data, splits and provenance (last of all)."""
    manifest = digest_experiment_data(experiment)
    write_atomically(directory.experiment_file, dump_yaml(experiment).encode())
    patches = snapshot_code(directory, [experiment.path(patch) for patch in experiment.patches])
    write_requirements(directory.requirements)
    directory.write_json(directory.data_file, data.summary())
    directory.write_json(directory.splits_file, data.record())
    directory.write_json(directory.statistics_file, data.statistics)
    extra = {
        "base": str(experiment.base),
        "patches": patches,
        "data": {"digest": manifest.digest, "files": manifest.as_dict()["files"], "undigested": manifest.undigested},
        "run_threads": threads,
        "device": str(pick_device(experiment.run.device)),
    }
    provenance = collect_provenance(
        fingerprint(experiment, manifest.digest),
        {"seed": experiment.seed},
        sys.argv,
        folder=experiment.base,
        extra=extra,
    )
    directory.write_json(directory.provenance_file, provenance)


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
    record = {"fingerprint": directory.read_json(directory.provenance_file)["fingerprint"]}
    device = pick_device(experiment.run.device)
    deterministic = experiment.training.deterministic
    try:
        with (
            Interruption() as interruption,
            reproducible(threads=threads, deterministic=deterministic, device=device),
        ):
            run = _build(directory, experiment, data, observers, interruption, resumed=resumed)
            try:
                result = drive_alone(training(run))
            except BaseException as error:
                run.observers.notify("on_error", error)
                raise
            finally:
                run.close()
            _write_outcome(directory, experiment, run, result, record)
            run.observers.notify("on_end", result)
    except BaseException as error:
        _write_failure(directory, error, record | {"seconds": round(time.monotonic() - started, 3)})
        raise
    done = directory.result() or {}
    write_report(directory.path)
    return TrainedRun(directory.path, done)


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
    history = directory.history()
    run = build_run(
        experiment,
        data,
        path=directory.path,
        checkpoints=CheckpointFolder(directory.checkpoints),
        history=history,
        observers=[*standard_observers(experiment, directory), *own, *observers],
        interruption=interruption,
    )
    state = run.checkpoints.load_last() if resumed else None
    if state is not None:
        run.state.load_state_dict(state)
    run.resumed = state is not None
    history.restore(run.state.history)
    directory.steps().truncate_after(run.state.position.step)
    return run


def _write_outcome(
    directory: RunDirectory, experiment: Experiment, run: Run, result: RunResult, record: dict[str, Any]
) -> None:
    save_weights(run.state.scored_weights, directory.weights)
    for name, split in run.final.items():
        write_scores(directory.scores, name, split, result.model_sha256)
        if experiment.fold is not None:
            write_states(directory.scores, name, run.splits[name].book)
    if experiment.run.predictions:
        from weft.actions.predict import write_predictions

        write_predictions(run, directory)
    outcome = record | {
        "status": result.status,
        "scores": result.scores,
        "epochs": result.epochs,
        "steps": result.steps,
        "seconds": round(result.seconds, 3),
        "best_epoch": result.best_epoch,
        "monitor": {"metric": run.state.best.metric, "mode": run.state.best.mode, "best": result.best_value},
        "model_sha256": result.model_sha256,
        "skipped_items": result.skipped_items,
        "resume": None,
    }
    append_experiment_row(directory.path, to_dict(experiment), outcome)
    directory.write_result(outcome)  # last: a run that says it is finished lacks nothing


def _write_failure(directory: RunDirectory, error: BaseException, record: dict[str, Any]) -> None:
    """Say in result.json how the run ended; when even that cannot be written, the error itself matters more."""
    stopped = isinstance(error, Stopped | KeyboardInterrupt)
    if isinstance(error, KeyboardInterrupt):
        message = "ended at once by a second interrupt; what was saved before is kept"
    else:
        message = error.message if isinstance(error, WeftError) else f"{type(error).__name__}: {error}"
    logger.log(logging.INFO if stopped else logging.ERROR, "%s", message)
    resumable = any(directory.checkpoints.glob("last-*.pt"))
    outcome = record | {
        "status": "stopped" if stopped else "failed",
        "error": None if stopped else message,
        "resume": resume_command(directory.path) if resumable else None,
    }
    if isinstance(error, KeyboardInterrupt) and resumable:
        logger.warning("resume with: %s", outcome["resume"])
    with contextlib.suppress(RunDirectoryError, OSError):
        directory.write_result(outcome)
    if isinstance(error, WeftError) and not stopped and resumable and "--resume" not in error.hint:
        error.hint = f"{error.hint}; resume with: {outcome['resume']}".lstrip("; ")


def _threads(experiment: Experiment, data: Data) -> int:
    if experiment.run.threads != "auto":
        return int(experiment.run.threads)
    split = next(iter(data.splits.values()))
    if split.arrays is None:
        return torch.get_num_threads()
    inputs = split.arrays[0]
    parts = inputs if isinstance(inputs, tuple) else (inputs,)
    return choose_threads(sum(part[:1].numel() for part in parts) * experiment.training.batch_size)
