"""What a study's directory holds besides what every run's does: its sites, what they cost, what happened."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from weft.errors import RunDirectoryError, UsageError
from weft.report.reading import RunFiles, read_run, sites_of
from weft.runs import Row, read_rows

_MOST_EVENTS = 20_000


@dataclass(slots=True)
class StudyFiles:
    """A study with its sites.

    Args:
        files: of the study itself; its rows of cases are those of all sites.
        sites: files of each site that has a run directory here, by name.
        spent: rows of profile.csv, by site.
        events: of ledger.jsonl.
    """

    files: RunFiles
    sites: dict[str, RunFiles] = field(default_factory=dict)
    spent: dict[str, list[Row]] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)

    @property
    def told(self) -> dict[str, dict[str, Any]]:
        """What the study's result says of each site, by name; of a study that has not ended, empty entries."""
        told = self.files.result.get("sites")
        entries = {str(name): entry for name, entry in told.items()} if isinstance(told, Mapping) else {}
        names = sorted({*entries, *self.sites})
        return {name: entry if isinstance(entry := entries.get(name), dict) else {} for name in names}

    @property
    def names(self) -> list[str]:
        """All sites of the study, also those that never took part."""
        planned = self.federation.get("sites")
        return sorted({*self.told, *(map(str, planned) if isinstance(planned, Mapping) else ())})

    @property
    def federation(self) -> Mapping[str, Any]:
        """The experiment's `federation:`, empty when missing."""
        value = self.files.experiment.get("federation")
        return value if isinstance(value, Mapping) else {}


def read_study(files: RunFiles) -> StudyFiles:
    """Read what there is of the sites.

    Args:
        files: of the study, as `read_run` gives them.

    Raises:
        UsageError: it is no study.
    """
    if not files.is_study:
        folds = [path for path in files.directory.folds() if (path / "sites").is_dir()]
        raise UsageError(
            f"{files.directory.path} is no study: it has no sites",
            f"name one of its folds: {folds[0]}"
            if folds
            else "name the directory that `weft federate simulate` printed",
        )
    study = StudyFiles(files)
    for folder in sites_of(files.directory):
        study.sites[folder.name] = read_run(folder, whole=False)
    for row in _rows(files, files.directory.sites_profile_file):
        study.spent.setdefault(str(row.get("site")), []).append(row)
    study.events = _events(files, files.directory.ledger_file)
    return study


def _rows(files: RunFiles, path: Path) -> list[Row]:
    try:
        return list(read_rows(path))
    except RunDirectoryError as error:
        files.notes.append(error.message)
        return []


def _events(files: RunFiles, path: Path) -> list[dict[str, Any]]:
    """The lines of the ledger; one that was cut off by a crash is left out."""
    if not path.exists():
        return []
    found: list[dict[str, Any]] = []
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                event = json.loads(line)
            except json.JSONDecodeError:
                continue
            if isinstance(event, dict) and len(found) < _MOST_EVENTS:
                found.append(event)
    return found
