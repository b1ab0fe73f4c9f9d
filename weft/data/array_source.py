"""Arrays as a source: `.npy` and `.npz` files, or a component that returns `(inputs, targets)`."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from weft.config import ArrayPair
from weft.data.parts import Column, Part, Role
from weft.data.targets import require_finite
from weft.errors import DataError

_NAMES: dict[Role, tuple[str, ...]] = {"input": ("inputs", "x", "X"), "target": ("targets", "y", "Y")}


def part_from_files(pair: ArrayPair, base: Path) -> Part:
    """Items of two array files: row i of the inputs belongs to row i of the targets."""
    inputs_file = base / pair.inputs
    arrays = {"inputs": load_array(inputs_file, "input")}
    files = [inputs_file]
    if pair.targets is not None:
        files.append(base / pair.targets)
        arrays["targets"] = load_array(files[1], "target")
    return part_from_arrays(arrays["inputs"], arrays.get("targets"), source=str(pair.inputs), files=files)


def part_from_object(value: Any, name: str) -> Part:
    """Items of what a component returned: `(inputs, targets)`, or inputs alone; `inputs` may be a tuple of arrays.

    Raises:
        DataError: it is neither, or the numbers of rows differ.
    """
    if isinstance(value, Mapping):
        inputs = value.get("inputs", value.get("data"))
        targets = value.get("targets", value.get("target"))
    elif isinstance(value, tuple | list) and len(value) == 2:
        inputs, targets = value
    else:
        inputs, targets = value, None
    if inputs is None:
        raise DataError(f"{name} returned {type(value).__name__}, no arrays", "return (inputs, targets)")
    return part_from_arrays(inputs, targets, source=name)


def part_from_arrays(inputs: Any, targets: Any, *, source: str, files: list[Path] | None = None) -> Part:
    """Items of arrays or tensors that lie in memory."""
    several = inputs if isinstance(inputs, tuple) else (inputs,)
    names = ["inputs"] if len(several) == 1 else [f"inputs{place}" for place in range(len(several))]
    arrays = [_array(value, name, source) for name, value in zip(names, several, strict=True)]
    length = len(arrays[0])
    part = Part(source, [str(row) for row in range(length)], range(length), files=files or [])
    part.columns.extend(Column(name, "input", _input_tensor(part, name, array)) for name, array in zip(names, arrays))
    if targets is not None:
        target = _array(targets, "targets", source)
        part.columns.append(Column("targets", "target", target))
    for column in part.columns:
        if len(column.values) != length:
            raise DataError(
                f"{source}: {column.name} have {len(column.values)} rows, inputs have {length}",
                "row i of the inputs belongs to row i of the targets",
            )
    if length == 0:
        raise DataError(f"{source}: there are no rows", "an array needs at least one row")
    return part


def _array(value: Any, name: str, source: str) -> Any:
    if isinstance(value, Tensor):
        return value.detach().cpu().numpy() if value.dtype != torch.bfloat16 else value.detach().cpu().float().numpy()
    if hasattr(value, "toarray"):
        raise DataError(f"{source}: {name} is a sparse matrix", "call its toarray() method first")
    array = np.asarray(value)
    if array.ndim == 0:
        raise DataError(f"{source}: {name} is one {type(value).__name__}, not an array", "return (inputs, targets)")
    return array


def _input_tensor(part: Part, name: str, array: Any) -> Tensor:
    """float32 for numbers with a fraction, other numbers as float32 as well: layers take no integers."""
    if array.dtype.kind not in "biuf":
        raise DataError(f"{part.source}: {name} hold {array.dtype}, not numbers", "encode them as numbers first")
    require_finite(part, name, array)
    return torch.from_numpy(np.array(array, dtype=np.float32, order="C"))


def load_array(file: Path, role: Role) -> Any:
    """The array in a `.npy` file, or in a `.npz` file that holds one, or one called `inputs`, `x`, `targets` or `y`.

    Raises:
        DataError: the file is missing, damaged, or holds something else.
    """
    if not file.is_file():
        raise DataError(f"file not found: {file}", "paths are relative to the experiment file")
    try:
        loaded = np.load(file, allow_pickle=False)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{file} cannot be read as an array: {error}",
            "save it anew with numpy.save, with numbers only (no objects)",
        ) from error
    if isinstance(loaded, np.ndarray):
        return loaded
    with loaded:
        names = list(loaded)
        name = next((name for name in _NAMES[role] if name in names), names[0] if len(names) == 1 else None)
        if name is None:
            raise DataError(
                f"{file} holds the arrays {', '.join(names) or 'none'}",
                f"call the one that is meant '{_NAMES[role][0]}'",
            )
        return loaded[name]
