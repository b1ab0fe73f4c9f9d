"""scorch's DataSet as a dataset of Weft's."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, ClassVar
from weakref import WeakValueDictionary

from weft.data.order import seed_for
from weft.data.randomness import seeded
from weft.data.samples import NO_SAMPLES, Sample
from weft.errors import DataError
from weft.interop.scorch.contract import broken, called
from weft.interop.scorch.literals import parse_arguments
from weft.interop.usercode import file_of

MODES = {"train": "train", "validation": "valid", "test": "test"}


class SharedIndex:
    """One DataSetIndex for the datasets of a run, however many modes they have."""

    _known: ClassVar[WeakValueDictionary[tuple[Any, ...], SharedIndex]] = WeakValueDictionary()

    def __init__(self, value: Any) -> None:
        self.value = value
        self.modes: set[str] = set()

    @classmethod
    def of(cls, index: type, path: str, arguments: str, seed: int, mode: str) -> SharedIndex:
        """The index that another mode of the same run made already, or a new one.

        What it draws at random follows from the seed: it is the same in every process and after a restart.
        """
        key = (index, path, arguments, seed)
        found = cls._known.get(key)
        if found is None or mode in found.modes:  # a second run in this process has an index of its own
            keywords = parse_arguments(arguments, "--dataset-args")
            with seeded(None, seed_for(seed, -1)):
                found = cls(called(index, "DataSetIndex", index, path, **keywords))
            cls._known[key] = found
        found.modes.add(mode)
        return found


class ScorchItems:
    """Items of a scorch DataSet: lists of inputs and targets, without those that are None.

    An index with a method `shuffle` is shuffled after each epoch of training, as often as epochs went before: training
    has a copy of it then, so that scores are always taken from the same items.

    Args:
        dataset: the class DataSet.
        path: what `--dataset-path` says.
        mode: train, valid or test.
        index: the class DataSetIndex; without it DataSet is given the path itself.
        arguments: further arguments of the index (or of DataSet, where there is no index), as `--dataset-args`.
        seed: decides what the index draws at random.
    """

    def __init__(
        self,
        dataset: type,
        path: str,
        mode: str = "train",
        index: type | None = None,
        arguments: str = "",
        seed: int = 0,
    ) -> None:
        self.kind, self.mode, self.seed = dataset, mode, seed
        self._shared = None if index is None else SharedIndex.of(index, path, arguments, seed, mode)
        keywords = {} if index is not None else parse_arguments(arguments, "--dataset-args")
        with seeded(None, seed_for(seed, -2)):
            self.steady = called(
                dataset, "DataSet", dataset, self._shared.value if self._shared else path, mode=mode, **keywords
            )
        self.length = self._length()
        self.shuffled: Any = None
        self._shuffles = 0
        if mode == "train" and callable(getattr(self._index(self.steady), "shuffle", None)):
            self.shuffled = self._copy()
        self.current = self.steady
        self.counts: tuple[int, int] | None = None  # inputs and targets of an item
        self._look()

    def _length(self) -> int:
        found = called(self.kind, "DataSet.__len__", self.steady.__len__) if hasattr(self.steady, "__len__") else None
        if isinstance(found, bool) or not isinstance(found, int) or found < 0:
            raise broken(self.kind, f"DataSet.__len__ returned {found!r} in mode {self.mode!r}", "DataSet")
        if found == 0:
            raise DataError(f"{file_of(self.kind)}: DataSet has no items in mode {self.mode!r}", "check --dataset-path")
        return found

    def _index(self, dataset: Any) -> Any:
        return getattr(dataset, "ds_index", None)

    def _copy(self) -> Any:
        """DataSet and index, to be shuffled."""
        self._shuffles = 0
        return copy.deepcopy(self.steady)

    def set_epoch(self, epoch: int) -> None:
        """Bring the index into the order of an epoch, counted from 0; scores are taken in epoch 0's."""
        if self.shuffled is None or epoch == 0:
            self.current = self.steady
            return
        if epoch < self._shuffles:
            self.shuffled = self._copy()
        index = self._index(self.shuffled)
        while self._shuffles < epoch:
            self._shuffles += 1
            with seeded(index, seed_for(self.seed, -2 - self._shuffles)):
                called(type(index), "DataSetIndex.shuffle", index.shuffle)
        self.current = self.shuffled

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, row: int) -> Any:
        item = called(self.kind, f"DataSet.__getitem__({row})", self.current.__getitem__, row)
        if item is None:
            return NO_SAMPLES
        inputs, targets = self._lists(item, row)
        return Sample(tuple(inputs), tuple(targets))

    def _lists(self, item: Any, row: int) -> tuple[list[Any], list[Any]]:
        """The lists of an item, without what is None."""
        good = isinstance(item, Sequence) and len(item) == 2 and all(isinstance(part, list | tuple) for part in item)
        if not good:
            what = f"DataSet.__getitem__({row}) in mode {self.mode!r} returned {_shape(item)}"
            raise broken(self.kind, what, "DataSet")
        inputs, targets = ([value for value in part if value is not None] for part in item)
        if not inputs:
            raise broken(self.kind, f"DataSet.__getitem__({row}) in mode {self.mode!r} has no inputs", "DataSet")
        counts = len(inputs), len(targets)
        if self.counts is not None and self.counts != counts:
            what = f"returned {_words(counts)}, other items have {_words(self.counts)} (None is not counted)"
            raise broken(self.kind, f"DataSet.__getitem__({row}) in mode {self.mode!r} {what}", "DataSet")
        self.counts = counts
        return inputs, targets

    def _look(self) -> None:
        """See that there is an item at all, so that a file in which every item is None is told as such."""
        with seeded(self.steady, seed_for(self.seed, -2)):
            for row in range(self.length):
                if self[row] is not NO_SAMPLES:
                    return
        raise DataError(
            f"{file_of(self.kind)}: all {self.length} items of DataSet in mode {self.mode!r} are None",
            "None items are left out; __getitem__ must return lists of inputs and targets for some",
        )


def _words(counts: tuple[int, int]) -> str:
    return f"{counts[0]} input{'s' * (counts[0] != 1)} and {counts[1]} target{'s' * (counts[1] != 1)}"


def _shape(item: Any) -> str:
    if isinstance(item, list | tuple):
        return f"({', '.join(type(part).__name__ for part in item)})"
    return type(item).__name__
