"""What code of a user's remembers from step to step, for saved states: entries of its cache, and its own attributes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

# What the base classes have; it is made again, or saved elsewhere.
_OF_BASES = (
    "data_handle",
    "trainer",
    "pool",
    "cache",
    "input",
    "state",
    "nn",
    "optimizer",
    "device",
    "dtype",
    "global_modes",
)
_KIND = "kind"


class _NotKeptError(Exception):
    """A value that is no number, text, tensor or array, nor made of such."""


def own_attributes(owner: object) -> dict[str, Any]:
    """The attributes of a trainer or learner that its user gave it."""
    return {name: value for name, value in vars(owner).items() if name not in _OF_BASES}


def storages(networks: Sequence[nn.Module]) -> frozenset[int]:
    """Where the weights and statistics of networks lie."""
    tensors = [one for network in networks for one in (*network.parameters(), *network.buffers())]
    return frozenset(tensor.untyped_storage().data_ptr() for tensor in tensors)


def kept(values: Mapping[str, Any], others: frozenset[int] = frozenset()) -> dict[str, Any]:
    """Those of the values that a state can hold: numbers, texts, tensors, arrays, and lists, tuples and dicts of them.

    Args:
        values: by name.
        others: storages of tensors that are saved elsewhere; what looks into them is left out, so that it still does
            afterwards.
    """
    found = {}
    for name, value in values.items():
        try:
            found[name] = _encoded(value, others)
        except (_NotKeptError, RecursionError):  # an object, which is made again as it was made first
            continue
    return found


def restored(values: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """The values that `kept` has kept.

    Args:
        values: as it returned them.
        device: where tensors belong that were on an accelerator.
    """
    return {name: _decoded(value, device) for name, value in values.items()}


def _encoded(value: Any, others: frozenset[int]) -> Any:
    if isinstance(value, Enum):
        return _encoded(value.value, others)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if type(value) is Tensor and value.untyped_storage().data_ptr() not in others:
        return {_KIND: "tensor", "value": value.detach(), "moved": value.device.type != "cpu"}
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return {_KIND: "array", "value": torch.from_numpy(value.copy())}
    if isinstance(value, list | tuple):
        return {
            _KIND: "list" if isinstance(value, list) else "tuple",
            "value": [_encoded(one, others) for one in value],
        }
    if isinstance(value, dict):
        pairs = [[_encoded(key, others), _encoded(one, others)] for key, one in value.items()]
        return {_KIND: "dict", "value": pairs}
    if isinstance(value, np.generic) and value.dtype.kind in "biuf":
        return value.item()
    raise _NotKeptError


def _decoded(value: Any, device: torch.device) -> Any:
    if not isinstance(value, dict):
        return value
    inner = value["value"]
    if value[_KIND] == "tensor":
        return inner.to(device) if value["moved"] else inner
    if value[_KIND] == "array":
        return inner.numpy()
    if value[_KIND] == "dict":
        return {_decoded(key, device): _decoded(one, device) for key, one in inner}
    made = [_decoded(one, device) for one in inner]
    return made if value[_KIND] == "list" else tuple(made)
