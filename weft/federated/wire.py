"""The tensors of a message as bytes: a safetensors file of one flat tensor for each dtype.

What each tensor is (`Form`) stands in the message's header. It determines the safetensors header to the byte, so a
receiver compares that with what it should be instead of trusting offsets that somebody else wrote.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from weft.engine.collectives import Encoding
from weft.federated.rounding import (
    EXPONENTS,
    PLACE,
    exponent_of,
    may_be_sparse,
    narrowed,
    places_of,
    rounded,
    sent_dtype,
    widened,
)

# Names of safetensors, wide ones first, so that every flat tensor begins where its dtype may lie.
DTYPES = {
    "F64": torch.float64,
    "I64": torch.int64,
    "F32": torch.float32,
    "I32": torch.int32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
_PLACES, _EXPONENTS = "places", "exponents"


class Wrong(Exception):
    """What is wrong with a message; told by whoever encodes or decodes it."""


@dataclass(frozen=True, slots=True)
class Form:
    """How one tensor travels.

    Args:
        dtype: the tensor's own.
        shape: its shape.
        sent: dtype of its numbers on the way.
        nonzero: how many numbers travel, each with its place; -1 where all do.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    sent: torch.dtype
    nonzero: int = -1

    @property
    def numbers(self) -> int:
        """How many numbers the tensor has."""
        return math.prod(self.shape)

    @property
    def travelling(self) -> int:
        """How many of them are sent."""
        return self.numbers if self.nonzero < 0 else self.nonzero

    @property
    def scaled(self) -> bool:
        """Whether an exponent comes with it."""
        return self.sent == torch.float16 and self.sent != self.dtype


def form_of(dtype: torch.dtype, shape: tuple[int, ...], encoding: Encoding, kept: bool) -> Form:
    """The form of a tensor; `kept` where narrower numbers would lose something."""
    sent = dtype if kept else sent_dtype(dtype, math.prod(shape), encoding.numbers)
    return Form(dtype, shape, sent)


def pack(tensors: Sequence[Tensor], encoding: Encoding, lossless: bool) -> tuple[list[Form], list[bytes | memoryview]]:
    """What is sent of tensors.

    Args:
        tensors: on any device, of the dtypes of `DTYPES`.
        encoding: how their numbers are written.
        lossless: keep whole what narrower numbers would change, such as parts that were scaled each by itself.

    Returns:
        their forms, and the bytes in parts: the safetensors header, then the flat tensors.
    """
    forms: list[Form] = []
    parts: dict[str, list[Tensor]] = {}
    for tensor in tensors:
        form, numbers, places, exponent = _written(tensor.detach().cpu().reshape(-1), tensor.shape, encoding, lossless)
        forms.append(form)
        parts.setdefault(NAMES[form.sent], []).append(numbers)
        if places is not None:
            parts.setdefault(_PLACES, []).append(places)
        if form.scaled:
            parts.setdefault(_EXPONENTS, []).append(torch.tensor([exponent], dtype=torch.int8))
    groups = _groups(forms)
    return forms, [head_of(groups), *(_bytes(part) for name, _, _ in groups for part in parts.get(name, ()))]


def _written(
    flat: Tensor, shape: torch.Size, encoding: Encoding, lossless: bool
) -> tuple[Form, Tensor, Tensor | None, int]:
    """The form of a tensor, the numbers that travel, their places and the exponent."""
    kept = lossless and not torch.equal(rounded(flat, encoding.numbers), flat)
    form = form_of(flat.dtype, tuple(shape), encoding, kept)
    exponent = exponent_of(flat) if form.scaled else 0
    numbers = narrowed(flat, form.sent, exponent).contiguous()
    if not may_be_sparse(form.dtype, form.numbers, encoding):
        return form, numbers, None, exponent
    places = places_of(numbers)
    if len(places) * (numbers.itemsize + PLACE) >= numbers.nbytes:
        return form, numbers, None, exponent
    thin = Form(form.dtype, form.shape, form.sent, len(places))
    return thin, numbers[places], places.to(torch.int32), exponent


def _bytes(flat: Tensor) -> memoryview:
    plain = flat.as_strided(flat.shape, (1,))  # a single number may lie with any stride, which `view` refuses
    return plain.view(torch.uint8).numpy().data


Group = tuple[str, torch.dtype, int]  # name, dtype, how many numbers


def _groups(forms: Iterable[Form]) -> list[Group]:
    """The flat tensors of a message, in the order in which they lie in it."""
    counts: dict[str, int] = {}
    places = exponents = 0
    for form in forms:
        name = NAMES[form.sent]
        counts[name] = counts.get(name, 0) + form.travelling
        places += max(form.nonzero, 0)
        exponents += form.scaled
    found: list[Group] = []
    for name, dtype in DTYPES.items():
        if name in counts:
            found.append((name, dtype, counts[name]))
        if name == "I32" and places:
            found.append((_PLACES, torch.int32, places))
        if name == "I8" and exponents:
            found.append((_EXPONENTS, torch.int8, exponents))
    return found


def size_of(forms: Iterable[Form]) -> int:
    """Bytes of the numbers of a message, their places and exponents."""
    return sum(count * dtype.itemsize for _, dtype, count in _groups(forms))


def head_of(groups: Sequence[Group]) -> bytes:
    """The safetensors header of flat tensors."""
    entries: dict[str, dict[str, object]] = {}
    start = 0
    for name, dtype, count in groups:
        end = start + count * dtype.itemsize
        entries[name] = {"dtype": NAMES[dtype], "shape": [count], "data_offsets": [start, end]}
        start = end
    text = json.dumps(entries, separators=(",", ":")).encode("ascii")
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def unpack(payload: memoryview, forms: Sequence[Form]) -> list[Tensor]:
    """The tensors that were packed, each in memory that may be written to.

    Args:
        payload: all of it, to its end.
        forms: checked already, within the limits.

    Raises:
        Wrong: the payload is another one than the forms tell. Nothing has been allocated where its length is wrong.
    """
    groups = _groups(forms)
    head = head_of(groups)
    size = sum(count * dtype.itemsize for _, dtype, count in groups)
    if len(payload) != len(head) + size:
        raise Wrong(f"its tensors take {len(head) + size} bytes, but {len(payload)} came")
    if payload[: len(head)] != head:
        raise Wrong("its safetensors header differs from what its own header tells")
    flat: dict[str, Tensor] = {}
    start = len(head)
    for name, dtype, count in groups:
        flat[name] = _read(payload[start : start + count * dtype.itemsize], dtype)
        start += count * dtype.itemsize
    return _parted(flat, forms)


def _read(data: memoryview, dtype: torch.dtype) -> Tensor:
    numbers = np.frombuffer(data, np.uint8)
    if dtype == torch.bool and numbers.size and numbers.max() > 1:
        raise Wrong("a truth value is neither 0 nor 1")
    flat = torch.empty(len(data) // dtype.itemsize, dtype=dtype)
    flat.view(torch.uint8).numpy()[:] = numbers
    return flat


def _parted(flat: dict[str, Tensor], forms: Sequence[Form]) -> list[Tensor]:
    starts = dict.fromkeys(flat, 0)

    def take(name: str, count: int) -> Tensor:
        start = starts[name]
        starts[name] = start + count
        return flat[name][start : start + count]

    found = []
    for form in forms:
        numbers = take(NAMES[form.sent], form.travelling)
        exponent = int(take(_EXPONENTS, 1)) if form.scaled else 0
        if not EXPONENTS[0] <= exponent <= EXPONENTS[1]:
            raise Wrong(f"an exponent is {exponent}")
        if form.sent != form.dtype:
            numbers = widened(numbers, form.dtype, exponent)
        if form.nonzero >= 0:
            places = take(_PLACES, form.nonzero) if form.nonzero else torch.empty(0, dtype=torch.int32)
            numbers = _scattered(numbers, places, form.numbers)
        found.append(numbers.view(form.shape))
    return found


def _scattered(numbers: Tensor, places: Tensor, count: int) -> Tensor:
    if len(places) and (int(places[0]) < 0 or int(places[-1]) >= count or bool((places[1:] <= places[:-1]).any())):
        raise Wrong("places of numbers are not in order, or outside of their tensor")
    found = torch.zeros(count, dtype=numbers.dtype)
    found[places.long()] = numbers
    return found


def runs_of(forms: Sequence[Form]) -> list[list[str | int]]:
    """Names of the dtypes of tensors, each with how many follow one another."""
    return [[name, len(list(same))] for name, same in groupby(NAMES[form.dtype] for form in forms)]
