"""Checks of the files and folders that an experiment names: they must be there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from weft.config.component import Component
from weft.config.dataset import SPLITS, ArrayPair, DatasetConfig
from weft.config.experiment import Experiment, KeyPath
from weft.config.federation import SiteConfig
from weft.config.hints import did_you_mean
from weft.errors import Problem


def named_files(experiment: Experiment) -> Iterator[tuple[KeyPath, Path, str]]:
    """Every path to data and weights that an experiment names: key path, path as written, and "file" or "folder"."""
    dataset = experiment.dataset
    for path, source in _sources(experiment):
        yield from _of_source(path, source)
    if dataset.split is not None and dataset.split.files is not None:
        yield ("dataset", "split", "files"), dataset.split.files, "folder"
    if experiment.model.weights is not None:
        yield ("model", "weights"), experiment.model.weights, "file"


def _sources(experiment: Experiment) -> Iterator[tuple[KeyPath, DatasetConfig | SiteConfig]]:
    """The sections that say where data lie: one, or in a study one for each site."""
    yield ("dataset",), experiment.dataset
    if experiment.federation is not None:
        for name, site in experiment.federation.sites.items():
            yield ("federation", "sites", name), site


def _of_source(at: KeyPath, source: DatasetConfig | SiteConfig) -> Iterator[tuple[KeyPath, Path, str]]:
    if source.table is not None:
        for name in ("file", *SPLITS):
            if (path := getattr(source.table, name)) is not None:
                yield (*at, "table", name), path, "file"
        if source.table.root is not None:
            yield (*at, "table", "root"), source.table.root, "folder"
    if isinstance(source.arrays, ArrayPair):
        yield from _pair((*at, "arrays"), source.arrays)
    elif source.arrays is not None and not isinstance(source.arrays, Component):
        for split, pair in source.arrays.items():
            yield from _pair((*at, "arrays", split), pair)
    if source.folder is not None:
        yield (*at, "folder"), source.folder, "folder"


def _pair(path: KeyPath, pair: ArrayPair) -> Iterator[tuple[KeyPath, Path, str]]:
    yield (*path, "inputs"), pair.inputs, "file"
    if pair.targets is not None:
        yield (*path, "targets"), pair.targets, "file"


def check_files(experiment: Experiment) -> Iterator[Problem]:
    """Files and folders that are not there, or are the other of the two."""
    tables = {(*path, "table"): source.table for path, source in _sources(experiment)}
    for key_path, written, kind in named_files(experiment):
        path = experiment.path(written)
        table = tables.get(key_path[:-1])
        if kind == "file" and table is not None and table.root is not None:
            below_root = experiment.path(table.root) / written  # tables may also lie where their files do
            path = below_root if not path.is_file() and below_root.is_file() else path
        if not path.exists():
            here = Path.cwd() / written  # where a shell's completion found it
            hint = f"paths are relative to the experiment file; write {here}" if here.exists() else near_files(path)
            yield Problem(f"there is no {kind} {path}", hint, key_path)
        elif path.is_file() != (kind == "file"):
            yield Problem(f"expected a {kind}, found a {'file' if path.is_file() else 'folder'}: {path}", "", key_path)


def near_files(path: Path) -> str:
    """A hint for a file that is not there: the nearest name in its folder, or the first folder that is missing."""
    for parent in path.parents:
        if parent.is_dir():
            if parent != path.parent:
                return f"there is no folder {path.relative_to(parent).parts[0]!r} in {parent}"
            names = sorted(entry.name for entry in parent.iterdir() if not entry.name.startswith("."))
            hint = did_you_mean(path.name, names)
            return hint if hint.startswith("did you mean") else "paths are relative to the experiment file"
    return "paths are relative to the experiment file"
