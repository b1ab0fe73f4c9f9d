"""Batches of data that lie in memory whole: gathered by row number, not collated item by item."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
from typing import Any

import torch
from torch import Tensor

from weft.data.batches import Batch
from weft.data.order import Plan

AT_ONCE_BYTES = 64 * 2**20  # up to this size an epoch is gathered in one piece, of which batches are views
_ALIGNMENT = 64  # of a tensor of its own; kernels may round differently on a view that is not aligned so


def gathered(arrays: tuple[Any, Any], plan: Plan) -> Iterator[Batch]:
    """Batches of a plan, equal to the bit to those of a DataLoader over the same arrays.

    Args:
        arrays: (inputs, targets); each a tensor whose first axis is the row, a tuple of such, or None.
        plan: rows and batch sizes.
    """
    indexes = torch.split(plan.rows, plan.sizes) if plan.sizes else ()
    inputs, targets = (_parts(array, plan, indexes) for array in arrays)
    for batch_inputs, batch_targets, index, size in zip(inputs, targets, indexes, plan.sizes, strict=False):
        yield Batch(batch_inputs, batch_targets, index, size)


def _parts(array: Any, plan: Plan, indexes: Sequence[Tensor]) -> Iterable[Any]:
    if array is None:
        return repeat(None)
    if isinstance(array, tuple):
        return zip(*(_parts(part, plan, indexes) for part in array), strict=True)
    if _at_once(array, plan):
        return torch.split(array.index_select(0, plan.rows), plan.sizes)
    return (array.index_select(0, index) for index in indexes)


def _at_once(array: Tensor, plan: Plan) -> bool:
    row = array[0].numel() * array.element_size() if len(array) else 0
    starts_aligned = all(size * row % _ALIGNMENT == 0 for size in plan.sizes[:-1])
    return bool(plan.sizes) and starts_aligned and row * len(plan.rows) <= AT_ONCE_BYTES
