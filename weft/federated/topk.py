"""Only the largest numbers travel, with any strategy; the others wait."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from weft.engine import Collective, Strategy
from weft.engine.collectives import Answer
from weft.errors import UsageError
from weft.federated.means import all_finite
from weft.federated.rounding import rounded
from weft.federated.scaffold import SCAFFOLD
from weft.federated.wrapping import Wrapper, innermost, is_exact


class TopK(Wrapper):
    """Top-k sparsification with error feedback (Stich et al., 2018, "Sparsified SGD with Memory", arXiv:1809.07599).

    Of each tensor that is summed, only the largest numbers are sent; what is left out stays at the site and is added
    to what it sends next. Weights, counts and what is gathered travel whole, as does a round in which SCAFFOLD's mean
    begins anew. A site sends 8 bytes for each of `share` · parameters (float32: the number and its place) per step or
    round, and receives up to as many times that as there are sites.

    Args:
        strategy: whose exchanges they are.
        share: of the numbers of each tensor, above 0 to 1; 1 is the strategy itself.
    """

    def __init__(self, strategy: Strategy, share: float = 0.01) -> None:
        if not 0 < share <= 1:
            raise UsageError(f"the share of top-k is {share}", "give a number above 0, up to 1")
        super().__init__(strategy)
        self.share = share
        self.waiting: dict[str, list[Tensor]] = {}  # by tag: what this site has not sent yet
        self._next: dict[str, list[Tensor]] = {}

    def begin(self) -> None:
        """Nothing has been sent."""
        self._next = {}

    def sent(self, collective: Collective) -> Collective:
        """The same, thinned."""
        if collective.kind == "gather":
            return collective
        before = self.waiting.get(collective.tag, [])
        if [tensor.shape for tensor in before] != [tensor.shape for tensor in collective.tensors]:
            before = [torch.zeros_like(tensor) for tensor in collective.tensors]  # also when layers are unfrozen
        inner = innermost(self.strategy)
        # SCAFFOLD's variates, where their mean begins anew: else most of it would be nothing for long.
        whole = isinstance(inner, SCAFFOLD) and collective.tag in [f"round {network}" for network in inner.renewed]
        if whole:  # they stand for all that was left out of their changes before; moves, which come first, do not
            moves = len(before) // 2
            before = [*before[:moves], *map(torch.zeros_like, before[moves:])]
        wanted = [
            tensor if is_exact(tensor) else tensor + kept.to(tensor)
            for tensor, kept in zip(collective.tensors, before, strict=True)
        ]
        numbers = collective.encoding.numbers  # with what waited, numbers may have more bits than the strategy sends
        thinned = wanted if whole else [tensor if is_exact(tensor) else self._largest(tensor) for tensor in wanted]
        tensors = [tensor if is_exact(tensor) else rounded(tensor, numbers) for tensor in thinned]
        self._next[collective.tag] = [whole - part for whole, part in zip(wanted, tensors, strict=True)]
        return replace(collective, tensors=tensors, encoding=replace(collective.encoding, sparse=True))

    def received(self, collective: Collective, answer: Answer) -> Answer:
        """The answer; one that is not finite will not be used, so what was sent is still to be sent."""
        if not all_finite([tensor for tensor in answer if not is_exact(tensor)]):
            self._next.pop(collective.tag, None)
        return answer

    def _largest(self, tensor: Tensor) -> Tensor:
        flat = tensor.reshape(-1)
        if flat.numel() == 0:
            return tensor
        places = flat.abs().topk(math.ceil(self.share * flat.numel())).indices
        return torch.zeros_like(flat).index_copy(0, places, flat[places]).reshape(tensor.shape)

    def end(self) -> None:
        """What was left out is added to what comes next."""
        self.waiting = self.waiting | self._next

    def state_dict(self) -> dict[str, Any]:
        """What waits is this site's own."""
        inner = dict(self.strategy.state_dict())
        shared = inner.pop("shared", {})
        return {"shared": shared, "private": {"waiting": dict(self.waiting), "strategy": inner}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        self.waiting = dict(state["private"]["waiting"])
        self.strategy.load_state_dict(state["private"]["strategy"] | {"shared": state["shared"]})
