"""Bytes of what travels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from weft.engine.collectives import WHOLE, Encoding
from weft.federated.rounding import PLACE, exponent_of, may_be_sparse, narrowed, places_of, sent_dtype


def encoded_bytes(tensors: Sequence[Tensor], encoding: Encoding = WHOLE) -> int:
    """Bytes of a message's numbers, without its header.

    Args:
        tensors: what a site asked with, or the answer.
        encoding: of the collective.
    """
    if encoding == WHOLE:
        return sum([tensor.nbytes for tensor in tensors])
    return sum(_bytes_of(tensor, encoding) for tensor in tensors)


def _bytes_of(tensor: Tensor, encoding: Encoding) -> int:
    sent = sent_dtype(tensor.dtype, tensor.numel(), encoding.numbers)
    scaled = sent == torch.float16 and sent != tensor.dtype
    size = tensor.numel() * sent.itemsize
    if may_be_sparse(tensor.dtype, tensor.numel(), encoding):
        numbers = narrowed(tensor.detach().reshape(-1), sent, exponent_of(tensor) if scaled else 0)
        size = min(size, len(places_of(numbers)) * (sent.itemsize + PLACE))
    return size + scaled
