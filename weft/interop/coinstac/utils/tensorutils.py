"""Arrays in files, as learners and reducers of users save and load them. Nothing is pickled."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from weft.errors import DataError

Array = np.ndarray[Any, Any]


def caste_ndarray(array: Array, dtype: str = "float32") -> Array:
    """The array in another type."""
    return array.astype(dtype)


def extract_grads(model: nn.Module, dtype: str = "float32") -> list[Array]:
    """Gradients of the parameters of a network that are trained, in its order; zeros for one without."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    grads = [torch.zeros_like(one) if one.grad is None else one.grad.detach() for one in trained]
    return [grad.cpu().numpy().astype(dtype) for grad in grads]


def save_arrays(file_path: str | Path, arrays: Iterable[Any]) -> None:
    """Write arrays of any shapes into one file, in their order.

    Raises:
        DataError: one is no array of numbers.
    """
    found = [np.asarray(array) for array in arrays]
    for place, array in enumerate(found):
        if array.dtype.kind not in "biuf":
            raise DataError(f"array {place} for {file_path} holds {array.dtype}, not numbers", "save arrays of numbers")
    buffer = io.BytesIO()
    named: dict[str, Any] = {f"{place:05d}": array for place, array in enumerate(found)}
    np.savez(buffer, **named)
    Path(file_path).write_bytes(buffer.getvalue())  # read again in the same step: nothing that must survive


def load_arrays(file_path: str | Path) -> list[Array]:
    """The arrays of a file that `save_arrays` wrote.

    Raises:
        DataError: it is missing, damaged, or holds something that would have to be unpickled.
    """
    try:
        with np.load(file_path, allow_pickle=False) as content:
            return [content[name] for name in sorted(content.files)]
    except (OSError, ValueError, zipfile.BadZipFile, EOFError, AttributeError) as error:
        raise DataError(f"{file_path} holds no arrays of numbers: {error}", "write it with save_arrays") from error


def safe_concat(large: Tensor, small: Tensor) -> Tensor:
    """The middle of one tensor beside another, whose extent is at most as large, along the channels (dimension 1)."""
    cut = [slice(None), slice(None)]
    for wide, narrow in zip(large.shape[2:], small.shape[2:], strict=True):
        start = (wide - narrow) // 2
        cut.append(slice(start, start + narrow))
    return torch.cat([large[tuple(cut)], small], 1)


def initialize_weights(*models: nn.Module) -> None:
    """Draw weights of linear layers and 2D convolutions after He et al., 2015, arXiv:1502.01852; biases become 0."""
    for model in models:
        for module in model.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
