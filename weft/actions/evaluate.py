"""Scoring weights without training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weft.actions.narrowing import only_splits, without_missing_targets, without_pretrained
from weft.actions.opening import Source, load, open_experiment_data, open_run, threads_of
from weft.actions.scores import write_scores
from weft.config import Experiment
from weft.data import Data
from weft.engine import build_run, drive_alone, pick_device
from weft.engine.determinism import reproducible
from weft.engine.loop import scoring
from weft.engine.run import Run
from weft.engine.weights import load_weights
from weft.errors import UsageError
from weft.runs import RunDirectory, resume_command


def evaluate(
    source: Source,
    overrides: Sequence[str] = (),
    *,
    weights: Path | str | None = None,
    splits: Sequence[str] | None = None,
    out: Path | str | None = None,
    base: Path | str | None = None,
) -> dict[str, Any]:
    """Score a run's weights, or any weights for an experiment.

    Args:
        source: a run directory, or an experiment with `weights`.
        overrides: `key=value` texts, for example other tables.
        weights: a weights file instead of the run's.
        splits: which splits; None scores all. The data of other splits need not be there.
        out: folder for scores per split and per case.
        base: of a run, the folder that relative paths of its data start from now.

    Returns:
        {"scores": {split: {name: value}}, "model_sha256"}.

    Raises:
        UsageError: an experiment without weights, or a split that does not exist.
        ConfigError: the weights do not fit.
        DataError: data are missing or do not fit the experiment.
        RunDirectoryError: `source` is a folder that holds no run.
    """
    opened = open_for_scoring(source, overrides, weights, splits, base=base)
    with scored_run(opened, splits) as run:
        result = drive_alone(scoring(run))
        if out is not None:
            for name, split in run.final.items():
                write_scores(Path(out), name, split, result.model_sha256)
    return {"scores": result.scores, "model_sha256": result.model_sha256}


@dataclass(frozen=True, slots=True)
class Scorable:
    """An experiment, its data (scaled as in training) and the file of its weights.

    Args:
        experiment: as it is scored.
        data: opened.
        weights: file.
        targets: names of the target columns of the experiment as it was trained.
    """

    experiment: Experiment
    data: Data
    weights: Path
    targets: list[str]


def open_for_scoring(
    source: Source,
    overrides: Sequence[str],
    weights: Path | str | None,
    splits: Sequence[str] | None,
    *,
    base: Path | str | None = None,
    need_targets: bool = True,
) -> Scorable:
    """Open what is needed to score or predict splits (None: all of them); see `evaluate` for the arguments."""
    if isinstance(source, str | Path) and not Path(source).is_file():
        return _open_run_for_scoring(Path(source), overrides, weights, splits, base, need_targets)
    if weights is None:
        name = f"{source} is an experiment file" if isinstance(source, str | Path) else "this is an experiment"
        raise UsageError(
            f"{name}, which has no weights of its own", "add --weights FILE, or give a run directory instead"
        )
    experiment = without_pretrained(load(source, overrides))
    return Scorable(experiment, open_experiment_data(experiment), Path(weights), experiment.dataset.targets)


def _open_run_for_scoring(
    path: Path,
    overrides: Sequence[str],
    weights: Path | str | None,
    splits: Sequence[str] | None,
    base: Path | str | None,
    need_targets: bool,
) -> Scorable:
    def narrow(experiment: Experiment) -> Experiment:
        return without_pretrained(experiment if splits is None else only_splits(experiment, splits))

    opened = open_run(path, overrides, base=base, narrow=narrow)
    statistics = opened.directory.read_json(opened.directory.statistics_file)
    experiment = opened.experiment if need_targets else without_missing_targets(opened.experiment)
    data = open_experiment_data(experiment, statistics)
    file = Path(weights) if weights is not None else _weights_of(opened.directory)
    return Scorable(experiment, data, file, opened.experiment.dataset.targets)


@contextmanager
def scored_run(opened: Scorable, splits: Sequence[str] | None) -> Iterator[Run]:
    """A run that holds the weights and the splits to score, on the threads and in the mode of its experiment."""
    experiment, data = opened.experiment, opened.data
    unknown = [name for name in splits or () if name not in data.splits]
    if unknown:
        raise UsageError(f"there is no split '{unknown[0]}'", f"splits of these data: {', '.join(data.splits)}")
    threads = threads_of(experiment, data)
    device = pick_device(experiment.run.device)
    with reproducible(threads=threads, deterministic=experiment.training.deterministic, device=device):
        run = build_run(experiment, data)
        try:
            load_weights(run.state.model, opened.weights)
            if run.state.average is not None:
                load_weights(run.state.average.module, opened.weights)
            if splits is not None:
                run.splits = {name: split for name, split in run.splits.items() if name in splits}
            yield run
        finally:
            run.close()


def _weights_of(directory: RunDirectory) -> Path:
    if not directory.weights.exists():
        raise UsageError(
            f"{directory.path} has no model.safetensors: it did not finish",
            f"finish it with `{resume_command(directory.path)}`, or give --weights",
        )
    return directory.weights
