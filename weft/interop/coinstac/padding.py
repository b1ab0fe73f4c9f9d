"""The sampler that fills a last batch up, for loaders of users; runs pad nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sized
from itertools import cycle, islice

import torch
from torch.utils.data import Sampler


class COINNPaddedDataSampler(Sampler[int]):
    """Rows of a dataset, the first ones once more until the last batch is full.

    Args:
        dataset: what has a length.
        batch_size: of the loader.
        seed: of the order, with `shuffle`.
        shuffle: another order in each epoch that `set_epoch` tells.
        drop_last: leave out a last batch that is not full, instead of filling it.
    """

    def __init__(
        self, dataset: Sized, batch_size: int, seed: int = 0, shuffle: bool = False, drop_last: bool = False
    ) -> None:
        self.dataset, self.seed, self.shuffle, self.drop_last = dataset, seed, shuffle, drop_last
        batches = len(dataset) // batch_size if drop_last else -(-len(dataset) // batch_size)
        self.total_size, self.epoch = batches * batch_size, 0

    def __iter__(self) -> Iterator[int]:
        rows = list(range(len(self.dataset)))
        if self.shuffle:
            generator = torch.Generator().manual_seed(self.seed + self.epoch)
            rows = torch.randperm(len(rows), generator=generator).tolist()
        return islice(cycle(rows), self.total_size)

    def set_epoch(self, epoch: int) -> None:
        """Which epoch comes next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.total_size
