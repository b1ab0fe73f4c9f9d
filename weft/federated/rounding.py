"""Numbers of fewer bits: which tensors are rounded, and how, and which travel without their zeros."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from weft.engine.collectives import Encoding

NARROW = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
PLACE = 4  # bytes of the place of a number in a sparse tensor
EXPONENTS = (-100, 113)  # both scale float32 without a loss
FEW = 64  # numbers of a tensor of 64 bits that travels as it is
_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_LARGEST = 15  # fp16 holds numbers below 2^16; rounding up must not pass it


def travels_exactly(dtype: torch.dtype, numbers: int) -> bool:
    """Whether a tensor travels as it is: whole numbers, and weights and counts, which are few and of 64 bits."""
    return not dtype.is_floating_point or (dtype.itemsize == 8 and numbers <= FEW)


def may_be_sparse(dtype: torch.dtype, numbers: int, encoding: Encoding) -> bool:
    """Whether only those numbers of a tensor may travel that are not zero."""
    return encoding.sparse and not travels_exactly(dtype, numbers) and numbers < 2**31


def places_of(numbers: Tensor) -> Tensor:
    """Where a flat tensor is not zero; the minus of a zero is something, too."""
    return numbers.view(_BITS[numbers.itemsize]).nonzero().reshape(-1)


def sent_dtype(dtype: torch.dtype, numbers: int, encoding: str) -> torch.dtype:
    """The dtype in which a tensor's numbers travel: its own for whole numbers, weights and counts, or where none is
    shorter.

    Args:
        dtype: the tensor's.
        numbers: how many it has.
        encoding: "whole", "fp32", "bf16" or "fp16".
    """
    narrow = NARROW.get(encoding, dtype)
    return dtype if travels_exactly(dtype, numbers) or dtype.itemsize <= narrow.itemsize else narrow


def exponent_of(tensor: Tensor) -> int:
    """The power of two that brings the largest number of a tensor into fp16's range, above 2^14 up to 2^15; 0 where a
    number is beyond those of float32.

    A number that was rounded up to 2^15 keeps its exponent, so that rounding again changes nothing.
    """
    largest = float(tensor.abs().max()) if tensor.numel() else 0.0
    if largest == 0 or not math.isfinite(largest):
        return 0
    fraction, exponent = math.frexp(largest)
    exponent -= _LARGEST + int(fraction == 0.5)
    return max(exponent, EXPONENTS[0]) if exponent <= EXPONENTS[1] else 0


def narrowed(tensor: Tensor, dtype: torch.dtype, exponent: int = 0) -> Tensor:
    """A tensor's numbers without a power of two, in a narrower dtype. Scaling itself rounds nothing."""
    return (tensor * 2.0**-exponent if exponent else tensor).to(dtype)


def widened(numbers: Tensor, dtype: torch.dtype, exponent: int = 0) -> Tensor:
    """The reverse of `narrowed`, in memory of its own."""
    wide = numbers.to(dtype, copy=True)
    return wide.mul_(2.0**exponent) if exponent else wide


def rounded(tensor: Tensor, encoding: str) -> Tensor:
    """A tensor as it arrives when it is sent with numbers of `encoding`; rounding twice gives the same as once."""
    narrow = sent_dtype(tensor.dtype, tensor.numel(), encoding)
    if narrow == tensor.dtype:
        return tensor
    exponent = exponent_of(tensor) if narrow == torch.float16 else 0
    return widened(narrowed(tensor, narrow, exponent), tensor.dtype, exponent)
