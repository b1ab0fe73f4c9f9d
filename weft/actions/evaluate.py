"""Scoring weights without training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from weft.actions.opening import Source, load, open_experiment_data, open_run
from weft.actions.scores import write_scores
from weft.config import Experiment
from weft.data import Data
from weft.engine import build_run, drive_alone
from weft.engine.determinism import reproducible
from weft.engine.loop import scoring
from weft.engine.run import Run
from weft.engine.weights import load_weights
from weft.errors import UsageError
from weft.runs import RunDirectory, is_run, resume_command


def evaluate(
    source: Source,
    overrides: Sequence[str] = (),
    *,
    weights: Path | str | None = None,
    splits: Sequence[str] | None = None,
    out: Path | str | None = None,
) -> dict[str, Any]:
    """Score a run's weights, or any weights for an experiment.

    Args:
        source: a run directory, or an experiment with `weights`.
        overrides: `key=value` texts, for example other tables.
        weights: a weights file instead of the run's.
        splits: which splits; None scores all.
        out: folder for scores per split and per case.

    Returns:
        {"scores": {split: {name: value}}, "model_sha256"}.

    Raises:
        UsageError: an experiment without weights, or a split that does not exist.
        ConfigError: the weights do not fit.
    """
    experiment, data, file = open_for_scoring(source, overrides, weights)
    run = scored_run(experiment, data, file, splits)
    with reproducible(
        threads=_threads(experiment), deterministic=experiment.training.deterministic, device=run.plan.device
    ):
        result = drive_alone(scoring(run))
    run.close()
    if out is not None:
        for name, split in run.final.items():
            write_scores(Path(out), name, split, result.model_sha256)
    return {"scores": result.scores, "model_sha256": result.model_sha256}


def open_for_scoring(
    source: Source, overrides: Sequence[str], weights: Path | str | None
) -> tuple[Experiment, Data, Path]:
    """The experiment, its data scaled as in training, and the file of its weights."""
    if isinstance(source, str | Path) and (Path(source).is_dir() or is_run(source)):
        opened = open_run(source, overrides)
        statistics = opened.directory.read_json(opened.directory.statistics_file)
        file = Path(weights) if weights is not None else _weights_of(opened.directory)
        return opened.experiment, open_experiment_data(opened.experiment, statistics), file
    if weights is None:
        raise UsageError("evaluating an experiment file needs weights", "add --weights FILE, or give a run directory")
    experiment = load(source, overrides)
    return experiment, open_experiment_data(experiment), Path(weights)


def scored_run(experiment: Experiment, data: Data, weights: Path, splits: Sequence[str] | None) -> Run:
    """A run that holds the weights and the splits to score."""
    unknown = [name for name in splits or () if name not in data.splits]
    if unknown:
        raise UsageError(f"there is no split '{unknown[0]}'", f"splits of these data: {', '.join(data.splits)}")
    run = build_run(experiment, data)
    load_weights(run.state.model, weights)
    if run.state.average is not None:
        load_weights(run.state.average.module, weights)
    if splits is not None:
        run.splits = {name: split for name, split in run.splits.items() if name in splits}
    return run


def _weights_of(directory: RunDirectory) -> Path:
    if not directory.weights.exists():
        raise UsageError(
            f"{directory.path} has no model.safetensors: it did not finish",
            f"finish it with `{resume_command(directory.path)}`, or give --weights",
        )
    return directory.weights


def _threads(experiment: Experiment) -> int:
    import torch

    return torch.get_num_threads() if experiment.run.threads == "auto" else int(experiment.run.threads)
