"""How a run ends: what came out of it, or why nothing did."""

from __future__ import annotations

import contextlib
import logging
from typing import Any

from weft.actions.predict import write_predictions
from weft.actions.scores import write_scores, write_states
from weft.config import Experiment, to_dict
from weft.engine import RunResult
from weft.engine.run import Run
from weft.engine.weights import save_weights
from weft.errors import RunDirectoryError, Stopped, WeftError
from weft.monitor import words_of
from weft.report import write_report
from weft.runs import RunDirectory, append_experiment_row, resume_command

logger = logging.getLogger("weft")


def write_outcome(directory: RunDirectory, experiment: Experiment, run: Run, result: RunResult) -> None:
    """Write weights, scores, predictions and, last of all, result.json; add the row to experiments.csv."""
    save_weights(run.state.scored_weights, directory.weights)
    for name, split in run.final.items():
        write_scores(directory.scores, name, split, result.model_sha256)
        if experiment.fold is not None:
            write_states(directory.scores, name, run.splits[name].book)
    if experiment.run.predictions:
        write_predictions(run, directory, experiment.dataset.targets)
    outcome = {
        "fingerprint": _fingerprint_of(directory),
        "status": result.status,
        "scores": result.scores,
        "epochs": result.epochs,
        "steps": result.steps,
        "seconds": round(result.seconds, 3),
        "best_epoch": result.best_epoch,
        "kept_epochs": _kept_epochs(directory, run),
        "monitor": monitored(run, result),
        "model_sha256": result.model_sha256,
        "skipped_items": result.skipped_items,
        "resume": None,
        **run.observers.facts(),
    }
    append_experiment_row(directory.path, to_dict(experiment), outcome)
    directory.write_result(outcome)  # last: a run that says it is finished lacks nothing


def monitored(run: Run, result: RunResult) -> dict[str, Any]:
    """The score that chose the best epoch, and its best value."""
    return {"metric": run.state.best.metric, "mode": run.state.best.mode, "best": result.best_value}


def report_on(directory: RunDirectory) -> None:
    """Write the report of a run that is finished: it is finished also where the report cannot be made.

    Raises:
        RunDirectoryError: the disk refuses.
    """
    try:
        write_report(directory.path)
    except WeftError:
        raise
    except Exception as error:
        logger.warning("the report could not be made: %r; try again with: weft report %s", error, directory.path)


def found_finished(directory: RunDirectory) -> None:
    """A run that shall go on is finished already: all that it can lack is the report, where it was killed before it.

    Raises:
        RunDirectoryError: the disk refuses.
    """
    logger.info("%s is finished already", directory.path)
    if not directory.report.exists():
        report_on(directory)


def _kept_epochs(directory: RunDirectory, run: Run) -> list[dict[str, Any]]:
    """The best epochs whose weights were kept, best first, each with its value and the file."""
    kept = []
    for epoch in run.state.best.kept:
        file = run.checkpoints.best_file(epoch.step)
        name = file.relative_to(directory.path).as_posix() if file is not None else None
        kept.append({"epoch": epoch.epoch + 1, "step": epoch.step, "value": epoch.value, "file": name})
    return kept


def write_failure(directory: RunDirectory, error: BaseException, seconds: float) -> None:
    """Say in result.json how the run ended, once it has begun; when even that cannot be written, the error itself
    matters more.
    """
    if not directory.provenance_file.exists():
        return
    stopped = isinstance(error, Stopped | KeyboardInterrupt)
    saved = (*directory.checkpoints.glob("last-*.pt"), *directory.sites.glob("*/checkpoints/last-*.pt"))
    resumable = bool(saved)
    outcome = {
        "fingerprint": _fingerprint_of(directory),
        "status": "stopped" if stopped else "failed",
        "error": None if stopped else words_of(error),
        "seconds": round(seconds, 3),
        "resume": resume_command(directory.path) if resumable else None,
    }
    if isinstance(error, KeyboardInterrupt) and resumable:
        logger.warning("resume with: %s", outcome["resume"])
    with contextlib.suppress(RunDirectoryError, OSError):
        directory.write_result(outcome)
    if isinstance(error, WeftError) and not stopped and resumable and "--resume" not in error.hint:
        error.hint = f"{error.hint}; resume with: {outcome['resume']}".lstrip("; ")


def _fingerprint_of(directory: RunDirectory) -> str:
    return str(directory.read_json(directory.provenance_file)["fingerprint"])
