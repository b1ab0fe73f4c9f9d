"""Checks of opened data against the experiment."""

from __future__ import annotations

import torch
from torch import Tensor

from weft.data.fetch import BatchKey, Fetcher
from weft.data.sources import Data
from weft.data.split_data import SplitData
from weft.errors import DataError

_LOOKED_AT = 4  # items of a split that is not in memory: enough for a mistake that all share


def check_targets(data: Data, classes: int) -> None:
    """Check that labels lie between 0 and the number of classes.

    Labels in memory are all looked at; of data that are loaded item by item, the first items of each split.

    Args:
        data: opened data.
        classes: number of classes that the model tells apart.

    Raises:
        DataError: a label is out of range, with its case and row.
    """
    for split in data.splits.values():
        if split.arrays is not None:
            _check(split, split.arrays[1], torch.arange(len(split)), classes)
            continue
        fetcher = Fetcher(split.dataset, 0, keys=split.keys, where=split.where, skip_bad=split.skip_bad)
        for row in range(min(_LOOKED_AT, len(split))):
            batch = fetcher.fetch(BatchKey(0, [row]))
            _check(split, batch.targets, batch.index, classes)


def _check(split: SplitData, targets: object, index: Tensor, classes: int) -> None:
    if not isinstance(targets, Tensor) or targets.is_floating_point() or targets.numel() == 0:
        return  # zeros and ones of several labels, or numbers
    wrong = ((targets < 0) | (targets >= classes)).reshape(len(targets), -1)
    if not bool(wrong.any()):
        return
    place = int(wrong.any(dim=1).nonzero()[0])
    label = int(targets.reshape(len(targets), -1)[place][wrong[place]][0])
    raise DataError(
        f"{split.where(int(index[place]))}: label {label} is out of range for {classes} classes",
        f"labels count from 0 to {classes - 1}; correct the labels or the model's number of classes",
    )
