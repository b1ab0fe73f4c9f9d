"""An item as bytes and back, exactly: tensors with their strides, arrays, MONAI's metadata, numbers and text.

The format is safetensors, which executes nothing when it is read: the structure lies in its header as JSON, with small
arrays in it, large ones behind it as bytes. Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor

from weft.errors import DataError

FORMAT = 1  # of what is written here; another number makes all that was written before unknown
_INLINE = 256  # bytes; headers of images hold dozens of numbers that would each be an entry of the file

Bytes = NDArray[np.uint8]


class DamagedItem(Exception):
    """What was read is no packed item, or not as it was written."""


def pack(item: Any) -> bytes:
    """An item as bytes.

    Args:
        item: dicts, lists and tuples of tensors, arrays, numbers and text.

    Raises:
        DataError: it holds something else; names where and what.
    """
    packer = _Packer()
    structure = json.dumps(packer.node(item, "item"), separators=(",", ":"))
    parts = {str(number): part for number, part in enumerate(packer.parts)}
    header = json.dumps([FORMAT, _digest(structure, packer.parts), structure])
    packed: bytes = save(parts, {"weft": header})
    return packed


def unpack(file: Path, *, verify: bool = True) -> Any:
    """The item in a file that holds what `pack` returned.

    Args:
        file: where it lies.
        verify: compare the content with its digest.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedItem: it is cut short, altered, or something else.
    """
    try:
        with safe_open(file, "pt") as opened:
            version, digest, structure = json.loads(opened.metadata()["weft"])
            parts = [opened.get_tensor(str(number)).numpy() for number in range(len(opened.keys()))]
        if version != FORMAT:
            raise DamagedItem(f"{file} is in format {version}, not {FORMAT}")
        if verify and digest != _digest(structure, parts):
            raise DamagedItem(f"the content of {file} is not what was written")
        return _Unpacker(parts).value(json.loads(structure))
    except FileNotFoundError:
        raise
    except (SafetensorError, OSError, KeyError, ValueError, TypeError, IndexError, RuntimeError) as error:
        raise DamagedItem(f"{file} cannot be read: {type(error).__name__}: {error}") from error


def _digest(structure: str, parts: Sequence[Bytes]) -> str:
    digest = hashlib.sha256(structure.encode())
    for part in parts:
        digest.update(f" {part.nbytes} ".encode())
        digest.update(part.data)
    return digest.hexdigest()


class _Packer:
    """Turns values into nodes of JSON: plain ones as they are, all others as `{mark: ...}`."""

    def __init__(self) -> None:
        self.parts: list[Bytes] = []
        self.known: dict[int, tuple[Any, int]] = {}  # id -> object and number: one that occurs twice stays one object

    def node(self, value: Any, where: str) -> Any:
        if isinstance(value, Tensor | np.ndarray):
            return self._array_object(value, where)
        if isinstance(value, np.generic):  # first: some of them are numbers or text of Python's as well
            return {"scalar": self._array(np.asarray(value), where)}
        if value is None or type(value) in (bool, int, float):
            return value
        if isinstance(value, str):
            return str.__str__(value)  # of an enumeration of texts, the text
        if isinstance(value, dict):
            pairs = [[self.node(key, where), self.node(child, f"{where}[{key!r}]")] for key, child in value.items()]
            return {"dict": pairs}
        if isinstance(value, list):
            return [self.node(child, f"{where}[{place}]") for place, child in enumerate(value)]
        if type(value) in (tuple, torch.Size):
            return {"tuple": [self.node(child, f"{where}[{place}]") for place, child in enumerate(value)]}
        if isinstance(value, PurePath):
            return {"path": str(value)}
        if isinstance(value, bytes):
            return {"bytes": value.hex()}
        if isinstance(value, torch.dtype):
            return {"dtype": str(value).removeprefix("torch.")}
        raise _not_packable(value, where)

    def _array_object(self, value: Any, where: str) -> Any:
        if id(value) in self.known:
            return {"again": self.known[id(value)][1]}
        number = len(self.known)
        self.known[id(value)] = value, number
        if isinstance(value, np.ndarray):
            return {"array": self._array(value, where), "number": number}
        if type(value) is Tensor:
            return {"tensor": self._tensor(value, where), "number": number}
        if not is_meta_tensor(value):
            raise _not_packable(value, where)
        state = {name: _without_identity(part) for name, part in vars(value).items()}
        tensor = self._tensor(value.as_subclass(Tensor), where)
        return {"meta_tensor": tensor, "state": self.node(state, where), "number": number}

    def _tensor(self, tensor: Tensor, where: str) -> dict[str, Any]:
        tensor = tensor.detach()
        if tensor.device.type != "cpu" or tensor.layout is not torch.strided or tensor.is_quantized:
            raise _not_packable(tensor, where)
        if tensor.is_conj() or tensor.is_neg():
            tensor = tensor.resolve_conj().resolve_neg()
        sizes, strides = list(tensor.shape), list(tensor.stride())
        kept = tensor[tuple(slice(size) for size in _own_sizes(sizes, strides))]
        flat = kept.contiguous().as_strided([kept.numel()], [1])
        form = {"type": str(tensor.dtype).removeprefix("torch."), "sizes": sizes, "strides": strides}
        return {**form, "data": self._data(flat.view(torch.uint8).numpy())}

    def _array(self, array: NDArray[Any], where: str) -> dict[str, Any]:
        if type(array) is not np.ndarray or array.dtype.kind not in "biufcSUmM":
            raise _not_packable(array, where)
        form = {"type": array.dtype.str, "sizes": list(array.shape)}
        if not array.flags.c_contiguous:
            form["strides"] = list(array.strides)
            array = array[tuple(slice(size) for size in _own_sizes(array.shape, array.strides))]
            array = array[_forward(array.strides)]
        return {**form, "data": self._data(np.ascontiguousarray(array).reshape(-1).view(np.uint8))}

    def _data(self, data: Bytes) -> Any:
        if data.nbytes <= _INLINE:
            return data.tobytes().hex()
        self.parts.append(data)
        return len(self.parts) - 1


class _Unpacker:
    """Turns nodes back into values; every array has memory of its own, which may be written to."""

    def __init__(self, parts: Sequence[Bytes]) -> None:
        self.parts = parts
        self.made: dict[int, Any] = {}

    def value(self, node: Any) -> Any:
        if isinstance(node, list):
            return [self.value(child) for child in node]
        if not isinstance(node, dict):
            return node
        if "again" in node:
            return self.made[node["again"]]
        mark, content = next(iter(node.items()))
        if mark in ("array", "tensor", "meta_tensor"):
            if mark == "array":
                made: Any = self._array(content)
            else:
                made = self._tensor(content)
            if mark == "meta_tensor":
                made = as_meta_tensor(made, self.value(node["state"]))
            self.made[node["number"]] = made
            return made
        if mark == "dict":
            return {self.value(key): self.value(child) for key, child in content}
        if mark == "tuple":
            return tuple(self.value(child) for child in content)
        if mark == "scalar":
            return self._array(content)[()]
        return _SIMPLE[mark](content)

    def _data(self, data: Any) -> Bytes:
        return self.parts[data] if isinstance(data, int) else np.frombuffer(bytes.fromhex(data), np.uint8)

    def _tensor(self, form: Mapping[str, Any]) -> Tensor:
        dtype, sizes, strides = _torch_type(form["type"]), form["sizes"], form["strides"]
        own = _own_sizes(sizes, strides)
        values = torch.empty(own, dtype=dtype)
        values.reshape(-1).view(torch.uint8).numpy()[:] = self._data(form["data"])
        if list(values.stride()) == strides:
            return values
        # Sums round by the order in which memory is gone through: the strides belong to an exact copy.
        made = torch.empty_strided(own, strides, dtype=dtype).copy_(values)
        return made.expand(sizes)

    def _array(self, form: Mapping[str, Any]) -> NDArray[Any]:
        dtype, sizes, strides = np.dtype(form["type"]), form["sizes"], form.get("strides")
        if strides is None:
            plain: NDArray[Any] = self._data(form["data"]).view(dtype).reshape(sizes).copy()
            return plain
        own, steps = _own_sizes(sizes, strides), [abs(stride) for stride in strides]
        values = self._data(form["data"]).view(dtype).reshape(own)
        extent = dtype.itemsize + sum((size - 1) * step for size, step in zip(own, steps))
        made: NDArray[Any] = np.ndarray(own, dtype, np.empty(extent if values.size else 0, np.uint8), strides=steps)
        made[...] = values
        whole: NDArray[Any] = np.lib.stride_tricks.as_strided(made, sizes, steps)
        return whole[_forward(strides)]


def _own_sizes(sizes: Sequence[int], strides: Sequence[int]) -> list[int]:
    """The sizes without what is expanded: along an axis of stride 0 one place in memory stands for all."""
    return [min(size, 1) if stride == 0 else size for size, stride in zip(sizes, strides)]


def _torch_type(name: str) -> torch.dtype:
    found = getattr(torch, name, None)
    if not isinstance(found, torch.dtype):
        raise ValueError(f"torch has no type {name!r}")
    return found


def _forward(strides: Sequence[int]) -> tuple[slice, ...]:
    """The index that turns axes around which run backwards through memory."""
    return tuple(slice(None, None, -1 if stride < 0 else 1) for stride in strides)


_SIMPLE: Mapping[str, Callable[[str], Any]] = {"path": Path, "bytes": bytes.fromhex, "dtype": _torch_type}


def is_meta_tensor(value: object) -> bool:
    """Whether a tensor is MONAI's, which carries metadata; told without importing MONAI."""
    kind = type(value)
    return kind.__name__ == "MetaTensor" and kind.__module__.startswith("monai.")


def as_meta_tensor(tensor: Tensor, state: dict[str, Any]) -> Tensor:
    """MONAI's tensor over the same memory, with the attributes that it had."""
    from monai.data.meta_tensor import MetaTensor

    made: Tensor = tensor.as_subclass(MetaTensor)
    vars(made).update(state)
    return made


def _without_identity(value: Any) -> Any:
    """Records of transforms that were applied name the object that did, by its address: it means nothing later. MONAI
    takes "none" for any object of the class."""
    if isinstance(value, dict):
        identified = "class" in value and isinstance(value.get("id"), int)
        cleaned = {key: _without_identity(child) for key, child in value.items()}
        return {**cleaned, "id": "none"} if identified else cleaned
    if type(value) in (list, tuple):
        return type(value)(_without_identity(child) for child in value)
    return value


def _not_packable(value: Any, where: str) -> DataError:
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    if isinstance(value, Tensor):
        kind += f" ({value.dtype}, {value.layout}, on {value.device})"
    elif isinstance(value, np.ndarray):
        kind += f" of {value.dtype}"
    return DataError(
        f"the item cannot be kept on disk: {where} is a {kind}",
        "let dataset.transforms.base return tensors, arrays, numbers and text, or use run.cache: memory",
    )
