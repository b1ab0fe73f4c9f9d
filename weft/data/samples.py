"""What an item of a dataset means: one or several samples of inputs and targets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from weft.errors import DataError


@dataclass(slots=True)
class Sample:
    """One sample of a batch.

    Args:
        inputs: tensor, array or number, or a tuple of such.
        targets: likewise, or a dict of such, or None.
        spacing: size of a voxel along each axis, float64 `[axes]`; None where unknown.
    """

    inputs: Any
    targets: Any
    spacing: Tensor | None = None


@dataclass(slots=True)
class Apart:
    """Inputs of a sample that become a batch in a way of their own.

    Args:
        value: the inputs.
        together: makes the inputs of a batch from a list of such values.
    """

    value: Any
    together: Callable[[list[Any]], Any]


class _NoSamples:
    """What a dataset gives for a row that shall be left out."""


NO_SAMPLES = _NoSamples()


def samples_of(item: Any, keys: tuple[Sequence[str], Sequence[str]]) -> list[Sample]:
    """Samples of an item: (inputs, targets), (first, second, ..., targets), a dict, inputs alone, or a list of these;
    none for `NO_SAMPLES`.

    Args:
        item: what the dataset gave.
        keys: names of inputs and of targets in an item that is a dict.

    Raises:
        DataError: the item has none of these forms.
    """
    if isinstance(item, Sample):
        return [item]
    if isinstance(item, _NoSamples):
        return []
    if isinstance(item, list) and item and isinstance(item[0], Mapping | tuple | Sample):
        return [sample for part in item for sample in samples_of(part, keys)]
    if isinstance(item, Mapping):
        return [_from_dict(item, keys)]
    if isinstance(item, tuple | list):
        parts = [plain(part) for part in item]
        if not parts:
            raise DataError("the item is empty", "an item is (inputs, targets)")
        if len(parts) == 1:
            return [Sample(parts[0], None, spacing_of(item[0]))]
        inputs = parts[0] if len(parts) == 2 else tuple(parts[:-1])
        return [Sample(inputs, parts[-1], spacing_of(item[0]))]
    if item is None:
        raise DataError("the item is None", "an item is (inputs, targets)")
    return [Sample(plain(item), None, spacing_of(item))]


def _from_dict(item: Mapping[str, Any], keys: tuple[Sequence[str], Sequence[str]]) -> Sample:
    inputs, targets = keys
    if not inputs and "inputs" in item:
        inputs, targets = ["inputs"], ["targets"] if "targets" in item else []
    if not inputs:
        raise DataError(
            f"the item is a dict with {', '.join(map(str, item))}, and dataset.inputs does not say which are inputs",
            "name them, e.g. inputs: [image], targets: [label]; or call them 'inputs' and 'targets' in the dataset",
        )
    for name in (*inputs, *targets):
        if name not in item:
            raise DataError(
                f"the item has no '{name}', only {', '.join(map(str, item))}", "see dataset.inputs, targets"
            )
    found = [plain(item[name]) for name in inputs]
    wanted = [plain(item[name]) for name in targets]
    spacing = next((size for name in inputs if (size := spacing_of(item[name])) is not None), None)
    return Sample(_one_or_tuple(found), _one_or_tuple(wanted), spacing)


def _one_or_tuple(values: list[Any]) -> Any:
    return None if not values else values[0] if len(values) == 1 else tuple(values)


def plain(value: Any) -> Any:
    """A plain tensor of a subclass such as MONAI's MetaTensor, also within tuples, lists and dicts."""
    if isinstance(value, Tensor):
        return value if type(value) is Tensor else value.as_subclass(Tensor)
    if isinstance(value, tuple | list):
        return tuple(plain(part) for part in value)
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    return value


def spacing_of(value: Any) -> Tensor | None:
    """Voxel size along each spatial axis that a MetaTensor carries, float64 `[axes]`."""
    pixdim = getattr(value, "pixdim", None) if isinstance(value, Tensor) else None
    return None if pixdim is None else torch.as_tensor(pixdim, dtype=torch.float64).flatten()
