"""The order in which an epoch visits the samples: a function of (seed, epoch), whatever the workers and restarts."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from weft.data.randomness import seeded
from weft.errors import DataError


def seed_for(seed: int, epoch: int, lap: int = 0) -> int:
    """Seed of the order of samples in an epoch.

    A loop of one's own that calls `generator.manual_seed(seed_for(seed, epoch))` before each epoch of its
    `DataLoader(..., shuffle=True, generator=generator)` sees the samples in the same order as Weft.

    Args:
        seed: the experiment's seed, any integer.
        epoch: number of the epoch, counted from 0.
        lap: how often the epoch has visited everything before, where it goes on with a new order.

    Returns:
        An integer in [0, 2**63).
    """
    again = f" {int(lap)}" if lap else ""
    digest = hashlib.sha256(f"weft order {int(seed)} {int(epoch)}{again}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def permutation(length: int, seed: int, epoch: int, lap: int = 0) -> Tensor:
    """Shuffled row numbers of an epoch, int64 `[length]`, as torch's DataLoader visits them with the same seed."""
    generator = torch.Generator().manual_seed(seed_for(seed, epoch, lap))
    # The DataLoader draws the base seed of its workers from the generator before its sampler draws the permutation.
    torch.empty((), dtype=torch.int64).random_(generator=generator)
    return torch.randperm(length, generator=generator)


@dataclass(frozen=True, slots=True)
class Order:
    """What an epoch visits.

    Args:
        rows: row numbers in the split, int64 `[n]`.
        occurrences: how often each row was visited before in this epoch, `[n]`; None when every row is visited once.
    """

    rows: Tensor
    occurrences: list[int] | None = None


def epoch_order(
    length: int,
    *,
    shuffle: bool,
    seed: int,
    epoch: int,
    sampler: Iterable[int] | None = None,
    limit: int | None = None,
    lap: int = 0,
) -> Order:
    """Rows that an epoch visits, in order.

    Args:
        length: number of items in the split.
        shuffle: permute the rows; ignored when a sampler decides.
        seed: the experiment's seed.
        epoch: number of the epoch, counted from 0.
        sampler: yields row numbers; what it draws from (its attribute `generator`, too) is seeded with (seed, epoch).
        limit: visit only the first so many; None visits all.
        lap: how often the epoch has visited everything before; each time has an order of its own.

    Raises:
        DataError: the sampler yields a row that the split does not have.
    """
    if sampler is not None:
        order = _sampled(sampler, length, seed, epoch, lap)
    else:
        order = Order(permutation(length, seed, epoch, lap) if shuffle else torch.arange(length))
    return order if limit is None else _slice(order, 0, limit)


def _sampled(sampler: Any, length: int, seed: int, epoch: int, lap: int) -> Order:
    key = seed_for(seed, epoch, lap)
    if hasattr(sampler, "generator"):
        sampler.generator = torch.Generator().manual_seed(key)
    if callable(getattr(sampler, "set_epoch", None)):
        sampler.set_epoch(epoch)
    with seeded(sampler, key):
        rows = [int(row) for row in sampler]
    for row in rows:
        if not 0 <= row < length:
            raise DataError(
                f"sampler {type(sampler).__name__} asks for row {row}, but the split has {length} items",
                "build the sampler for this split, e.g. with as many weights as there are items",
            )
    return Order(torch.tensor(rows, dtype=torch.int64), _counted(rows))


def _counted(rows: Iterable[int]) -> list[int]:
    """How often each row came before."""
    seen: Counter[int] = Counter()
    occurrences = []
    for row in rows:
        occurrences.append(seen[row])
        seen[row] += 1
    return occurrences


@dataclass(frozen=True, slots=True)
class Plan:
    """The batches of an epoch, or of what is left of it, for one rank.

    Args:
        rows: row numbers in the order they are visited, int64 `[n]`.
        sizes: number of rows of each batch; they add up to n.
        occurrences: as in `Order`.
    """

    rows: Tensor
    sizes: list[int]
    occurrences: list[int] | None = None


def plan_batches(
    order: Order,
    batch_size: int,
    *,
    drop_last: bool = False,
    share: tuple[int, int] = (0, 1),
    every_nth: bool = False,
    skip: int = 0,
) -> Plan:
    """Cut an epoch's order into batches.

    Args:
        order: what the whole epoch visits, over all ranks.
        batch_size: samples of a batch over all ranks.
        drop_last: leave out a last batch that is not full.
        share: (rank, world). By default a rank takes its contiguous slice of every batch, which may be empty.
        every_nth: a rank takes the positions rank, rank + world, ... instead and cuts them into batches of its own:
            for evaluation, where ranks need not keep step and no sample may be seen twice.
        skip: leave out the first batches, as a resumed epoch does.
    """
    rank, world = share
    if every_nth and world > 1:
        order = _take(order, list(range(rank, len(order.rows), world)))
        batch_size = -(-batch_size // world)
        rank, world = 0, 1
    bounds = _bounds(len(order.rows), batch_size, drop_last, rank, world)[skip:]
    sizes = [stop - start for start, stop in bounds]
    if world > 1:
        order = _take(order, [place for start, stop in bounds for place in range(start, stop)])
    else:
        order = _slice(order, bounds[0][0] if bounds else 0, bounds[-1][1] if bounds else 0)
    return Plan(order.rows, sizes, order.occurrences)


def one_after_another(plans: Sequence[Plan], batches: int, skip: int = 0) -> Plan:
    """So many batches of several plans: where one ends the next begins, with a batch of its own.

    Args:
        plans: each from its first batch on, with `batches` or more in all.
        batches: number of batches, those that are skipped included.
        skip: leave out the first batches, as a resumed epoch does.
    """
    sizes = [size for plan in plans for size in plan.sizes][:batches]
    rows = torch.cat([plan.rows for plan in plans])[: sum(sizes)]
    occurrences = _counted(rows.tolist()) if len(plans) > 1 else plans[0].occurrences
    start = sum(sizes[:skip])
    return Plan(rows[start:], sizes[skip:], occurrences and occurrences[start : len(rows)])


def count_batches(length: int, batch_size: int, *, drop_last: bool, share: tuple[int, int], every_nth: bool) -> int:
    """Number of batches that `plan_batches` makes of `length` visits."""
    rank, world = share
    if every_nth and world > 1:
        length, batch_size = len(range(rank, length, world)), -(-batch_size // world)
    return length // batch_size if drop_last else -(-length // batch_size)


def _bounds(length: int, batch_size: int, drop_last: bool, rank: int, world: int) -> list[tuple[int, int]]:
    bounds = []
    for start in range(0, length, batch_size):
        size = min(batch_size, length - start)
        if size == batch_size or not drop_last:
            bounds.append((start + size * rank // world, start + size * (rank + 1) // world))
    return bounds


def _take(order: Order, places: list[int]) -> Order:
    occurrences = order.occurrences and [order.occurrences[place] for place in places]
    return Order(order.rows[torch.tensor(places, dtype=torch.int64)], occurrences)


def _slice(order: Order, start: int, stop: int) -> Order:
    return Order(order.rows[start:stop], order.occurrences and order.occurrences[start:stop])
