"""Opening the data of an experiment: read, divide, scale, shape, transform."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from weft.config import ArrayPair, Component, DatasetConfig, Namespace, TableConfig, label_key
from weft.data import standardize
from weft.data.array_source import part_from_files, part_from_object
from weft.data.chain import Chain, MemoryCache, build_chain, loads_files
from weft.data.dataset_source import parts_from_classes
from weft.data.folder_source import parts_from_folder
from weft.data.items import BaseItems, ColumnItems, DatasetItems, Transformed
from weft.data.parts import Part
from weft.data.split_data import SplitData
from weft.data.splits import NAMES, divide, split_files
from weft.data.summary import summarize
from weft.data.tables import part_from_table, read_table
from weft.data.targets import TargetKind, encode_targets
from weft.errors import DataError, UsageError

Cache = Literal["none", "memory", "disk"]


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
        """Which case is in which split, for JSON."""
        return {**self.division, "splits": {name: split.cases for name, split in self.splits.items()}}


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
        cache: "memory" keeps what the base transforms made; "disk" is not built yet and refused.

    Raises:
        DataError: data are missing, unreadable or do not fit the experiment.
        ConfigError: a component cannot be found or built.
        UsageError: folds without a chosen fold, or a cache that there is not.
    """
    if cache not in ("none", "memory"):
        raise UsageError(f"run.cache is {cache!r}, which is not available yet", "use memory, or none")
    known = statistics or {}
    parts, classes = encode_targets(read_parts(dataset, namespace, base), target_kind, known.get("classes"))
    parts, division = _divide(parts, dataset, seed, fold, base)
    if dataset.load_limit is not None:
        parts = {name: part.take(range(min(dataset.load_limit, len(part)))) for name, part in parts.items()}
    opener = _Opener(dataset, namespace, cache)
    scales = known.get("standardize")
    if dataset.standardize and scales is None:
        if "train" not in parts:
            raise DataError("standardize needs a training split", "give one, or the statistics of an earlier run")
        scales = opener.fit(parts["train"])
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


def fold_count(dataset: DatasetConfig, base: Path) -> int | None:
    """Number of folds that the experiment's split has; None without cross-validation."""
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
        return columns[0].values.tolist()  # type: ignore[no-any-return]
    marks = [column.values.reshape(len(part), -1).tolist() for column in several]
    if marks and all(value in (0.0, 1.0) for rows in marks for row in rows for value in row):
        return [str([column[row] for column in marks]) for row in range(len(part))]
    return None


class _Opener:
    """Makes splits of parts: in memory where nothing has to be done item by item."""

    def __init__(self, dataset: DatasetConfig, namespace: Namespace, cache: Cache) -> None:
        self.dataset = dataset
        self.namespace = namespace
        self.cache = cache

    def open(self, name: str, part: Part, scales: list[dict[str, Any]] | None) -> SplitData:
        """The split of a part; inputs are scaled where there are scales."""
        chains = self._chains(part)
        arrays = self._arrays(part, scales) if not len(chains[0]) else None
        keys = self._keys(part)
        finish = self._finish(scales)
        if arrays is not None:
            plain: Any = ArrayItems(arrays)
        elif part.dataset is not None and not len(chains[0]) and finish is None:
            plain = part.dataset
        else:
            plain = Transformed(len(part), self._load(part, chains[0]), keys, finish=finish)
        augmented = None
        if name == "train" and len(chains[1]):
            load = plain.load if isinstance(plain, Transformed) else self._load(part, chains[0])
            augmented = Transformed(len(part), load, keys, train=chains[1], finish=finish)
        return SplitData(
            name,
            plain,
            part.cases,
            part.groups,
            arrays,
            augmented,
            keys,
            part.source,
            part.rows,
            part.row_word,
            self.dataset.on_bad_item == "skip",
        )

    def fit(self, part: Part) -> list[dict[str, Any]]:
        """Mean and scale of each input over a part."""
        chains = self._chains(part)
        columns = part.of("input")
        if columns and not len(chains[0]) and not any(column.is_path for column in columns):
            return standardize.fit(tuple(column.values for column in columns))
        items = Transformed(len(part), self._load(part, chains[0]), self._keys(part))
        return standardize.fit_items(items[row] for row in range(len(items)))

    def _chains(self, part: Part) -> tuple[Chain, Chain]:
        transforms = self.dataset.transforms
        known: dict[str, Any] = {"keys": self._transformed_keys(part)}
        if (label := label_key(self.dataset)) is not None:
            known["label_key"] = label
        return build_chain(transforms.base, self.namespace, known), build_chain(transforms.train, self.namespace, known)

    def _transformed_keys(self, part: Part) -> list[str]:
        """What transforms without `keys` work on: files; else what has at least two axes; else the inputs."""
        if part.dataset is not None:
            return [*(self.dataset.inputs or ["inputs"]), *self.dataset.targets]
        paths = [column.name for column in part.columns if column.is_path]
        images = [column.name for column in part.columns if not column.is_path and column.values.dim() > 2]
        return paths or images or [column.name for column in part.of("input")]

    def _keys(self, part: Part) -> tuple[list[str], list[str]]:
        if part.dataset is None:
            return [column.name for column in part.of("input")], [column.name for column in part.of("target")]
        return self.dataset.inputs, self.dataset.targets

    def _load(self, part: Part, chain: Chain) -> Callable[[int], Any]:
        load: Callable[[int], Any]
        if part.dataset is not None:
            load = DatasetItems(part.dataset, self._keys(part))
        else:
            load = ColumnItems(part.columns, loads_files(self.dataset.transforms.base))
        if len(chain):
            load = BaseItems(load, chain)
        return MemoryCache(load, len(part)) if self.cache == "memory" else load

    def _arrays(self, part: Part, scales: list[dict[str, Any]] | None) -> tuple[Any, Any] | None:
        if part.dataset is not None or any(column.is_path for column in part.columns):
            return None
        inputs = [column.values for column in part.of("input")]
        targets = [column.values for column in part.of("target")]
        finish = self._finish(scales, axes=1)
        if finish is not None:
            inputs = [finish(values, place) for place, values in enumerate(inputs)]
        return _one_or_tuple(inputs), _joined(targets)

    def _finish(self, scales: list[dict[str, Any]] | None, axes: int = 0) -> Callable[[Tensor, int], Tensor] | None:
        """Scaling and shaping of an input; `axes` is 1 when it has an axis of items."""
        shape = self.dataset.shape
        if scales is None and shape is None:
            return None
        return Finish(scales, shape, axes)


@dataclass(frozen=True)
class Finish:
    """Scales and shapes an input.

    Args:
        scales: mean and scale of each input, None for no scaling.
        shape: of one item, None to leave it.
        axes: 1 when values have an axis of items in front, 0 for single items.
    """

    scales: list[dict[str, Any]] | None
    shape: list[int] | None
    axes: int

    def __call__(self, values: Tensor, place: int) -> Tensor:
        if self.scales is not None:
            items = values if self.axes else values[None]
            items = standardize.apply(self.scales[place], items)
            values = items if self.axes else items[0]
        if self.shape is None:
            return values
        try:
            return values.reshape([*values.shape[: self.axes], *self.shape])
        except RuntimeError as error:
            raise DataError(
                f"an input of shape {list(values.shape[self.axes :])} cannot be brought to dataset.shape {self.shape}",
                "the product of the sizes must stay the same",
            ) from error


class ArrayItems:
    """Rows of arrays in memory as a map-style dataset of (inputs, targets)."""

    def __init__(self, arrays: tuple[Any, Any]) -> None:
        self.arrays = arrays

    def __len__(self) -> int:
        inputs = self.arrays[0]
        return len(inputs[0] if isinstance(inputs, tuple) else inputs)

    def __getitem__(self, row: int) -> tuple[Any, Any]:
        inputs, targets = self.arrays
        found = tuple(part[row] for part in inputs) if isinstance(inputs, tuple) else inputs[row]
        return found, None if targets is None else targets[row]


def _one_or_tuple(values: list[Tensor]) -> Any:
    return values[0] if len(values) == 1 else tuple(values)


def _joined(targets: list[Tensor]) -> Any:
    """Several target columns of numbers as one matrix."""
    if not targets:
        return None
    if len(targets) == 1:
        return targets[0]
    return torch.stack(targets, dim=1)
