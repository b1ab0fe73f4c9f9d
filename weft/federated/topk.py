"""Only the largest numbers travel, with any strategy; the others wait."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from weft.engine import AverageGradients, Collective, Gradients, Strategy
from weft.engine.collectives import Answer
from weft.engine.strategy import Exchange, all_finite
from weft.errors import UsageError
from weft.federated.means import own_mark, was_counted
from weft.federated.rounding import rounded
from weft.federated.scaffold import SCAFFOLD
from weft.federated.wrapping import Wrapper, innermost, is_exact


class TopK(Wrapper):
    """Top-k sparsification with error feedback (Stich et al., 2018, "Sparsified SGD with Memory", arXiv:1809.07599).

    Of each tensor that is summed, only the largest numbers are sent; what is left out stays at the site and is added
    to what it sends next. Weights, counts and what is gathered travel whole, as do the variates with which SCAFFOLD's
    mean begins anew. A site sends 8 bytes for each of `share` · parameters (float32: the number and its place) per step
    or round, and receives up to as many times that as there are sites; a byte for each site comes with each sum.

    What a site sent that is not finite, or that the hub left out of the sum (as the site learns from it), counts
    nothing, as without this strategy: numbers that were refused would only be refused again. What waited before still
    waits, whole.

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
        self._scale = 1.0  # what is asked is multiples of it; what waits is not

    def average_gradients(self, gradients: Gradients) -> Exchange:
        """Pass on, thinned; what waits of scaled gradients has been scaled otherwise than these."""
        self._scale = gradients.scale if isinstance(innermost(self.strategy), AverageGradients) else 1.0
        yield from super().average_gradients(gradients)
        self._scale = 1.0

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
        # SCAFFOLD's variates, where their mean begins anew: else most of it would be nothing for long. They stand for
        # all that was left out of their changes before.
        whole = inner.told_whole(collective.tag) if isinstance(inner, SCAFFOLD) else ()
        wanted = [
            tensor if is_exact(tensor) or place in whole else tensor.add(kept.to(tensor), alpha=self._scale)
            for place, (tensor, kept) in enumerate(zip(collective.tensors, before, strict=True))
        ]
        numbers = collective.encoding.numbers  # with what waited, numbers may have more bits than the strategy sends
        tensors = [
            tensor if is_exact(tensor) else rounded(tensor if place in whole else self._largest(tensor), numbers)
            for place, tensor in enumerate(wanted)
        ]
        if all_finite([tensor for tensor in wanted if not is_exact(tensor)]):
            rest = [every - part for every, part in zip(wanted, tensors, strict=True)]
            self._next[collective.tag] = rest if self._scale == 1 else [tensor / self._scale for tensor in rest]
        if collective.kind == "sum":
            tensors.append(own_mark(self))
        return replace(collective, tensors=tensors, encoding=replace(collective.encoding, sparse=True))

    def received(self, collective: Collective, answer: Answer) -> Answer:
        """The answer; where it is not finite, and will not be used, or this site is not in it, what waited still
        waits.
        """
        counted = True
        if collective.kind == "sum":
            *answer, marks = answer
            counted = was_counted(self, marks)
        if not counted or not all_finite([tensor for tensor in answer if not is_exact(tensor)]):
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
