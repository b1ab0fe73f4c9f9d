"""The orders that the original had, for those who must have its numbers again."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sized

import torch
from torch.utils.data import Sampler


class FixedOrder(Sampler[int]):
    """The same permutation in every epoch, cut into the batches that `world` processes drew together.

    Each process had every `world`-th item of the permutation, repeated from its beginning until all had as many.

    Args:
        split: the items.
        world: number of processes.
    """

    def __init__(self, split: Sized, world: int = 1) -> None:
        self.rows = padded(len(split), world)

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[int]:
        yield from self.rows


class FirstShard(Sampler[int]):
    """The items that the first of `world` processes scored, whose scores the original took for those of all.

    Args:
        split: the items.
        world: number of processes.
    """

    def __init__(self, split: Sized, world: int = 1) -> None:
        self.rows = padded(len(split), world)[::world]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[int]:
        yield from self.rows


def padded(length: int, world: int) -> list[int]:
    """torch's DistributedSampler's order of its epoch 0 over all processes, which the original never changed."""
    rows: list[int] = torch.randperm(length, generator=torch.Generator().manual_seed(0)).tolist()
    total = math.ceil(length / world) * world
    return (rows * math.ceil(total / max(length, 1)))[:total]
