"""What a run directory holds, read for the report: what is missing or damaged becomes a note, not an error."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml

from weft.errors import DataError, RunDirectoryError
from weft.metrics.casetable import CaseTable, joined_cases, read_cases
from weft.runs import Row, RunDirectory, is_run, mask, parse_yaml, read_json, read_rows

Content = TypeVar("Content")
_LONGEST_TEXT = 120_000  # characters of a configuration that are shown
_MOST_STEPS = 4_000  # rows of steps.csv that are kept for the figure
_LARGEST_TABLE = 200_000_000  # bytes of a table of cases that are read


@dataclass(slots=True)
class RunFiles:
    """The files of a run, as far as they are there.

    Args:
        directory: the run.
        notes: what is missing or cannot be read, in words.
        experiment_text: the experiment as resolved, secrets masked.
        experiment, provenance, data, result, summary, profile: of the files of that name; empty when missing.
        scores: of scores/<split>.json, by split.
        history, steps, own: the rows of history.csv, steps.csv and, at a site of a study, own.csv.
        cases: the rows of scores/<split>.csv, by split.
        bounds: how far scores from bins may be off, by split and score; of studies.
        divisions: of splits.json, for k folds of each of them: which case is in which split and group.
    """

    directory: RunDirectory
    notes: list[str] = field(default_factory=list)
    experiment_text: str = ""
    experiment: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    result: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    profile: dict[str, Any] = field(default_factory=dict)
    scores: dict[str, dict[str, Any]] = field(default_factory=dict)
    history: list[Row] = field(default_factory=list)
    steps: list[Row] = field(default_factory=list)
    own: list[Row] = field(default_factory=list)
    cases: dict[str, CaseTable] = field(default_factory=dict)
    bounds: dict[str, dict[str, float]] = field(default_factory=dict)
    divisions: list[dict[str, Any]] = field(default_factory=list)

    @property
    def dataset(self) -> dict[str, Any]:
        """The experiment's `dataset:`, empty when missing."""
        return self._section("dataset")

    @property
    def group_name(self) -> str:
        """What groups are called: the column that they came from."""
        return str(self.dataset.get("group") or "group")

    def groups_of(self, split: str) -> list[str] | None:
        """The group of each row of a split's cases; None where there are none, or they cannot be told."""
        known: dict[str, str] = {}
        for division in self.divisions:
            names, groups = (_part(division, key, split) for key in ("splits", "groups"))
            if len(groups) != len(names):
                return None
            for name, group in zip(names, groups):
                if known.setdefault(str(name), str(group)) != str(group):
                    return None  # several items of one name, in different groups
        found = [known.get(name) for name in self.cases[split].texts("case")] if known else []
        return [group for group in found if group is not None] if found and None not in found else None

    @property
    def has_folds(self) -> bool:
        """Whether this is the parent of k folds."""
        return bool(self.summary) or bool(self.directory.folds())

    @property
    def is_study(self) -> bool:
        """Whether these are several sites that train one model."""
        return self.directory.sites.is_dir()

    @property
    def training(self) -> dict[str, Any]:
        """The experiment's `training:`, empty when missing."""
        return self._section("training")

    def _section(self, name: str) -> dict[str, Any]:
        value = self.experiment.get(name)
        return value if isinstance(value, dict) else {}

    @property
    def name(self) -> str:
        """The experiment's name, or the folder's."""
        return str(self.experiment.get("name") or self.directory.path.name)


def read_run(path: Path, *, whole: bool = True) -> RunFiles:
    """Read what there is.

    Args:
        path: the run directory.
        whole: also the long tables: steps, and the rows of cases of every split (else see `read_case_table`).

    Raises:
        RunDirectoryError: there is no run at all.
    """
    run = RunDirectory(path)
    known = (run.experiment_file, run.history_file, run.scores)
    if not any(file.exists() for file in known):
        run = RunDirectory.open(path)  # explains what is there instead
    files = RunFiles(run)
    _read_experiment(files)
    if run.summary_file.exists() or run.folds():
        # where the folds came from is written in each of them
        first = next((fold for fold in run.folds() if (fold / run.provenance_file.name).exists()), run.path)
        files.provenance = _read_object(files, first / run.provenance_file.name)
        files.summary = _read_object(files, run.summary_file)
        if run.result_file.exists():
            files.bounds = _bounds(_read_object(files, run.result_file))
    else:
        files.provenance = _read_object(files, run.provenance_file)
        if not files.is_study:  # its sites have data
            files.data = _read_object(files, run.data_file)
        files.result = _read_object(files, run.result_file)
        files.bounds = _bounds(files.result)
        if run.profile_file.exists():
            files.profile = _read_object(files, run.profile_file)
        _read_tables(files, steps=whole)
    _read_scores(files)
    files.divisions = _read_divisions(files)
    for split in files.scores if whole else ():
        read_case_table(files, split)
    return files


def _bounds(result: dict[str, Any]) -> dict[str, dict[str, float]]:
    value = result.get("bounds")
    found = value if isinstance(value, dict) else {}
    return {
        str(split): {name: bound for name, bound in part.items() if isinstance(bound, int | float)}
        for split, part in found.items()
        if isinstance(part, dict)
    }


def _read_divisions(files: RunFiles) -> list[dict[str, Any]]:
    found = []
    for site, holder in holders_of(files.directory):
        if holder.splits_file.exists():
            content = _or_note(files, read_json, holder.splits_file)
            if isinstance(content, dict):
                found.append(_at_site(content, site) if site else content)
    return found


def holders_of(run: RunDirectory) -> list[tuple[str, RunDirectory]]:
    """The runs of which this one consists: its folds, the sites of a study, or itself; each with its site, if any."""
    parts = [RunDirectory(fold) for fold in run.folds()] or [run]
    sites = [(site.name, RunDirectory(site)) for part in parts for site in sites_of(part)]
    return sites or [("", part) for part in parts]


def sites_of(run: RunDirectory) -> list[Path]:
    """The run directories of a study's sites, as far as they are here."""
    return [path for path in sorted(run.sites.iterdir()) if is_run(path)] if run.sites.is_dir() else []


def _at_site(division: dict[str, Any], site: str) -> dict[str, Any]:
    """A division whose cases and groups are told apart from those of other sites."""
    named = {key: division[key] for key in ("splits", "groups") if isinstance(division.get(key), dict)}
    renamed = {
        key: {split: [f"{site}/{name}" for name in names] for split, names in part.items()}
        for key, part in named.items()
    }
    return division | renamed


def _part(division: dict[str, Any], key: str, split: str) -> list[Any]:
    content = division.get(key)
    part = content.get(split) if isinstance(content, dict) else None
    return part if isinstance(part, list) else []


def _read_experiment(files: RunFiles) -> None:
    file = files.directory.experiment_file
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        files.notes.append(f"{file.name} is missing: the configuration is not known")
        return
    except (OSError, UnicodeDecodeError) as error:
        files.notes.append(f"{file.name} cannot be read: {error}")
        return
    files.experiment_text = "\n".join(mask(line) for line in text[:_LONGEST_TEXT].splitlines())
    if len(text) > _LONGEST_TEXT:
        files.experiment_text += f"\n# … {len(text) - _LONGEST_TEXT:,} more characters in {file.name}"
    try:
        parsed = parse_yaml(text)
    except yaml.YAMLError as error:
        files.notes.append(f"{file.name} is not valid YAML: {str(error).splitlines()[0]}")
        return
    files.experiment = parsed if isinstance(parsed, dict) else {}


def _read_object(files: RunFiles, file: Path) -> dict[str, Any]:
    if not file.exists():
        files.notes.append(f"{file.name} is missing: {_MEANING[file.name]}")
        return {}
    value = _or_note(files, read_json, file)
    if value is not None and not isinstance(value, dict):
        files.notes.append(f"{file.name} is not a JSON object")
    return value if isinstance(value, dict) else {}


_MEANING = {
    "provenance.json": "where the run came from is not known",
    "data.json": "there is no summary of the data",
    "result.json": "the run has not ended, or was killed",
    "summary.json": "the folds are not summed up yet",
}


def _read_tables(files: RunFiles, *, steps: bool) -> None:
    run = files.directory
    if run.history_file.exists():
        files.history = _or_note(files, _rows, run.history_file) or []
    elif not files.result.get("tested"):
        files.notes.append("history.csv is missing: no epoch was completed")
    if run.own_history_file.exists():
        files.own = _or_note(files, _rows, run.own_history_file) or []
    if steps and run.steps_file.exists():
        files.steps = _or_note(files, _few_rows, run.steps_file) or []


def _rows(file: Path) -> list[Row]:
    return list(read_rows(file))


def _few_rows(file: Path) -> list[Row]:
    return sampled(read_rows(file), _MOST_STEPS)


def sampled(rows: Iterable[Row], most: int) -> list[Row]:
    """At most `most` rows, evenly spread, of a table that may be too long to hold."""
    kept: list[Row] = []
    stride = 1
    for index, row in enumerate(rows):
        if index % stride == 0:
            kept.append(row)
        if len(kept) > most:
            kept, stride = kept[::2], stride * 2
    return kept


def _read_scores(files: RunFiles) -> None:
    folder = files.directory.scores
    for file in sorted(folder.glob("*.json")) if folder.is_dir() else []:
        content = _or_note(files, read_json, file)
        if isinstance(content, dict):
            files.scores[str(content.get("split") or file.stem)] = content
    if not files.scores and files.result.get("status") == "finished":
        files.notes.append("scores/ is missing or empty: there are only the scores of result.json")


def read_case_table(files: RunFiles, split: str) -> None:
    """Read the rows of cases of a split into `files.cases`, if there are any; of a study, those of its sites."""
    name = f"{Path(split).name}.csv"
    holders = [("", files.directory)] if (files.directory.scores / name).exists() else holders_of(files.directory)
    found = [(site, file) for site, holder in holders if (file := holder.scores / name).exists()]
    if not found or (files.has_folds and holders[0][0] and split != "validation"):
        return  # other splits than the held-out items come again in every fold
    if sum(file.stat().st_size for _, file in found) > _LARGEST_TABLE:
        files.notes.append(f"{name} is too large to be read for a report: there are no intervals")
        return
    tables = [(site, _or_note(files, read_cases, file)) for site, file in found]
    held = [(site, table) for site, table in tables if table is not None]
    if held:
        files.cases[split] = joined_cases(held) if held[0][0] else held[0][1]


def _or_note(files: RunFiles, read: Callable[[Path], Content], file: Path) -> Content | None:
    try:
        return read(file)
    except (RunDirectoryError, DataError) as error:
        files.notes.append(error.message)
        return None
