"""What differs between runs: configuration, data, code and environment, from what their directories recorded."""

from __future__ import annotations

import difflib
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from weft.errors import RunDirectoryError
from weft.runs.directory import RunDirectory
from weft.runs.experiments import flatten
from weft.runs.jsonfiles import read_json
from weft.runs.secrets import MASK, is_secret_name, mask
from weft.runs.yamlfiles import parse_yaml

_ENVIRONMENT = ("versions", "packages", "platform", "cpu", "gpu", "threads", "run_threads", "device", "environment")
_TOLD_BY_PACKAGES = ("versions.weft", "versions.numpy", "versions.monai")
_MOST_LINES = 400  # of one file's diff
_FEW = 5


@dataclass(frozen=True, slots=True)
class Difference:
    """An entry in which runs differ.

    Args:
        key: dotted, as in the file it is from.
        values: that of each run; None where a run has no such entry.
    """

    key: str
    values: list[Any]


@dataclass
class RunRecord:
    """What a run wrote down about itself; empty where a file is missing.

    Args:
        path: of the run.
        experiment: experiment.yaml.
        provenance: provenance.json.
        divisions: splits.json, of k folds those of each fold.
    """

    path: Path
    experiment: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    divisions: list[dict[str, Any]] = field(default_factory=list)

    @cached_property
    def places(self) -> dict[str, str]:
        """The split of each case; of k folds the splits in their order."""
        return _places(self.divisions)


def read_record(path: Path) -> RunRecord:
    """Read what a run, or a run of k folds, recorded.

    Raises:
        RunDirectoryError: there is no run, or a file is damaged.
    """
    run = RunDirectory.open(path)
    holders = [RunDirectory(fold) for fold in run.folds()] or [run]
    provenance = next((one.provenance_file for one in [run, *holders] if one.provenance_file.exists()), None)
    return RunRecord(
        run.path,
        _experiment(run.experiment_file),
        _dict(read_json(provenance)) if provenance is not None else {},
        [_dict(read_json(one.splits_file)) for one in holders if one.splits_file.exists()],
    )


def _experiment(file: Path) -> dict[str, Any]:
    try:
        return _dict(parse_yaml(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RunDirectoryError(f"{file} cannot be read: {error}", "put it back as the run wrote it") from error


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def unlike(entries: Sequence[Mapping[str, Any]]) -> list[Difference]:
    """The dotted keys of nested dicts in which not all are the same; values that look like secrets are masked."""
    flat = [dict(flatten(plain_components(dict(entry)))) for entry in entries]
    found = []
    for key in dict.fromkeys(key for one in flat for key in one):
        values = [None if (value := one.get(key)) in ("[]", "{}") else value for one in flat]  # nothing is nothing
        if any(type(value) is not type(values[0]) or value != values[0] for value in values[1:]):
            found.append(Difference(key, [_masked(key, value) for value in values]))
    return found


def _masked(key: str, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return MASK if is_secret_name(key) else mask(value)


def plain_components(value: Any) -> Any:
    """`{Name: {}}` written as `Name`: both mean the same component."""
    if isinstance(value, Mapping):
        if len(value) == 1:
            name, arguments = next(iter(value.items()))
            if arguments in ({}, None) and isinstance(name, str) and name:
                return name
        return {key: plain_components(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_components(item) for item in value]
    return value


def configuration_differences(records: Sequence[RunRecord]) -> list[Difference]:
    """Dotted keys of the experiments that differ; what was left out stands for its default."""
    wrapped = [{**record.experiment} for record in records]
    return [one for one in unlike(wrapped) if one.key]


def environment_differences(records: Sequence[RunRecord]) -> list[Difference]:
    """Packages, Python, hardware, threads and variables that differ."""
    parts = [{name: record.provenance.get(name) for name in _ENVIRONMENT} for record in records]
    return [one for one in unlike(parts) if one.key not in _TOLD_BY_PACKAGES]


# --- data -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DataChange:
    """How the data of a run differ from those of the first.

    Args:
        same: whether the digests agree; None where one was not taken.
        changed, added, removed: files.
        moved: cases that are in another split, as "case: test, then train".
        added_cases, removed_cases: how many cases only one of both has.
        leaked: test or validation cases of one that the other was trained on.
    """

    same: bool | None
    changed: list[str]
    added: list[str]
    removed: list[str]
    moved: list[str]
    added_cases: int
    removed_cases: int
    leaked: int

    @property
    def any(self) -> bool:
        """Whether anything differs."""
        lists = (self.changed, self.added, self.removed, self.moved)
        return self.same is False or any(lists) or bool(self.added_cases or self.removed_cases)


def data_change(first: RunRecord, second: RunRecord) -> DataChange:
    """Compare the manifests of the data and who is in which split."""
    before, after = _dict(first.provenance.get("data")), _dict(second.provenance.get("data"))
    digests = before.get("digest"), after.get("digest")
    old, new = _files(before), _files(after)
    places = first.places
    others = places if second.divisions == first.divisions else second.places
    same = digests[0] == digests[1] if all(digests) else None
    # names of other data mean other cases; of another number of folds every case has another place
    alike = same is not False or bool(set(old) & set(new))
    both = (
        [case for case in places if case in others] if alike and len(first.divisions) == len(second.divisions) else []
    )
    moved = [f"{case}: {places[case]}, then {others[case]}" for case in both if places[case] != others[case]]
    leaked = sum("train" in (places[case], others[case]) and places[case] != others[case] for case in both)
    return DataChange(
        same,
        sorted(path for path in old if path in new and old[path] != new[path]),
        sorted(set(new) - set(old)),
        sorted(set(old) - set(new)),
        moved,
        len(set(others) - set(places)),
        len(set(places) - set(others)),
        leaked,
    )


def _files(data: Mapping[str, Any]) -> dict[str, str]:
    files = data.get("files")
    return {str(file.get("path")): str(file.get("sha256")) for file in files or [] if isinstance(file, dict)}


def _places(divisions: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    places: dict[str, str] = {}
    for division in divisions:
        for split, cases in _dict(division.get("splits")).items():
            for case in cases if isinstance(cases, list) else []:
                known = places.get(str(case))
                places[str(case)] = f"{known}, {split}" if known and len(divisions) > 1 else str(split)
    return places


# --- code -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FileChange:
    """A file of the user's code that differs: lines added and removed, and the unified diff."""

    name: str
    added: int
    removed: int
    diff: str


def code_differences(records: Sequence[RunRecord]) -> list[Difference]:
    """Weft's version and digest, and the commit of the experiment's repository, where they differ."""
    parts = []
    for record in records:
        git, versions = _dict(record.provenance.get("git")), _dict(record.provenance.get("versions"))
        parts.append(
            {
                "weft": versions.get("weft"),
                "weft code": record.provenance.get("weft_code"),
                "git": {key: git.get(key) for key in ("commit", "branch", "dirty")},
            }
        )
    return unlike(parts)


def changed_patches(first: Path, second: Path) -> list[FileChange]:
    """The user's files that are not the same in two runs.

    Args:
        first, second: the run directories.
    """
    folders = [RunDirectory(path).code / "patches" for path in (first, second)]
    texts = [
        {file.relative_to(folder).as_posix(): _text(file) for file in sorted(folder.rglob("*")) if file.is_file()}
        for folder in folders
    ]
    found = []
    for name in sorted({*texts[0], *texts[1]}):
        before, after = (text.get(name, "") for text in texts)
        if before != after:
            lines = list(difflib.unified_diff(before.splitlines(), after.splitlines(), name, name, lineterm="", n=2))
            added = sum(line.startswith("+") for line in lines[2:])
            removed = sum(line.startswith("-") for line in lines[2:])
            if len(lines) > _MOST_LINES:
                lines = [*lines[:_MOST_LINES], f"… {len(lines) - _MOST_LINES} more lines"]
            found.append(FileChange(name, added, removed, "\n".join(line[:1] + mask(line[1:]) for line in lines)))
    return found


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8", errors="replace")


def changed_weft_files(first: Path, second: Path) -> list[str]:
    """Files of Weft itself that are not the same in two runs; none where one of them kept no copy."""
    archives = [RunDirectory(path).code / "weft.zip" for path in (first, second)]
    if not all(archive.exists() for archive in archives):
        return []
    try:
        contents = [_contents(archive) for archive in archives]
    except (OSError, zipfile.BadZipFile) as error:
        raise RunDirectoryError(
            f"the copy of Weft in a run cannot be read: {error}", "see code/weft.zip of both runs"
        ) from error
    return sorted(name for name in {*contents[0], *contents[1]} if contents[0].get(name) != contents[1].get(name))


def _contents(archive: Path) -> dict[str, int]:
    with zipfile.ZipFile(archive) as opened:
        return {entry.filename: entry.CRC for entry in opened.infolist()}


# --- in words ---------------------------------------------------------------------------------------------------------


def causes(first: Path, second: Path) -> Iterator[str]:
    """What could explain that two runs of one experiment differ, a line each: data, configuration, code, environment.

    Args:
        first, second: the run directories.
    """
    records = [read_record(path) for path in (first, second)]
    yield from _data_causes(*records)
    prints = [str(record.provenance.get("fingerprint")) for record in records]
    if prints[0] != prints[1]:
        yield f"fingerprint: {prints[0][:16]}… and {prints[1][:16]}…"
    for one in configuration_differences(records):
        if one.key != "name" and not one.key.startswith("run."):
            yield f"configuration {one.key}: {one.values[0]} and {one.values[1]}"
    yield from _code_causes(records)
    for one in environment_differences(records):
        yield f"{one.key}: {one.values[0]} and {one.values[1]}"


def _data_causes(first: RunRecord, second: RunRecord) -> Iterator[str]:
    change = data_change(first, second)
    if change.same is False:
        digests = [str(_dict(record.provenance.get("data")).get("digest")) for record in (first, second)]
        yield f"data: {digests[0]} and {digests[1]}"
    for what, files in (("changed", change.changed), ("added", change.added), ("removed", change.removed)):
        if files:
            yield f"data: {len(files)} files {what}: {_some(files)}"
    if change.moved:
        yield f"data: {len(change.moved)} cases are in another split: {_some(change.moved)}"


def _code_causes(records: Sequence[RunRecord]) -> Iterator[str]:
    for one in code_differences(records):
        yield f"code {one.key}: {one.values[0]} and {one.values[1]}"
    if any(one.key == "weft code" for one in code_differences(records)):
        files = changed_weft_files(records[0].path, records[1].path)
        if files:
            yield f"code: {len(files)} files of Weft: {_some(files)}"
    for change in changed_patches(records[0].path, records[1].path):
        yield f"code: {change.name} (+{change.added} −{change.removed} lines)"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_FEW]) + (", …" if len(names) > _FEW else "")
