"""Cross-validation of a study: fold after fold, each a study of its own, and a summary over their pooled scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from weft.actions.beginning import begun
from weft.actions.folds import begin_folds, one_after_another, pool, stored_folds, write_summary
from weft.actions.opening import open_experiment_data
from weft.actions.trained import TrainedRun
from weft.config import Experiment
from weft.engine import Membership, build_run
from weft.engine.run import SplitScores
from weft.engine.seeding import outer_randomness_kept
from weft.federated.describing import bounds_of
from weft.federated.site import site_experiment
from weft.runs import RunDirectory

Simulate = Callable[[Path, Experiment], TrainedRun]


def simulate_folds(experiment: Experiment, out: Path | str | None, simulate: Simulate) -> TrainedRun:
    """Run a study for every fold in `STUDY/fold-1 … fold-k`, then summarise. A fold leaves out the same part of k at
    every site; each divides its own items.

    Args:
        experiment: with its section `federation`, folds and no `fold`.
        out: directory of all folds, new or empty; by default a new folder under `run.output`.
        simulate: runs the study of one fold in its folder, or goes on with it.
    """
    with begun(experiment, out) as parent:
        begin_folds(parent, experiment)
        return _all(parent, experiment, simulate)


def go_on_with_folds(path: Path, overrides: Sequence[str], simulate: Simulate) -> TrainedRun:
    """Go on with the folds that are not finished.

    Args:
        path: directory of all folds.
        overrides: `key=value` texts.
        simulate: as in `simulate_folds`; finished folds are given to it as well.
    """
    with RunDirectory.open(path, writing=True) as parent:
        return _all(parent, stored_folds(path, overrides), simulate)


def is_study_of_folds(path: Path | str) -> bool:
    """Whether a directory is that of all folds."""
    directory = RunDirectory(Path(path))
    return directory.summary_file.exists() or bool(directory.folds())


def _all(parent: RunDirectory, experiment: Experiment, simulate: Simulate) -> TrainedRun:
    trained = one_after_another(parent, experiment, simulate)
    pooled = _pooled_scores(experiment.model_copy(update={"fold": 1}), [run.path for run in trained])
    further: dict[str, Any] = {
        "bounds": {"validation": bounds_of(pooled.details)},
        "sites": _moved([run.result["sites"] for run in trained]),
    }
    if all("comparison" in run.result for run in trained):
        further["comparison"] = _mean([run.result["comparison"] for run in trained])
    return write_summary(parent, experiment, trained, pooled, **further)


def _pooled_scores(experiment: Experiment, paths: Sequence[Path]) -> SplitScores:
    """The validation scores of all folds and sites together, from sums: each item counts once, in the fold that left
    it out.
    """
    assert experiment.federation is not None
    fold = RunDirectory(paths[0])
    site = site_experiment(experiment, min(experiment.federation.sites))
    with outer_randomness_kept():
        data = open_experiment_data(site, fold.read_json(fold.statistics_file))
        data.splits = {name: split for name, split in data.splits.items() if len(split)}
        cells = experiment.federation.minimum_cells
        membership = Membership(gather=False, minimum_cells=cells, splits=("validation",))
        run = build_run(site, data, membership=membership)
        run.close()
    book = run.splits["validation"].book
    pool(book, paths)
    return SplitScores(book.compute(), book.details(), [])


def _moved(folds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The bytes that each site sent and received in all folds that it took part in."""
    moved: dict[str, Any] = {}
    for name, site in (entry for fold in folds for entry in fold.items()):
        total = moved.setdefault(name, {"bytes": {"sent": 0, "received": 0}})["bytes"]
        for part in total:
            total[part] += site["bytes"][part]
    return moved


def _mean(parts: Sequence[Any]) -> Any:
    """Means over folds, of all numbers in nested dicts; None where a fold has none."""
    if isinstance(parts[0], dict):
        shared = [key for key in parts[0] if all(key in part for part in parts)]
        return {key: _mean([part[key] for part in parts]) for key in shared}
    return None if any(part is None for part in parts) else fmean(parts)
