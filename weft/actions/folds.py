"""Cross-validation: k ordinary runs, one per fold, and a summary over them."""

from __future__ import annotations

import contextlib
import csv
import logging
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from weft.actions.beginning import begun, begun_already
from weft.actions.opening import open_experiment_data
from weft.actions.scores import write_scores
from weft.actions.single import follows, is_finished, resume_one, train_one
from weft.actions.stopping import Asked, heed
from weft.actions.trained import TrainedRun
from weft.config import Experiment, dump_yaml, load_experiment, resolve, to_dict
from weft.data import fold_count
from weft.engine import Observer, build_run
from weft.engine.collectives import Gather, Sum, combine
from weft.engine.run import SplitScores
from weft.errors import RunDirectoryError, Stopped, WeftError
from weft.metrics import ScoreBook
from weft.report import write_report
from weft.runs import RunDirectory, append_experiment_row, one_moment, resume_command, write_atomically

logger = logging.getLogger("weft")


def train_folds(experiment: Experiment, out: Path | str | None, observers: Sequence[Observer]) -> TrainedRun:
    """Train every fold in `RUN/fold-1 … fold-k`, then summarise; see `weft.train`."""
    with one_moment(), begun(experiment, out) as parent:
        begin_folds(parent, experiment)
        return _go_on(parent, experiment, (), observers)


def resume_folds(path: Path, overrides: Sequence[str], observers: Sequence[Observer]) -> TrainedRun:
    """Go on with the folds that are not finished."""
    if follows():
        return follow_folds(stored_folds(path, overrides), path, overrides)
    with one_moment(), RunDirectory.open(path, writing=True) as parent:
        return _go_on(parent, stored_folds(path, overrides), overrides, observers)


def stored_folds(path: Path, overrides: Sequence[str]) -> Experiment:
    """The experiment that the folds of a run have in common."""
    parent = RunDirectory.open(path)
    base = parent.read_json(parent.summary_file)["base"]
    return resolve(load_experiment(parent.experiment_file, overrides, base=base))


def follow_folds(experiment: Experiment, path: Path | None, overrides: Sequence[str]) -> TrainedRun:
    """Take part in every fold that another process writes, one after the other.

    Args:
        experiment: what the folds have in common.
        path: the run directory, as far as it is known: which folds are finished already is seen there.
        overrides: `key=value` texts for folds that have begun.
    """
    for number in range(1, (fold_count(experiment.dataset, experiment.base) or 0) + 1):
        folder = RunDirectory(path).fold(number) if path is not None else None
        if folder is not None and is_finished(folder):
            continue
        if folder is not None and RunDirectory(folder).provenance_file.exists():
            resume_one(folder, overrides, ())
        else:
            train_one(experiment.model_copy(update={"fold": number}), folder, ())
        heed()
    return TrainedRun(path or Path(), {"status": "finished"})


def _go_on(
    parent: RunDirectory, experiment: Experiment, overrides: Sequence[str], observers: Sequence[Observer]
) -> TrainedRun:
    def train(folder: Path, fold: Experiment) -> TrainedRun:
        if begun_already(folder):
            return resume_one(folder, overrides, observers)
        return train_one(fold, folder, observers)

    trained = one_after_another(parent, experiment, train)
    pooled = pooled_scores(experiment.model_copy(update={"fold": 1}), [run.path for run in trained])
    return write_summary(parent, experiment, trained, pooled)


def begin_folds(parent: RunDirectory, experiment: Experiment) -> None:
    """Write what all folds have in common; from here on they can be gone on with."""
    write_atomically(parent.experiment_file, dump_yaml(experiment).encode())
    summary = {"status": "running", "base": str(experiment.base), "folds": [], "scores": {}}
    parent.write_json(parent.summary_file, summary)


def one_after_another(
    parent: RunDirectory, experiment: Experiment, train: Callable[[Path, Experiment], TrainedRun]
) -> list[TrainedRun]:
    """Train every fold in its folder.

    Args:
        parent: locked.
        experiment: what the folds have in common.
        train: trains a fold in the folder that it is given, or goes on with what is there; finished ones are returned.
    """
    count = fold_count(experiment.dataset, experiment.base) or 0
    trained = []
    for number in range(1, count + 1):
        logger.info("fold %d of %d: %s", number, count, parent.fold(number))
        try:
            trained.append(train(parent.fold(number), experiment.model_copy(update={"fold": number})))
            heed()
        except BaseException as error:
            _write_failure(parent, parent.fold(number), error)
            raise
    return trained


def write_summary(
    parent: RunDirectory,
    experiment: Experiment,
    trained: Sequence[TrainedRun],
    pooled: SplitScores,
    **further: Any,
) -> TrainedRun:
    """Write scores over all folds, the report and, last of all, the result.

    Args:
        parent: locked.
        experiment: what the folds have in common.
        trained: the folds.
        pooled: scores of all out-of-fold items together.
        further: entries of the result.
    """
    summary = summarise(trained, pooled)
    summary["base"] = str(experiment.base)
    write_scores(parent.scores, "validation", pooled, None)
    parent.write_json(parent.summary_file, summary)
    result = {
        "status": "finished",
        "scores": {"validation": pooled.scores},
        "seconds": sum(run.result["seconds"] for run in trained),
        "folds": [run.path.name for run in trained],
        "summary": summary["scores"],
        **further,
    }
    parent.write_result(result)
    append_experiment_row(parent.path, to_dict(experiment), result)
    write_report(parent.path)
    return TrainedRun(parent.path, result)


def _write_failure(parent: RunDirectory, fold: Path, error: BaseException) -> None:
    """Say how all folds are gone on with, not only the one that ended here."""
    command = resume_command(parent.path)
    stopped = isinstance(error, Stopped | KeyboardInterrupt)
    message = None if stopped else f"{fold.name}: {error.message if isinstance(error, WeftError) else repr(error)}"
    with contextlib.suppress(RunDirectoryError, OSError):
        parent.write_result({"status": "stopped" if stopped else "failed", "error": message, "resume": command})
    if isinstance(error, Asked):
        error.run = parent.path
    if isinstance(error, WeftError):
        error.hint = error.hint.replace(resume_command(fold), command)


def summarise(trained: Sequence[TrainedRun], pooled: SplitScores) -> dict[str, Any]:
    """Mean and standard deviation over folds of every validation score, beside the scores of all out-of-fold items."""
    scores: dict[str, dict[str, float | None]] = {}
    for name in trained[0].scores["validation"]:
        values = [run.scores["validation"][name] for run in trained]
        known = [value for value in values if value is not None]
        scores[name] = {
            "mean": statistics.fmean(known) if known else None,
            "standard_deviation": statistics.stdev(known) if len(known) > 1 else None,
            "pooled": pooled.scores.get(name),
        }
    folds = [
        {"fold": number, "path": run.path.name, "best_epoch": run.result["best_epoch"], "scores": run.scores}
        for number, run in enumerate(trained, start=1)
    ]
    return {"status": "finished", "folds": folds, "scores": scores}


def pooled_scores(experiment: Experiment, paths: Sequence[Path]) -> SplitScores:
    """The validation scores of all folds together: sums are added, so each item counts once, in the fold that held
    it out.
    """
    book = next(iter(build_run(experiment, open_experiment_data(experiment)).splits.values())).book
    pool(book, paths)
    return SplitScores(book.compute(), book.details(), [row for path in paths for row in _rows(path)])


def pool(book: ScoreBook, paths: Sequence[Path]) -> None:
    """Add up in a new score book what the validation scores of all folds are made of."""
    book.add_curves()  # as the final scores of each fold did
    sums, gathered = [], []
    for path in paths:
        stored = load_file(path / "scores" / "validation.safetensors")
        sums.append(Sum("folds", _numbered(stored, "sum")))
        gathered.append(Gather("folds", _numbered(stored, "gathered")))
    book.load_states(combine(list(sums)))
    if gathered[0].tensors:
        book.load_gathered(combine(list(gathered)))


def _numbered(stored: dict[str, torch.Tensor], kind: str) -> list[torch.Tensor]:
    names = sorted((name for name in stored if name.startswith(kind + ".")), key=lambda name: int(name.split(".")[1]))
    return [stored[name] for name in names]


def _rows(path: Path) -> list[dict[str, Any]]:
    file = path / "scores" / "validation.csv"
    if not file.exists():
        return []
    with file.open(newline="", encoding="utf-8") as handle:
        return [{"fold": path.name, **row} for row in csv.DictReader(handle)]
