"""Wrappers: strategies that change what another one sends, whatever it is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from weft.engine import Collective, Gradients, Strategy
from weft.engine.collectives import Answer, Sum
from weft.engine.strategy import Exchange
from weft.errors import UsageError
from weft.federated.rounding import travels_exactly


class Wrapper(Strategy):
    """Passes everything on to a strategy; subclasses change collectives on the way.

    Args:
        strategy: the one within.

    Raises:
        UsageError: it is none, such as a name that an experiment file gives without `component:`.
    """

    def __init__(self, strategy: Strategy) -> None:
        if not isinstance(strategy, Strategy):
            written = next(iter(strategy)) if isinstance(strategy, dict) and strategy else strategy
            name = written if isinstance(written, str) else "dSGD"
            raise UsageError(
                f"the strategy within {type(self).__name__} is {strategy!r}, which is not built",
                f"write strategy: {{component: {{{name}: {{…}}}}}}; in Python, give the strategy itself: {name}(…)",
            )
        self.strategy = strategy
        self.steps_per_round = strategy.steps_per_round
        self.buffers = strategy.buffers
        self.shows_gradients = strategy.shows_gradients

    def sent(self, collective: Collective) -> Collective:
        """What is asked instead."""
        return collective

    def received(self, collective: Collective, answer: Answer) -> Answer:
        """What the strategy within is told: `collective` is what was asked instead."""
        return answer

    def begin(self) -> None:
        """Called before the strategy within asks anything."""

    def end(self) -> None:
        """Called after the last yield of an exchange: memory may change now."""

    def takes_part(self, participant: int, participants: int) -> None:
        """Pass on."""
        super().takes_part(participant, participants)
        self.strategy.takes_part(participant, participants)

    def watch(self, model: nn.Module) -> None:
        """Pass on."""
        self.strategy.watch(model)

    def loss_term(self, model: nn.Module) -> Tensor | None:
        """Pass on."""
        return self.strategy.loss_term(model)

    def last_backward(self, parameters: list[nn.Parameter]) -> None:
        """Pass on."""
        self.strategy.last_backward(parameters)

    def average_gradients(self, gradients: Gradients) -> Exchange:
        """Pass on, changed."""
        yield from self._changed(self.strategy.average_gradients(gradients))

    def after_step(self, model: nn.Module) -> None:
        """Pass on."""
        self.strategy.after_step(model)

    def end_of_round(self, model: nn.Module) -> Exchange:
        """Pass on, changed."""
        yield from self._changed(self.strategy.end_of_round(model))

    def has_rounds(self) -> bool:
        """Whether the strategy within has."""
        return self.strategy.has_rounds()

    def _changed(self, steps: Exchange) -> Exchange:
        self.begin()
        collective = next(steps, None)
        while collective is not None:
            asked = self.sent(collective)
            if isinstance(asked, Sum) and asked.borrows:
                asked = replace(asked, borrows=False)  # `received` may change what it is told
            answer = self.received(asked, (yield asked))
            try:
                collective = steps.send(answer)
            except StopIteration:
                collective = None
        self.end()

    def own_tensors(self, model: nn.Module) -> frozenset[str]:
        """Those of the strategy within."""
        return self.strategy.own_tensors(model)

    def returned(self) -> None:
        """Pass on."""
        self.strategy.returned()

    def state_dict(self) -> dict[str, Any]:
        """That of the strategy within."""
        return self.strategy.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        self.strategy.load_state_dict(state)


def innermost(strategy: Strategy) -> Strategy:
    """The strategy within all wrappers."""
    while isinstance(strategy, Wrapper):
        strategy = strategy.strategy
    return strategy


def is_exact(tensor: Tensor) -> bool:
    """Whether a tensor travels as it is: whole numbers, and weights and counts, which are few and of 64 bits."""
    return travels_exactly(tensor.dtype, tensor.numel())
