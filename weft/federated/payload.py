"""Numbers of fewer bits on the way, with any strategy."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from weft.engine import Collective, Strategy
from weft.engine.collectives import Answer
from weft.errors import UsageError
from weft.federated.wrapping import Wrapper, is_exact

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_LARGEST = 14  # fp16 holds numbers below 2^16; rounding up must not pass it


class Payload(Wrapper):
    """Rounds what a strategy sends and receives (Micikevicius et al., 2018, arXiv:1710.03740, on number formats).

    Sums are still taken in float64. With "bf16" and "fp16" a step or round moves 2 bytes for each number instead of 4;
    "fp16" has three bits more, and an exponent for each tensor, so that it cannot overflow. Weights and counts travel
    exactly. What rounding takes away is lost: FedAvg and its kin send moves, for which that is little.

    Args:
        strategy: whose exchanges they are.
        numbers: "fp32", "bf16" or "fp16".
    """

    def __init__(self, strategy: Strategy, numbers: Literal["fp32", "bf16", "fp16"] = "bf16") -> None:
        if numbers not in _DTYPES:
            raise UsageError(f"the payload's numbers are {numbers!r}", f"use one of {', '.join(_DTYPES)}")
        super().__init__(strategy)
        self.numbers = numbers

    def sent(self, collective: Collective) -> Collective:
        """The same, rounded."""
        tensors = [self._rounded(tensor) for tensor in collective.tensors]
        return replace(collective, tensors=tensors, encoding=replace(collective.encoding, numbers=self.numbers))

    def received(self, collective: Collective, answer: Answer) -> Answer:
        """The answer, rounded: what was gathered is so already, each part with an exponent of its own."""
        return answer if collective.kind == "gather" else [self._rounded(tensor) for tensor in answer]

    def _rounded(self, tensor: Tensor) -> Tensor:
        dtype = _DTYPES[self.numbers]
        if is_exact(tensor) or tensor.itemsize < dtype.itemsize or tensor.dtype == dtype or tensor.numel() == 0:
            return tensor
        largest = float(tensor.abs().max())
        if dtype != torch.float16 or largest == 0 or not math.isfinite(largest):
            return tensor.to(dtype).to(tensor.dtype)
        exponent = max(math.frexp(largest)[1] - 1 - _LARGEST, -100)  # a power of two: scaling itself rounds nothing
        return (tensor * 2.0**-exponent).to(dtype).to(tensor.dtype) * 2.0**exponent
