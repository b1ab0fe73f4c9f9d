"""A batch, and how items become one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import default_collate, get_worker_info

from weft.data.samples import Apart


@dataclass(slots=True)
class Batch:
    """Samples that are trained on together.

    Args:
        inputs: tensor `[n, ...]`, or a tuple of such for a model with several inputs.
        targets: tensor `[n, ...]`, a tuple or dict of such, or None.
        index: row numbers in the split, int64 `[n]`.
        size: number of samples n; 0 for a rank that has no part of this batch.
        spacing: size of a voxel along each axis (in mm for most images), float64 `[n, axes]`; None where unknown.
    """

    inputs: Any
    targets: Any
    index: Tensor
    size: int
    spacing: Tensor | None = None

    def to(
        self,
        device: torch.device | str,
        non_blocking: bool = False,
        memory_format: torch.memory_format | None = None,
    ) -> Batch:
        """The batch with inputs and targets on a device.

        Args:
            device: where.
            non_blocking: go on before pinned memory has been copied.
            memory_format: channels_last or channels_last_3d, for inputs of 4 or of 5 axes.
        """

        def move(value: Tensor) -> Tensor:
            return value.to(device, non_blocking=non_blocking)

        def move_input(value: Tensor) -> Tensor:
            if memory_format is not None and value.dim() == _AXES_OF_FORMAT.get(memory_format, value.dim()):
                return value.to(device, non_blocking=non_blocking, memory_format=memory_format)
            return value.to(device, non_blocking=non_blocking)

        return Batch(
            map_tensors(self.inputs, move_input), map_tensors(self.targets, move), self.index, self.size, self.spacing
        )

    def pin_memory(self) -> Batch:
        """The batch in page-locked memory, from where copies to a GPU can overlap with computing."""
        return Batch(
            map_tensors(self.inputs, Tensor.pin_memory),
            map_tensors(self.targets, Tensor.pin_memory),
            self.index,
            self.size,
            self.spacing,
        )


_AXES_OF_FORMAT = {torch.channels_last: 4, torch.channels_last_3d: 5}


def map_tensors(value: Any, function: Callable[[Tensor], Any]) -> Any:
    """`value` with `function` applied to each tensor inside tuples, lists and dicts."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, tuple | list):
        return type(value)(map_tensors(part, function) for part in value)
    if isinstance(value, dict):
        return {key: map_tensors(part, function) for key, part in value.items()}
    return value


def stack(values: Sequence[Any]) -> Any:
    """One value per sample -> one tensor `[n, ...]` (or tuple, dict, list of such), as torch's DataLoader makes it."""
    first = values[0]
    if first is None:
        return None
    if type(first) is Tensor and get_worker_info() is None:
        return torch.stack(values)  # type: ignore[arg-type]  # default_collate does the same after a search by type
    if isinstance(first, Apart):
        return first.together([value.value for value in values])
    if isinstance(first, tuple):
        return tuple(stack(parts) for parts in zip(*values, strict=True))
    return default_collate(list(values))  # in a worker it stacks in shared memory
