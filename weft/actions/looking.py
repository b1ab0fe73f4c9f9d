"""Looking without training: an experiment as understood, and what can be named."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weft.actions.opening import Source, digest_experiment_data, load, open_run
from weft.config import KINDS, ComponentInfo, Namespace, components_of, dump_yaml, fingerprint, to_dict
from weft.errors import UsageError


@dataclass(frozen=True, slots=True)
class ShownExperiment:
    """An experiment with all defaults: as a dict, as YAML, and its fingerprint (none while `batch_size` is `auto`)."""

    experiment: dict[str, Any]
    yaml: str
    fingerprint: str | None
    data_digest: str | None


def show(source: Source, overrides: Sequence[str] = ()) -> ShownExperiment:
    """Check and resolve an experiment; its data are not read, only digests made before are used.

    Args:
        source: experiment file, dict, `Experiment`, or the directory of a run.
        overrides: `key=value` texts that replace what is written.

    Raises:
        ConfigError: with all problems found.
        RunDirectoryError: a folder that holds no run.
    """
    is_folder = isinstance(source, str | Path) and Path(source).is_dir()
    experiment = open_run(str(source), overrides).experiment if is_folder else load(source, overrides)
    digest = digest_experiment_data(experiment, only_cached=True).digest
    known = experiment.training.batch_size != "auto"
    taken = fingerprint(experiment, digest) if known else None
    return ShownExperiment(to_dict(experiment), dump_yaml(experiment), taken, digest)


def components(name: str | None = None, patches: Sequence[Path] = ()) -> list[ComponentInfo]:
    """What can be named in an experiment file.

    Args:
        name: a component (any kind), or a kind ("model", "optimizer", ...); None lists all.
        patches: patch files to look into first.

    Raises:
        UsageError: nothing has this name; the nearest names are given.
    """
    namespace = Namespace(tuple(patches))
    if name in KINDS:
        return components_of(str(name), namespace)
    listed = [entry for kind in KINDS for entry in components_of(kind, namespace)]
    if name is None:
        return listed
    found = [entry for entry in listed if name in (entry.name, entry.path)]
    if not found:
        near = difflib.get_close_matches(name, [*KINDS, *dict.fromkeys(entry.name for entry in listed)], n=3)
        raise UsageError(
            f"nothing is called '{name}'",
            f"did you mean {', '.join(near)}?" if near else f"kinds: {', '.join(KINDS)}; `weft components` lists all",
        )
    return found
