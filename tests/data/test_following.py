"""Datasets that follow the epoch, and rows that they leave out."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from weft.data import make_loader
from weft.data.samples import NO_SAMPLES
from weft.data.split_data import SplitData


class Following:
    """Items that are the number of the epoch; every third row is left out."""

    def __init__(self) -> None:
        self.epoch = -1

    def __len__(self) -> int:
        return 10

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __getitem__(self, row: int) -> Any:
        return NO_SAMPLES if row % 3 == 2 else (torch.tensor(float(self.epoch)), torch.tensor(row))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_dataset_is_told_the_epoch_wherever_it_is_loaded(workers: int) -> None:
    split = SplitData("train", Following(), [str(row) for row in range(10)])
    loader = make_loader(split, batch_size=4, seed=0, shuffle=True, num_workers=workers)
    try:
        for epoch in (0, 3, 1):
            batches = list(loader.epoch(epoch))
            assert len(batches) == 3  # one of them may be empty
            assert {float(value) for batch in batches for value in batch.inputs} == {epoch}
            rows = sorted(row for batch in batches for row in batch.index.tolist())
            assert rows == [0, 1, 3, 4, 6, 7, 9]
            assert sum(batch.size for batch in batches) == 7
    finally:
        loader.close()


@pytest.mark.parametrize("share", [(0, 1), (0, 2), (1, 2)])
def test_a_limit_counts_items_over_all_ranks(share: tuple[int, int]) -> None:
    split = SplitData("validation", [(torch.tensor(row), row) for row in range(10)], [str(row) for row in range(10)])
    loader = make_loader(split, batch_size=4, seed=0, shuffle=False, share=share, limit=6)
    rank, world = share
    assert [row for batch in loader.epoch(0) for row in batch.index.tolist()] == list(range(rank, 6, world))
    assert len(loader) == len(list(loader.epoch(0)))
