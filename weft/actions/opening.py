"""What several actions begin with: the experiment of a file or of a run, and its data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weft.config import Experiment, load_experiment, resolve
from weft.data import Data, check_targets, digest_data, open_data
from weft.errors import RunDirectoryError
from weft.runs import RunDirectory

Source = str | Path | Mapping[str, Any] | Experiment
DIGEST_CACHE = ".data-digests.json"  # in the output folder: what was read once need not be read again


@dataclass(frozen=True, slots=True)
class OpenedRun:
    """An earlier run: its directory, its experiment as it was trained, and what was recorded about it."""

    directory: RunDirectory
    experiment: Experiment
    provenance: dict[str, Any]

    @property
    def fold(self) -> int | None:
        """The fold that it trained."""
        return self.experiment.fold


def load(source: Source, overrides: Sequence[str] = ()) -> Experiment:
    """Load and resolve an experiment."""
    return resolve(load_experiment(source, overrides))


def open_run(path: Path | str, overrides: Sequence[str] = (), *, writing: bool = False) -> OpenedRun:
    """Open an earlier run with the experiment and the patches it was trained with.

    Raises:
        RunDirectoryError: there is no run, or it is damaged.
        ConfigError: an override is wrong, or user code it needs is gone.
    """
    directory = RunDirectory.open(path, writing=writing)
    try:
        return _opened(directory, overrides)
    except BaseException:
        directory.unlock()
        raise


def _opened(directory: RunDirectory, overrides: Sequence[str]) -> OpenedRun:
    if not directory.provenance_file.exists():
        raise RunDirectoryError(
            f"{directory.path} has no provenance.json: the run ended before its training began",
            "there is nothing to go on from: remove the folder and start it again",
        )
    provenance = directory.read_json(directory.provenance_file)
    experiment = load_experiment(directory.experiment_file, overrides, base=provenance["base"])
    patches = [directory.path / stored for stored in provenance.get("patches", {}).values()]
    if patches:
        experiment = load_experiment(
            directory.experiment_file,
            [*overrides, f"patches={[str(patch) for patch in patches]!r}"],
            base=provenance["base"],
        )
    return OpenedRun(directory, resolve(experiment), provenance)


def open_experiment_data(experiment: Experiment, statistics: dict[str, Any] | None = None) -> Data:
    """Open the data of an experiment.

    Args:
        experiment: resolved.
        statistics: those of an earlier run, to scale inputs as its training did.
    """
    namespace = experiment.namespace()
    task = namespace.find(experiment.training.task, "task")
    data = open_data(
        experiment.dataset,
        namespace,
        seed=experiment.seed,
        fold=experiment.fold,
        base=experiment.base,
        statistics=statistics,
        target_kind=getattr(task, "target_kind", "auto"),
        cache=experiment.run.cache,
    )
    if data.classes is not None:
        check_targets(data, len(data.classes))
    return data


def digest_experiment_data(experiment: Experiment, *, only_cached: bool = False) -> Any:
    """The manifest of the experiment's data; digests of unchanged files come from the cache in the output folder."""
    cache = experiment.path(experiment.run.output) / DIGEST_CACHE
    return digest_data(
        experiment.dataset, experiment.base, cache, namespace=experiment.namespace(), only_cached=only_cached
    )
