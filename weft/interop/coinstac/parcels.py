"""What learners and reducers of users say to one another: values, and arrays in files. As tensors, nothing pickled."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from weft.errors import DataError, MessageRefused
from weft.interop.coinstac.arguments import within
from weft.interop.coinstac.utils.tensorutils import Array, load_arrays, save_arrays

TAG = "reduce"  # what asks for a reducer of the user's; everything else is a sum
_ENDINGS = (".npz", ".npy")


@dataclass(slots=True)
class Parcel:
    """What one of them says.

    Args:
        said: values that JSON knows, by key.
        files: arrays by key, of the keys whose value is the name of a file.
    """

    said: dict[str, Any] = field(default_factory=dict)
    files: dict[str, list[Array]] = field(default_factory=dict)


def packed(out: Mapping[str, Any], folder: Path) -> Parcel:
    """What a learner or reducer returned, with the arrays of its files.

    Args:
        out: what it returned.
        folder: where it saved files.

    Raises:
        DataError: a value is nothing that JSON knows, or a file is missing or holds other things than numbers.
    """
    parcel = Parcel()
    for key, value in out.items():
        if isinstance(value, str) and value.endswith(_ENDINGS):
            file = within(folder, value, str(key))
            if file.parent != Path(folder).absolute():
                raise DataError(f"{key!r} names {value!r}", "save files in transferDirectory itself")
            parcel.files[str(key)] = load_arrays(file)
        try:
            parcel.said[str(key)] = json.loads(json.dumps(value))
        except (TypeError, ValueError) as error:
            raise DataError(
                f"{key!r} cannot be sent: {error}", "return texts, numbers, lists, names of files"
            ) from error
    return parcel


def unpacked(parcel: Parcel, folder: Path, below: str = "") -> dict[str, Any]:
    """Write the arrays into files of the names that were said.

    Args:
        parcel: what came from another node.
        folder: where whoever reads them looks.
        below: a folder in it that is kept for them, so that no name can be that of a file of the reader's own.

    Returns:
        what was said, with the files' places in `folder`.

    Raises:
        MessageRefused: a name is none of a file of arrays.
    """
    (folder / below).mkdir(parents=True, exist_ok=True)
    said = dict(parcel.said)
    for key, arrays in parcel.files.items():
        name = said.get(key)
        if not isinstance(name, str) or name != Path(name).name or not name.endswith(_ENDINGS):
            raise MessageRefused(f"{key} is to be a file {name!r}", f"plain names that end in {' or '.join(_ENDINGS)}")
        said[key] = f"{below}/{name}" if below else name
        save_arrays(folder / said[key], arrays)
    return said


def encode(parcel: Parcel) -> list[Tensor]:
    """Three tensors: all numbers, float64 or float32; the rest as JSON, uint8; the lengths of both, int64 [1, 2]."""
    arrays = [array for key in sorted(parcel.files) for array in parcel.files[key]]
    kinds = {array.dtype for array in arrays}
    wide = np.float64 if np.dtype(np.float64) in kinds else np.float32
    numbers = np.concatenate([array.reshape(-1).astype(wide) for array in arrays]) if arrays else np.zeros(0, wide)
    shapes = {key: [[*array.shape] for array in parcel.files[key]] for key in sorted(parcel.files)}
    types = {key: [str(array.dtype) for array in parcel.files[key]] for key in sorted(parcel.files)}
    header = json.dumps({"said": parcel.said, "shapes": shapes, "types": types}).encode()
    data = torch.frombuffer(bytearray(header), dtype=torch.uint8)
    return [torch.from_numpy(numbers), data, torch.tensor([[len(numbers), len(header)]])]


def decode(tensors: Sequence[Tensor]) -> list[Parcel]:
    """The parcels that were encoded and put side by side.

    Raises:
        MessageRefused: they are not what was encoded.
    """
    try:
        numbers, headers, lengths = tensors
        parts = lengths.reshape(-1, 2).tolist()
        values = torch.split(numbers, [count for count, _ in parts])
        texts = torch.split(headers, [count for _, count in parts])
        return [_parcel(value.numpy(), bytes(text.tolist())) for value, text in zip(values, texts, strict=True)]
    except (ValueError, RuntimeError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise MessageRefused(f"a message of learner or reducer is damaged: {error}", "send it again") from error


def _parcel(numbers: Array, text: bytes) -> Parcel:
    header = json.loads(text)  # nesting too deep is a RecursionError, which is a RuntimeError
    parcel, at = Parcel(dict(header["said"])), 0
    for key in sorted(header["shapes"]):
        parcel.files[key] = []
        for shape, kind in zip(header["shapes"][key], header["types"][key], strict=True):
            size = math.prod(int(length) for length in shape)
            if size < 0 or at + size > len(numbers) or np.dtype(kind).kind not in "biuf":
                raise ValueError(f"{key} has shape {shape} and type {kind}")
            parcel.files[key].append(numbers[at : at + size].reshape(shape).astype(kind))
            at += size
    if at != len(numbers):
        raise ValueError(f"{len(numbers) - at} numbers too many")
    return parcel
