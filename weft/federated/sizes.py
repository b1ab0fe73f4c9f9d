"""Bytes of what travels."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from weft.engine.collectives import WHOLE, Encoding
from weft.federated.wrapping import is_exact

_WIDTHS = {"fp32": 4, "bf16": 2, "fp16": 2}
_PLACE = 4  # bytes of the place of a number in a sparse tensor


def encoded_bytes(tensors: Sequence[Tensor], encoding: Encoding = WHOLE) -> int:
    """Bytes of a message's numbers, without its header.

    Args:
        tensors: what a site asked with, or the answer.
        encoding: of the collective.
    """
    return sum(_bytes_of(tensor, encoding) for tensor in tensors)


def _bytes_of(tensor: Tensor, encoding: Encoding) -> int:
    if is_exact(tensor):
        return tensor.numel() * tensor.itemsize
    width = min(_WIDTHS.get(encoding.numbers, tensor.itemsize), tensor.itemsize)
    exponent = int(encoding.numbers == "fp16" and tensor.itemsize > width)
    dense = tensor.numel() * width
    if encoding.sparse:
        dense = min(dense, int(tensor.count_nonzero()) * (width + _PLACE))
    return dense + exponent
