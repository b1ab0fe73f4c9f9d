"""Looking without training: an experiment as understood, what can be named, the report of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weft.actions.opening import Source, digest_experiment_data, load
from weft.config import dump_yaml, fingerprint, to_dict
from weft.config.listing import list_components
from weft.report import write_report
from weft.runs import RunDirectory


@dataclass(frozen=True, slots=True)
class ShownExperiment:
    """An experiment with all defaults: as a dict, as YAML, and its fingerprint."""

    experiment: dict[str, Any]
    yaml: str
    fingerprint: str
    data_digest: str | None


def show(source: Source, overrides: Sequence[str] = ()) -> ShownExperiment:
    """Check and resolve an experiment; its data are not read, only digests made before are used.

    Raises:
        ConfigError: with all problems found.
    """
    experiment = load(source, overrides)
    digest = digest_experiment_data(experiment, only_cached=True).digest
    return ShownExperiment(to_dict(experiment), dump_yaml(experiment), fingerprint(experiment, digest), digest)


@dataclass(frozen=True, slots=True)
class ComponentEntry:
    """A component that can be named: its kind, name, arguments with defaults, and what it is in one line."""

    kind: str
    name: str
    signature: str
    summary: str

    def as_dict(self) -> dict[str, str]:
        """For JSON."""
        return {"kind": self.kind, "name": self.name, "signature": self.signature, "summary": self.summary}


def components(name: str | None = None, patches: Sequence[Path] = ()) -> list[ComponentEntry]:
    """What can be named in an experiment file.

    Args:
        name: a component (any kind), or a kind ("model", "optimizer", ...); None lists all.
        patches: patch files to look into first.

    Raises:
        UsageError: nothing has this name; the nearest names are given.
    """
    return [ComponentEntry(*entry) for entry in list_components(name, patches)]


def report(run: Path | str) -> Path:
    """Write the report of a run and return its path.

    Raises:
        RunDirectoryError: there is no run.
    """
    return write_report(RunDirectory.open(run).path)
