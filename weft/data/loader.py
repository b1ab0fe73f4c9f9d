"""The loader: an epoch as an iterator of batches that can begin anywhere."""

from __future__ import annotations

import inspect
import time
from collections.abc import Iterable, Iterator
from typing import Any

import torch

from weft.config import Component, Namespace
from weft.data.batches import Batch
from weft.data.fetch import BatchKey, Fetcher
from weft.data.gather import gathered
from weft.data.order import Plan, count_batches, epoch_order, one_after_another, plan_batches
from weft.data.split_data import SplitData
from weft.data.workers import Workers, WorkerTraceback
from weft.errors import UsageError


class Loader:
    """Batches of a split. Build it with `make_loader`.

    Attributes:
        split: the data.
        skipped_items: items left out because they could not be loaded: case -> reason.
        seconds_waited: how long batches were waited for so far; for data in memory it is not measured.
    """

    def __init__(
        self,
        split: SplitData,
        *,
        batch_size: int,
        seed: int,
        shuffle: bool,
        drop_last: bool,
        num_workers: int,
        sampler: Iterable[int] | None,
        pin_memory: bool,
        share: tuple[int, int],
        augment: bool,
        limit: int | None = None,
        batches: int | None = None,
    ) -> None:
        self.split = split
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.num_workers = num_workers
        self.sampler = sampler
        self.pin_memory = pin_memory
        self.share = share
        self.limit = limit
        self.batches = batches
        self.skipped_items: dict[str, str] = {}
        self.seconds_waited = 0.0
        self._workers: Workers | None = None
        augmented = split.augmented if augment else None
        self._arrays = split.arrays if augmented is None else None
        self._fetcher = Fetcher(
            split.dataset if augmented is None else augmented,
            seed,
            keys=split.keys,
            where=split.where,
            skip_bad=split.skip_bad,
        )

    @property
    def _every_nth(self) -> bool:
        return not self.shuffle and self.sampler is None

    @property
    def visits(self) -> int:
        """Number of items of an epoch, over all ranks."""
        every = len(self.split) if self.sampler is None else len(self.sampler)  # type: ignore[arg-type]
        return every if self.limit is None else min(every, self.limit)

    def __len__(self) -> int:
        """Number of batches of an epoch, for this rank."""
        return self._lap_batches if self.batches is None or not self._lap_batches else self.batches

    @property
    def _lap_batches(self) -> int:
        """Number of batches that visit everything once."""
        return count_batches(
            self.visits, self.batch_size, drop_last=self.drop_last, share=self.share, every_nth=self._every_nth
        )

    def epoch(self, epoch: int, skip: int = 0) -> Iterator[Batch]:
        """The batches of an epoch.

        Args:
            epoch: number of the epoch, counted from 0.
            skip: start at this batch, exactly as the undisturbed epoch has it.

        Raises:
            DataError: an item cannot be loaded.
            WorkerError: a loader worker died.
        """
        if self.batches is None:
            plan = self._lap(epoch, 0, skip)
        else:
            laps = range(-(-self.batches // self._lap_batches))
            plan = one_after_another([self._lap(epoch, lap) for lap in laps], self.batches, skip)
        batches = self._batches(epoch, plan)
        if self.pin_memory and (self._arrays is not None or not self.num_workers):
            return (batch.pin_memory() for batch in batches)
        return batches

    def _lap(self, epoch: int, lap: int, skip: int = 0) -> Plan:
        """The batches that visit everything once; an epoch of a given number of batches may do so again and again."""
        order = epoch_order(
            len(self.split), shuffle=self.shuffle, seed=self.seed, epoch=epoch,
            sampler=self.sampler, limit=self.limit, lap=lap,
        )  # fmt: skip
        return plan_batches(
            order, self.batch_size, drop_last=self.drop_last, share=self.share, every_nth=self._every_nth, skip=skip
        )

    def nothing(self) -> Batch:
        """A batch without items, in the shape of some."""
        return next(self._batches(0, Plan(torch.zeros(0, dtype=torch.int64), [0])))

    def _batches(self, epoch: int, plan: Plan) -> Iterator[Batch]:
        if self._arrays is not None:
            return gathered(self._arrays, plan)
        return self._from_workers(epoch, plan) if self.num_workers else self._in_process(epoch, plan)

    def _in_process(self, epoch: int, plan: Plan) -> Iterator[Batch]:
        for key, index in zip(batch_keys(epoch, plan), torch.split(plan.rows, plan.sizes), strict=True):
            began = time.perf_counter()
            batch = self._fetcher.fetch(key, index)
            self.seconds_waited += time.perf_counter() - began
            if self._fetcher.skipped:
                self._note_skipped(self._fetcher.skipped)
            yield batch

    def _from_workers(self, epoch: int, plan: Plan) -> Iterator[Batch]:
        if self._workers is None:
            fill = getattr(self._fetcher.dataset, "fill", None)
            if fill is not None:
                fill()
            self._workers = Workers(self._fetcher, self.num_workers, self.pin_memory)
        began = time.perf_counter()
        for parcel in self._workers.parcels(list(batch_keys(epoch, plan))):
            self.seconds_waited += time.perf_counter() - began
            self._note_skipped(parcel.skipped)
            if parcel.error is not None:
                raise parcel.error from WorkerTraceback(parcel.trace)
            assert parcel.batch is not None
            yield parcel.batch
            began = time.perf_counter()

    def _note_skipped(self, skipped: dict[int, str]) -> None:
        self.skipped_items.update({self.split.cases[row]: reason for row, reason in skipped.items()})

    def close(self) -> None:
        """End the workers, if there are any; another epoch starts new ones."""
        workers, self._workers = self._workers, None
        if workers is not None:
            workers.close()


def batch_keys(epoch: int, plan: Plan) -> Iterator[BatchKey]:
    """The key of each batch of a plan."""
    rows = plan.rows.tolist()
    start = 0
    for size in plan.sizes:
        stop = start + size
        yield BatchKey(epoch, rows[start:stop], plan.occurrences and plan.occurrences[start:stop])
        start = stop


def make_loader(
    split: SplitData,
    *,
    batch_size: int,
    seed: int,
    shuffle: bool,
    drop_last: bool = False,
    num_workers: int = 0,
    sampler: Iterable[int] | None = None,
    pin_memory: bool = False,
    share: tuple[int, int] = (0, 1),
    augment: bool = True,
    limit: int | None = None,
    batches: int | None = None,
) -> Loader:
    """Make a loader of a split.

    The order of a shuffled epoch is that of torch's `DataLoader(..., shuffle=True, generator=generator)` after
    `generator.manual_seed(seed_for(seed, epoch))`. Global random generators are left as they are.

    Args:
        split: the data.
        batch_size: samples of a batch, over all ranks; at least 1.
        seed: the experiment's seed.
        shuffle: visit the samples in a new order in each epoch.
        drop_last: leave out a last batch that is not full.
        num_workers: processes that load items; data in memory need none.
        sampler: decides which rows an epoch visits, instead of `shuffle`.
        pin_memory: put batches into page-locked memory.
        share: (rank, world) of this process. When shuffled or sampled, each rank has its contiguous slice of every
            batch (it may be empty: a batch of size 0); otherwise the rows rank, rank + world, ..., each exactly once.
        augment: apply the transforms that are meant for training, where the split has such.
        limit: visit only the first so many items of an epoch, in the order that it has; None visits all.
        batches: of an epoch: fewer than the items make end it early, with more it begins its items again, in a new
            order; None visits each once.

    Raises:
        UsageError: a size or share is out of range.
    """
    if batch_size < 1:
        raise UsageError(f"batch_size is {batch_size}", "use at least 1")
    if num_workers < 0:
        raise UsageError(f"num_workers is {num_workers}", "use 0 to load in the training process itself")
    if batches is not None and batches < 1:
        raise UsageError(f"an epoch of {batches} batches", "use at least 1")
    if not 0 <= share[0] < share[1]:
        raise UsageError(f"share is {share}: the rank must be at least 0 and below the number of processes")
    return Loader(
        split,
        batch_size=batch_size,
        seed=seed,
        shuffle=shuffle,
        drop_last=drop_last,
        num_workers=num_workers,
        sampler=sampler,
        pin_memory=pin_memory,
        share=share,
        augment=augment,
        limit=limit,
        batches=batches,
    )


def build_sampler(component: Component, namespace: Namespace, split: SplitData) -> Any:
    """Build a sampler: its first argument is the split, unless the experiment gives that argument itself (as `weights`
    of torch's WeightedRandomSampler).

    Args:
        component: as the experiment names it.
        namespace: where it is found.
        split: what it draws from.

    Raises:
        ConfigError: the name is unknown, or arguments do not fit.
        UsageError: it cannot be iterated, or has no length.
    """
    target = namespace.find(component, "sampler")
    names = [] if component.is_finished else list(inspect.signature(target).parameters)
    own = bool(names) and names[0] in component.arguments
    sampler = namespace.build(component, "sampler", *(() if own else (split,)))
    if not (hasattr(sampler, "__iter__") and hasattr(sampler, "__len__")):
        raise UsageError(f"sampler {component.name} needs __iter__ and __len__", "derive it from torch's Sampler")
    return sampler
