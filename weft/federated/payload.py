"""Numbers of fewer bits on the way, with any strategy."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from weft.engine import Collective, Strategy
from weft.engine.collectives import Answer
from weft.errors import UsageError
from weft.federated.rounding import NARROW, rounded
from weft.federated.wrapping import Wrapper


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
        if numbers not in NARROW:
            raise UsageError(f"the payload's numbers are {numbers!r}", f"use one of {', '.join(NARROW)}")
        super().__init__(strategy)
        self.numbers = numbers

    def sent(self, collective: Collective) -> Collective:
        """The same, rounded."""
        tensors = [rounded(tensor, self.numbers) for tensor in collective.tensors]
        return replace(collective, tensors=tensors, encoding=replace(collective.encoding, numbers=self.numbers))

    def received(self, collective: Collective, answer: Answer) -> Answer:
        """The answer, rounded: what was gathered is so already, each part with an exponent of its own."""
        return answer if collective.kind == "gather" else [rounded(tensor, self.numbers) for tensor in answer]
