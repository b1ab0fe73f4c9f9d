"""From what was read to a split that can be loaded: scaled, shaped, transformed, kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from weft.config import DatasetConfig, Namespace, label_key
from weft.data import standardize
from weft.data.caches import DiskCache, ItemFolder, MemoryCache
from weft.data.chain import Chain, build_chain, loads_files
from weft.data.items import BaseItems, ColumnItems, DatasetItems, Transformed
from weft.data.parts import Part
from weft.data.recipes import ItemKeys, recipe
from weft.data.split_data import SplitData
from weft.errors import DataError

Cache = Literal["none", "memory", "disk"]


class Opener:
    """Makes splits of parts: in memory where nothing has to be done item by item.

    Args:
        dataset: the section `dataset` of the experiment.
        namespace: looks up names.
        cache: where items are kept after the base transforms.
        cache_folder: the folder for "disk".
        base: folder that relative paths are relative to.
    """

    def __init__(
        self, dataset: DatasetConfig, namespace: Namespace, cache: Cache, cache_folder: Path | None, base: Path
    ) -> None:
        self.dataset = dataset
        self.namespace = namespace
        self.cache = cache
        self.cache_folder = cache_folder
        self.base = base
        self._folders: dict[str, ItemFolder] = {}

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

    def moments(self, part: Part) -> list[standardize.Moments]:
        """What mean and scale of each input over a part follow from."""
        chains = self._chains(part)
        columns = part.of("input")
        if columns and not len(chains[0]) and not any(column.is_path for column in columns):
            return standardize.fit(tuple(column.values for column in columns))
        items = Transformed(len(part), self._load(part, chains[0]), self._keys(part))
        return standardize.fit_items(items[row] for row in range(len(items)))

    def _chains(self, part: Part) -> tuple[Chain, Chain]:
        transforms, known = self.dataset.transforms, self._known(part)
        return build_chain(transforms.base, self.namespace, known), build_chain(transforms.train, self.namespace, known)

    def _known(self, part: Part) -> dict[str, Any]:
        """What transforms are supplied with."""
        label = label_key(self.dataset)
        return {"keys": self._transformed_keys(part), **({} if label is None else {"label_key": label})}

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
        if self.cache == "disk" and len(chain):
            return DiskCache(load, ItemKeys(part.columns), self._folder(part))
        return MemoryCache(load, len(part)) if self.cache == "memory" else load

    def _folder(self, part: Part) -> ItemFolder:
        assert self.cache_folder is not None
        made_by = recipe(self.dataset.transforms.base, self.namespace, self._known(part), self.base)
        if made_by not in self._folders:
            self._folders[made_by] = ItemFolder(self.cache_folder, made_by)
        return self._folders[made_by]

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
