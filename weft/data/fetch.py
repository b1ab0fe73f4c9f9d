"""Items of a dataset loaded into a batch, each with randomness of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from weft.data.batches import Batch, map_tensors, stack
from weft.data.randomness import GlobalRandomness, ItemGenerators, item_seed
from weft.data.samples import Sample, samples_of
from weft.errors import DataError

_UNLIKE = (
    "bring them to one shape by a transform (crop, pad or resize); for validation and test, "
    "training.evaluation_batch_size: 1 will do"
)


@dataclass(slots=True)
class BatchKey:
    """What a batch consists of; travels from the sampler to whoever loads it.

    Args:
        epoch: number of the epoch, counted from 0.
        rows: row numbers in the split.
        occurrences: how often each row was visited before in this epoch; None for never.
    """

    epoch: int
    rows: list[int]
    occurrences: list[int] | None = None


class Fetcher:
    """Loads batches of a map-style dataset, in this process or in a loader worker: with the same result.

    Items that draw nothing random are loaded as they are. Where a batch drew from a global generator, which is noticed
    afterwards, the generator is put back and the batch is loaded again, each item with a seed of its own; from then on
    that generator is seeded for every item. Generators that the dataset holds are seeded from the start.

    Args:
        dataset: `__getitem__(row)`, or also `__getitems__(rows)`. Where it has a method `set_epoch(epoch)`, that is
            called before each batch, in whichever process loads it (scoring counts as epoch 0).
        seed: the experiment's seed.
        keys: names of inputs and targets where items are dicts.
        where: describes a row for an error, e.g. "train.csv line 14 (case subject7)".
        skip_bad: leave out items that cannot be loaded instead of raising.
    """

    def __init__(
        self,
        dataset: Any,
        seed: int,
        *,
        keys: tuple[Sequence[str], Sequence[str]] = ((), ()),
        where: Callable[[int], str] = str,
        skip_bad: bool = False,
    ) -> None:
        self.dataset = dataset
        self.seed = seed
        self.keys = keys
        self.where = where
        self.skip_bad = skip_bad
        self.skipped: dict[int, str] = {}
        self._many = callable(getattr(dataset, "__getitems__", None))
        self._follows_epochs = callable(getattr(dataset, "set_epoch", None))
        self._state: tuple[GlobalRandomness, ItemGenerators] | None = None  # of the process that loads
        self._first = True
        self._empty: Batch | None = None

    def fetch(self, key: BatchKey, index: Tensor | None = None) -> Batch:
        """The batch of a key; smaller where bad items are skipped.

        Args:
            key: epoch and rows.
            index: the rows as a tensor, where the caller has one.

        Raises:
            DataError: an item cannot be loaded, or the items do not fit together.
        """
        if self._follows_epochs:
            self.dataset.set_epoch(key.epoch)
        rows, items = self._items(key)
        if rows is key.rows and items and type(items[0]) is tuple and len(items[0]) == 2:
            first = items[0]
            if type(first[0]) is Tensor and type(first[1]) is Tensor:  # the common case, without a look at each item
                index = torch.tensor(rows) if index is None else index
                try:
                    inputs, targets = zip(*items, strict=True)
                    return Batch(torch.stack(inputs), torch.stack(targets), index, len(rows))
                except (RuntimeError, TypeError, ValueError):  # of unlike shapes or kinds: told apart below
                    pass
        samples, index = self._samples(rows, items)
        return self._collate(samples, index)

    def __getstate__(self) -> dict[str, Any]:  # a worker finds out about randomness for itself
        return {**self.__dict__, "_state": None, "_first": True, "skipped": {}}

    def _items(self, key: BatchKey) -> tuple[list[int], list[Any]]:
        """Rows that could be loaded, and their items. Loaded anew whenever a generator turns out to have been drawn
        from that was not seeded: three times at most, and never again for this dataset."""
        while True:
            randomness, generators = self._generators()
            skipped = self.skipped.copy()
            failure = None
            randomness.mark()
            try:
                found = self._load_keyed(key) if randomness.drawn or generators else self._load_plain(key)
            except (
                Exception
            ) as error:  # perhaps by an unseeded draw: that it fails must be decided by its own seed, too
                failure = error
            finally:
                drawn_unseeded = randomness.notice()
                randomness.restore()
            if drawn_unseeded or (self._first and failure is None and self._has_made_generators()):
                self.skipped = skipped
                continue
            if failure is not None:
                raise failure
            self._first = False
            return found

    def _generators(self) -> tuple[GlobalRandomness, ItemGenerators]:
        if self._state is None:
            self._state = GlobalRandomness(), ItemGenerators(self.dataset)
        return self._state

    def _has_made_generators(self) -> bool:
        """Whether the dataset made a generator with its first item that it did not have before."""
        randomness, before = self._generators()
        after = ItemGenerators(self.dataset)
        self._state = randomness, after
        return len(after.found) > len(before.found)

    def _load_plain(self, key: BatchKey) -> tuple[list[int], list[Any]]:
        try:
            return key.rows, self._load_many(key.rows)
        except Exception:  # raised again, with the row, where the items are loaded one by one
            return self._load_keyed(key)

    def _load_many(self, rows: list[int]) -> list[Any]:
        if self._many:
            return list(self.dataset.__getitems__(rows))
        dataset = self.dataset
        return [dataset[row] for row in rows]

    def _load_keyed(self, key: BatchKey) -> tuple[list[int], list[Any]]:
        randomness, generators = self._generators()
        rows, items = [], []
        for place, row in enumerate(key.rows):
            seed = item_seed(self.seed, key.epoch, row, key.occurrences[place] if key.occurrences else 0)
            randomness.seed(seed)
            generators.seed(seed)
            try:
                item = self._load_many([row])[0]
            except Exception as error:
                self._bad(row, error)
                continue
            rows.append(row)
            items.append(item)
        return (key.rows, items) if len(rows) == len(key.rows) else (rows, items)

    def _bad(self, row: int, error: Exception) -> None:
        reason = f"{type(error).__name__}: {error}" if not isinstance(error, DataError) else error.message
        if self.skip_bad:
            self.skipped[row] = reason
            return
        hint = "repair or remove it, or set dataset.on_bad_item: skip to go on without such items"
        hint = getattr(self.dataset, "hint_for_bad_items", hint)
        if isinstance(error, DataError) and error.hint:
            hint = f"{error.hint}; or {hint}"
        raise DataError(f"item cannot be loaded: {self.where(row)}: {reason}", hint) from error

    def _samples(self, rows: list[int], items: list[Any]) -> tuple[list[Sample], Tensor]:
        samples: list[Sample] = []
        index: list[int] = []
        for row, item in zip(rows, items, strict=True):
            try:
                found = samples_of(item, self.keys)
            except DataError as error:
                raise DataError(f"{self.where(row)}: {error.message}", error.hint) from error
            samples.extend(found)
            index.extend([row] * len(found))
        return samples, torch.tensor(index, dtype=torch.int64)

    def _collate(self, samples: list[Sample], index: Tensor) -> Batch:
        if not samples:
            return self._empty_batch()
        try:
            inputs = stack([sample.inputs for sample in samples])
            targets = stack([sample.targets for sample in samples])
        except (RuntimeError, TypeError, ValueError, KeyError) as error:
            raise self._misfit(samples, index, error) from error
        spacings = [sample.spacing for sample in samples if sample.spacing is not None]
        spacing = torch.stack(spacings) if len(spacings) == len(samples) else None
        return Batch(inputs, targets, index, len(samples), spacing)

    def _misfit(self, samples: list[Sample], index: Tensor, error: Exception) -> DataError:
        forms = [{"inputs": _form(sample.inputs), "targets": _form(sample.targets)} for sample in samples]
        for row, form in zip(index.tolist(), forms, strict=True):
            unlike = [name for name in form if form[name] != forms[0][name]]
            if unlike:
                ours, theirs = (" and ".join(f"{name} {one[name]}" for name in unlike) for one in (forms[0], form))
                return DataError(
                    f"items of a batch differ: {self.where(int(index[0]))} has {ours}, {self.where(row)} has {theirs}",
                    getattr(self.dataset, "hint_for_unlike_items", _UNLIKE),
                )
        return DataError(
            f"items cannot be put together into a batch: {type(error).__name__}: {error} ({self.where(int(index[0]))})",
            "items must be tensors, arrays or numbers, as (inputs, targets)",
        )

    def _empty_batch(self) -> Batch:
        """No samples, in the shape of some: a rank with nothing to do still runs the model."""
        if self._empty is None:
            for row in range(len(self.dataset)):
                keeps, self.skip_bad = self.skip_bad, True
                rows, items = self._items(BatchKey(0, [row]))
                self.skip_bad = keeps
                if rows:
                    batch = self._collate(*self._samples(rows, items))
                    none = map_tensors((batch.inputs, batch.targets), lambda value: value[:0])
                    self._empty = Batch(none[0], none[1], batch.index[:0], 0)
                    break
            else:
                raise DataError("not one item of the split can be loaded", "see the reasons in skipped_items")
        return self._empty


def _form(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, tuple | list):
        return "(" + ", ".join(_form(part) for part in value) + ")"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_form(part)}" for key, part in value.items()) + "}"
    return f"{tuple(value.shape)} {value.dtype}" if hasattr(value, "shape") else type(value).__name__
