"""Opening the data of an experiment: read, divide, scale, shape, transform."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from weft.config import ArrayPair, Component, DatasetConfig, Namespace, TableConfig
from weft.data.array_source import part_from_files, part_from_object
from weft.data.dataset_source import parts_from_classes
from weft.data.folder_source import parts_from_folder
from weft.data.opener import Cache, Opener
from weft.data.parts import Part
from weft.data.split_data import SplitData
from weft.data.splits import NAMES, divide, split_files
from weft.data.standardize import Moments
from weft.data.summary import summarize
from weft.data.tables import part_from_table, read_table
from weft.data.targets import TargetKind, encode_targets
from weft.errors import DataError, UsageError


@dataclass
class Data:
    """The data of an experiment.

    Attributes:
        splits: train, validation and test, as far as there are.
        classes: names of the classes by label; None where targets are no classes, or known only from the items.
        statistics: what evaluating needs to treat data as training did: class names, mean and scale; for JSON.
        fold_count: number of folds; None without cross-validation.
        fold: the fold that is validated on, from 1; None without cross-validation.
        division: how the splits came about, for the record.
    """

    splits: dict[str, SplitData]
    classes: list[str] | None = None
    statistics: dict[str, Any] = field(default_factory=dict)
    fold_count: int | None = None
    fold: int | None = None
    division: dict[str, Any] = field(default_factory=dict)

    def summary(self) -> dict[str, Any]:
        """Numbers of items and classes, shapes and ranges of each split, for JSON."""
        return summarize(self)

    def record(self) -> dict[str, Any]:
        """Which case is in which split, and of which group, for JSON."""
        record = {**self.division, "splits": {name: split.cases for name, split in self.splits.items()}}
        groups = {name: split.groups for name, split in self.splits.items() if split.groups is not None}
        return record | {"groups": groups} if groups else record


def open_data(
    dataset: DatasetConfig,
    namespace: Namespace,
    *,
    seed: int,
    fold: int | None,
    base: Path,
    statistics: dict[str, Any] | None = None,
    target_kind: TargetKind = "auto",
    cache: Cache = "none",
    cache_folder: Path | None = None,
) -> Data:
    """Open the data of an experiment.

    Args:
        dataset: the section `dataset` of the experiment.
        namespace: looks up components.
        seed: the experiment's seed; decides the division where `split.seed` does not.
        fold: which fold is validated on, from 1; None without cross-validation.
        base: folder that relative paths are relative to.
        statistics: those of an earlier run, so that data are scaled and labelled as its training data were.
        target_kind: "class" or "number"; "auto" takes text and whole numbers for classes.
        cache: "memory" and "disk" keep what the base transforms made; the result is the same to the bit.
        cache_folder: where "disk" keeps it; runs and processes may share the folder.

    Raises:
        DataError: data are missing, unreadable or do not fit the experiment.
        ConfigError: a component cannot be found or built.
        UsageError: folds without a chosen fold, or a cache on disk without a folder or for a torch dataset.
    """
    if cache == "disk" and dataset.class_ is not None:
        raise UsageError(
            "run.cache is disk, but nothing tells when items of a torch dataset change", "use memory, or none"
        )
    if cache == "disk" and cache_folder is None:
        raise UsageError("a cache on disk needs a folder", "give cache_folder")
    known = statistics or {}
    parts, classes = encode_targets(read_parts(dataset, namespace, base), target_kind, known.get("classes"))
    parts, division = _divided(parts, dataset, seed, fold, base)
    opener = Opener(dataset, namespace, cache, cache_folder, base)
    scales = known.get("standardize")
    if dataset.standardize and scales is None:
        if "train" not in parts:
            raise DataError("standardize needs a training split", "give one, or the statistics of an earlier run")
        scales = [moments.as_dict() for moments in opener.moments(parts["train"])]
    splits = {name: opener.open(name, part, scales if dataset.standardize else None) for name, part in parts.items()}
    kept = {"classes": classes, "standardize": scales if dataset.standardize else None}
    return Data(
        splits,
        classes,
        {name: value for name, value in kept.items() if value is not None},
        fold_count(dataset, base),
        fold,
        division,
    )


def class_names(dataset: DatasetConfig, namespace: Namespace, *, base: Path, kind: TargetKind) -> list[str] | None:
    """Names of the classes that occur in the data; None where targets are no classes, or known only from the items.

    Args:
        dataset: the section of the experiment.
        namespace: where its components are found.
        base: folder that relative paths start from.
        kind: what targets are for the task.

    Raises:
        ConfigError, DataError: the data cannot be read.
    """
    return encode_targets(read_parts(dataset, namespace, base), kind)[1]


def measure(
    dataset: DatasetConfig,
    namespace: Namespace,
    *,
    seed: int,
    fold: int | None,
    base: Path,
    kind: TargetKind,
    classes: Sequence[str] | None,
) -> list[Moments]:
    """What mean and scale of each input over the training split follow from; none without such a split.

    Args:
        dataset, namespace, seed, fold, base, kind: as in `open_data`.
        classes: names of the classes.
    """
    parts, _ = encode_targets(read_parts(dataset, namespace, base), kind, classes)
    parts, _ = _divided(parts, dataset, seed, fold, base)
    if "train" not in parts or not len(parts["train"]):
        return []
    return Opener(dataset, namespace, "none", None, base).moments(parts["train"])


def _divided(
    parts: dict[str, Part], dataset: DatasetConfig, seed: int, fold: int | None, base: Path
) -> tuple[dict[str, Part], dict[str, Any]]:
    parts, division = _divide(parts, dataset, seed, fold, base)
    if dataset.load_limit is not None:
        parts = {name: part.take(range(min(dataset.load_limit, len(part)))) for name, part in parts.items()}
    return parts, division


def fold_count(dataset: DatasetConfig, base: Path) -> int | None:
    """Number of folds that the experiment's split has; None without cross-validation.

    Args:
        dataset: the section of the experiment.
        base: folder that relative paths start from.

    Raises:
        DataError: the folder of split files is not there, or empty.
    """
    split = dataset.split
    if split is None:
        return None
    if split.files is not None:
        files = split_files(base / split.files)
        return len(files) if len(files) > 1 else None
    return split.folds


def read_parts(dataset: DatasetConfig, namespace: Namespace, base: Path) -> dict[str, Part]:
    """The source as it is: a part for each split that is given, or one, called train."""
    if dataset.table is not None:
        return _table_parts(dataset, base)
    if dataset.arrays is not None:
        return _array_parts(dataset.arrays, namespace, base)
    if dataset.folder is not None:
        return parts_from_folder(base / dataset.folder)
    if dataset.class_ is not None:
        return parts_from_classes(dataset.class_, namespace)
    raise DataError("the experiment names no data", "give one of table, arrays, folder or class under dataset")


def _table_parts(dataset: DatasetConfig, base: Path) -> dict[str, Part]:
    table = dataset.table
    assert table is not None
    files = {"train": table.file} if table.file is not None else {name: getattr(table, name) for name in NAMES}
    parts = {}
    for name, file in files.items():
        if file is not None:
            path = table_file(table, file, base)
            root = base / table.root if table.root is not None else path.parent
            parts[name] = part_from_table(read_table(path, table.separator), dataset, root)
    return parts


def table_file(table: TableConfig, file: Path, base: Path) -> Path:
    """Where a table lies: relative to `base`, or else to the table's root."""
    path = base / file
    if table.root is not None and not path.is_file() and (base / table.root / file).is_file():
        return base / table.root / file
    return path


def _array_parts(arrays: Any, namespace: Namespace, base: Path) -> dict[str, Part]:
    if isinstance(arrays, ArrayPair):
        return {"train": part_from_files(arrays, base)}
    if isinstance(arrays, Mapping):
        return {name: part_from_files(arrays[name], base) for name in NAMES if name in arrays}
    assert isinstance(arrays, Component)
    return {"train": part_from_object(namespace.build(arrays, "arrays"), arrays.name)}


def _divide(
    parts: dict[str, Part], dataset: DatasetConfig, seed: int, fold: int | None, base: Path
) -> tuple[dict[str, Part], dict[str, Any]]:
    split = dataset.split
    if split is None:
        if fold is not None:
            raise DataError(f"fold is {fold}, but the split has no folds", "add dataset.split.folds, or leave fold out")
        return parts, {"division": "given"}
    if fold is None and (count := fold_count(dataset, base)) is not None:
        raise UsageError(f"the split has {count} folds and none is chosen", f"set fold to a number from 1 to {count}")
    whole = parts.get("train")
    if whole is None or "validation" in parts:
        raise DataError("split divides data in one piece, but validation data are given", "remove one of them")
    rows = divide(
        len(whole),
        split,
        seed=seed,
        fold=fold,
        base=base,
        cases=whole.cases,
        strata=_strata(whole) if split.stratified else None,
        groups=whole.groups,
    )
    if "test" in rows and "test" in parts:
        raise DataError("split makes a test split, but test data are given", "give the split two parts only")
    divided = {name: whole.take(chosen) for name, chosen in rows.items()}
    if "test" in parts:
        divided["test"] = parts["test"]
    return divided, {"division": split.model_dump(mode="json", exclude_none=True), "seed": seed, "fold": fold}


def _strata(part: Part) -> list[Any] | None:
    """The class of each item; with several targets their combination."""
    if part.dataset is not None:
        return None if part.labels is None else list(map(str, part.labels))
    columns = [
        column for column in part.of("target") if not column.is_path and not column.values.dtype.is_floating_point
    ]
    several = [column for column in part.of("target") if not column.is_path and column.values.dtype.is_floating_point]
    if columns and columns[0].values.dim() == 1:
        classes: list[Any] = columns[0].values.tolist()
        return classes
    marks = [column.values.reshape(len(part), -1).tolist() for column in several]
    if marks and all(value in (0.0, 1.0) for rows in marks for row in rows for value in row):
        return [str([column[row] for column in marks]) for row in range(len(part))]
    return None
