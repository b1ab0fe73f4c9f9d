"""Parts of a model that stay at the sites, with any strategy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from weft.engine import Gradients, Strategy
from weft.engine.freezing import matches
from weft.engine.strategy import Exchange
from weft.federated.means import Names
from weft.federated.wrapping import Wrapper


class Private(Wrapper):
    """Each site trains some parameters by itself, for instance the last layer (Arivazhagan et al., 2019, "Federated
    Learning with Personalization Layers", arXiv:1912.00818).

    Sites begin with the same values of them and end with models of their own. What travels is what the strategy sends
    for the rest.

    Args:
        strategy: what is exchanged of the others.
        parameters: patterns of the names of parameters and buffers that stay, as in `model.freeze`.
    """

    def __init__(self, strategy: Strategy, parameters: Sequence[str]) -> None:
        super().__init__(strategy)
        self.patterns = list(parameters)
        self.shows_gradients = False  # not those that stay
        self._names = Names()

    def watch(self, model: nn.Module) -> None:
        """Learn the names."""
        self._names = Names(model)
        super().watch(model)

    def own_tensors(self, model: nn.Module) -> frozenset[str]:
        """Those that are named, and the strategy's own."""
        every = [name for part in (model.named_parameters(), model.named_buffers()) for name, _ in part]
        return super().own_tensors(model) | {name for name in every if matches(name, self.patterns)}

    def last_backward(self, parameters: list[nn.Parameter]) -> None:
        """Pass on those that travel."""
        super().last_backward([parameter for parameter in parameters if not self._stays(parameter)])

    def average_gradients(self, gradients: Gradients) -> Exchange:
        """Pass on the gradients that travel; what stays is not moved by a step that counts nothing."""
        travelling = [parameter for parameter in gradients.parameters if not self._stays(parameter)]
        if gradients.weight <= 0:
            for parameter in gradients.parameters:
                if self._stays(parameter):
                    parameter.grad = None
        yield from super().average_gradients(replace(gradients, parameters=travelling))

    def _stays(self, parameter: nn.Parameter) -> bool:
        return matches(self._names.of(parameter), self.patterns)
