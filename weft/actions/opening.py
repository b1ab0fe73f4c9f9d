"""What several actions begin with: the experiment of a file or of a run, and its data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from weft.config import Experiment, load_experiment, resolve, to_dict
from weft.data import Data, Manifest, check_targets, digest_data, fold_count, make_loader, open_data
from weft.data.targets import TargetKind
from weft.engine.determinism import choose_threads
from weft.errors import ConfigError, RunDirectoryError, UsageError
from weft.runs import RunDirectory, is_run, resume_command
from weft.runs.experiments import flatten

Source = str | Path | Mapping[str, Any] | Experiment
DIGEST_CACHE = ".data-digests.json"  # in the output folder: what was read once need not be read again
ITEM_CACHE = ".cache"  # likewise: items after the base transforms, with run.cache: disk


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


def open_run(
    path: Path | str,
    overrides: Sequence[str] = (),
    *,
    base: Path | str | None = None,
    writing: bool = False,
    narrow: Callable[[Experiment], Experiment] = lambda experiment: experiment,
) -> OpenedRun:
    """Open an earlier run with the experiment and the patches it was trained with.

    Args:
        path: the run directory.
        overrides: `key=value` texts.
        base: folder that relative paths start from now; by default where they did.
        writing: lock the directory.
        narrow: takes from the experiment what is needed, before it is checked.

    Raises:
        RunDirectoryError: there is no run, or it is damaged.
        UsageError: it holds folds, which are runs of their own.
        ConfigError: an override is wrong, or files or user code that it needs are gone.
    """
    directory = RunDirectory.open(path, writing=writing)
    try:
        return _opened(directory, overrides, base, narrow)
    except BaseException:
        directory.unlock()
        raise


def _opened(
    directory: RunDirectory,
    overrides: Sequence[str],
    base: Path | str | None,
    narrow: Callable[[Experiment], Experiment],
) -> OpenedRun:
    if not directory.provenance_file.exists():
        _refuse_folds(directory)
        begin = "weft federate simulate" if directory.sites.is_dir() else "weft train"
        raise RunDirectoryError(
            f"{directory.path} has no provenance.json: the run ended before its training began",
            f"there is nothing to go on from: begin it with {begin} FILE --out RUN --resume",
        )
    provenance = directory.read_json(directory.provenance_file)
    patches = [str(directory.path / stored) for stored in provenance.get("patches", {}).values()]
    experiment = load_experiment(
        directory.experiment_file,
        [*overrides, *([f"patches={json.dumps(patches)}"] if patches else [])],
        base=base if base is not None else provenance["base"],
        check=False,
    )
    experiment = narrow(experiment)
    if problems := experiment.check():
        raise ConfigError(problems)
    return OpenedRun(directory, resolve(experiment), provenance)


def _refuse_folds(directory: RunDirectory) -> None:
    folds = [fold for fold in directory.folds() if is_run(fold)]
    if folds:
        raise UsageError(
            f"{directory.path} holds {len(folds)} folds, each a run of its own",
            f"give one of them: {', '.join(str(fold) for fold in folds[:3])}{', …' if len(folds) > 3 else ''}",
        )


def require_same_experiment(path: Path | str, experiment: Experiment) -> None:
    """Refuse to go on with a run of another experiment; `run` and `name` may differ. Code is the run's own copy.

    Raises:
        UsageError: with what differs.
    """
    directory = RunDirectory.open(path)
    began = resolve(load_experiment(directory.experiment_file, base=experiment.base, check=False))
    before, now = (_compared(each) for each in (began, experiment))
    different = [key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key)]
    if different:
        changes = [f"{key} is {before.get(key)} there and {now.get(key)} here" for key in different[:4]]
        raise UsageError(
            f"{directory.path} holds a run of another experiment: {'; '.join(changes)}",
            "give another folder with --out, or go on with that run as it is: " + resume_command(directory.path),
        )


def _compared(experiment: Experiment) -> dict[str, Any]:
    written = to_dict(experiment)
    return dict(flatten({key: value for key, value in written.items() if key not in ("name", "run", "patches")}))


def folds_of(experiment: Experiment) -> int | None:
    """How many folds are to be trained; None where there are none, or one of them is chosen."""
    return None if experiment.fold is not None else fold_count(experiment.dataset, experiment.base)


def one_fold(experiment: Experiment) -> Experiment:
    """The experiment of the first fold, for what looks at one; an experiment without folds is returned as it is."""
    return experiment if folds_of(experiment) is None else experiment.model_copy(update={"fold": 1})


def open_experiment_data(experiment: Experiment, statistics: dict[str, Any] | None = None) -> Data:
    """Open the data of an experiment.

    Args:
        experiment: resolved.
        statistics: those of an earlier run, to scale inputs as its training did.
    """
    refuse_study(experiment)
    namespace = experiment.namespace()
    data = open_data(
        experiment.dataset,
        namespace,
        seed=experiment.seed,
        fold=experiment.fold,
        base=experiment.base,
        statistics=statistics,
        target_kind=target_kind_of(experiment),
        cache=experiment.run.cache,
        cache_folder=experiment.path(experiment.run.output) / ITEM_CACHE,
    )
    if data.classes is None and statistics is not None:
        data.classes = statistics.get("classes")  # of data without answers
    if data.classes is not None:
        check_targets(data, len(data.classes))
    return data


def refuse_study(experiment: Experiment) -> None:
    """Refuse what is not for one place.

    Raises:
        UsageError: the experiment is a study.
    """
    if experiment.federation is not None:
        sites = ", ".join(experiment.federation.sites)
        raise UsageError(
            f"{experiment.name} is a study: its data lie at its sites ({sites})",
            "weft federate simulate FILE runs it, weft federate evaluate STUDY scores its weights; "
            "afterwards each site is a run of its own, sites/NAME",
        )


def target_kind_of(experiment: Experiment) -> TargetKind:
    """What targets are for the experiment's task: "class", "number" or "auto"."""
    task = experiment.namespace().find(experiment.training.task, "task")
    kind: TargetKind = getattr(task, "target_kind", "auto")
    return kind


def digest_experiment_data(experiment: Experiment, *, only_cached: bool = False) -> Manifest:
    """The manifest of the experiment's data; digests of unchanged files come from the cache in the output folder."""
    if experiment.federation is not None:
        return _digest_sites(experiment, only_cached)
    cache = experiment.path(experiment.run.output) / DIGEST_CACHE
    return digest_data(
        experiment.dataset, experiment.base, cache, namespace=experiment.namespace(), only_cached=only_cached
    )


def _digest_sites(experiment: Experiment, only_cached: bool) -> Manifest:
    """Over names of sites and their data."""
    assert experiment.federation is not None
    names = sorted(experiment.federation.sites)
    found = {name: digest_experiment_data(experiment.at_site(name), only_cached=only_cached) for name in names}
    files = [file for manifest in found.values() for file in manifest.files]
    undigested = [f"{name}: {manifest.undigested}" for name, manifest in found.items() if manifest.digest is None]
    if undigested:
        return Manifest(None, files, "; ".join(undigested))
    text = "".join(f"site {name} {manifest.digest}\n" for name, manifest in found.items())
    return Manifest(hashlib.sha256(text.encode()).hexdigest(), files)


def threads_of(experiment: Experiment, data: Data) -> int:
    """How many threads an operation of the run uses: as the experiment says, or as the size of its batches asks for."""
    if experiment.run.threads != "auto":
        return int(experiment.run.threads)
    loader = make_loader(next(iter(data.splits.values())), batch_size=1, seed=0, shuffle=False, augment=False)
    inputs = next(iter(loader.epoch(0))).inputs
    parts = inputs if isinstance(inputs, tuple) else (inputs,)
    numbers = sum(part.numel() for part in parts if isinstance(part, Tensor))
    return choose_threads(numbers * experiment.training.items_per_batch)
