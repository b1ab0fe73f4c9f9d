"""FedAvg: sites train by themselves for a round, then their changes are averaged."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import torch
from torch import Tensor, nn

from weft.engine import Gradients, Strategy
from weft.engine.collectives import Answer, Collective
from weft.engine.strategy import Exchange
from weft.errors import UsageError
from weft.federated.means import Aggregate, Names, check_aggregate, mean_over_sites


class FedAvg(Strategy):
    """Federated averaging (McMahan et al., 2017, arXiv:1602.05629).

    What travels is how far a site's weights moved in the round, times the items it trained on: 4 · parameters + 8 bytes
    each way per round (float32) and network. Moves, unlike weights, may be rounded or thinned on the way. Parameters
    that were frozen in the round do not travel. A site without items in a round counts nothing. The state of the
    optimizer stays at the site and is kept from round to round.

    Args:
        steps_per_round: optimizer steps of a round, which ends with the epoch at the latest; None: an epoch.
        aggregate: "sum" (weighted by items), "median", "trimmed_mean" or "krum".
        tolerated: so many sites may send anything, where `aggregate` is not "sum".
    """

    def __init__(self, steps_per_round: int | None = None, aggregate: Aggregate = "sum", tolerated: int = 1) -> None:
        check_aggregate(aggregate, tolerated)
        if steps_per_round is not None and steps_per_round < 1:
            raise UsageError(f"steps_per_round is {steps_per_round}", "give a number of steps from 1, or none")
        self.steps_per_round = steps_per_round
        self.aggregate, self.tolerated = aggregate, tolerated
        self.names = Names()
        self.start: dict[str, Tensor] = {}  # weights that the round began with, the same at all sites
        self.items: dict[str, float] = {}  # by network: what this site trained on in the round
        self.trained: dict[str, list[str]] = {}  # by network: parameters that were trained in the round

    def watch(self, model: nn.Module) -> None:
        """Keep the weights that the first round begins with."""
        self.names = Names(model)
        for name, parameter in model.named_parameters():
            kept = self.start.get(name)
            self.start[name] = parameter.detach().clone() if kept is None else kept.to(parameter.device)

    def average_gradients(self, gradients: Gradients) -> Exchange:
        """Nothing is exchanged; what was trained, and on how much, is counted."""
        self.count(gradients)
        return
        yield

    def count(self, gradients: Gradients) -> None:
        """Count the step; a site that has no items in it, or failed, does not move."""
        network = gradients.network
        self.items[network] = self.items.get(network, 0.0) + gradients.weight
        names = [self.names.of(parameter) for parameter in gradients.parameters]
        self.trained[network] = list(dict.fromkeys(self.trained.get(network, []) + names))
        if gradients.weight <= 0:
            for parameter in gradients.parameters:
                parameter.grad = None

    def end_of_round(self, model: nn.Module) -> Exchange:
        """Everybody's weights become those of the start, moved by the mean."""
        parameters = dict(model.named_parameters())
        moved: dict[str, Tensor] = {}
        for network in self.trained:
            names = self.shared(network)
            moved |= yield from self.mean_moves(network, names, [parameters[name].detach() for name in names])
        self.begin_round(parameters, {name: self.start[name] + self.server_step(name, moved[name]) for name in moved})

    def shared(self, network: str) -> list[str]:
        """The parameters that travel."""
        return self.trained[network]

    def mean_moves(
        self, network: str, names: list[str], weights: list[Tensor]
    ) -> Generator[Collective, Answer, dict[str, Tensor]]:
        """How far the sites moved from the start in the mean; nothing when nobody moved."""
        moves = [weight - self.start[name] for name, weight in zip(names, weights, strict=True)]
        means, total = yield from mean_over_sites(
            f"round {network}", moves, self.items[network], self.aggregate, self.tolerated
        )
        return dict(zip(names, means, strict=True)) if total > 0 else {}

    def server_step(self, name: str, mean: Tensor) -> Tensor:
        """What is added to the weights, of the mean move; every site computes it alike."""
        return mean

    def begin_round(self, parameters: dict[str, nn.Parameter], weights: dict[str, Tensor]) -> None:
        """Take the new weights, and begin to count anew."""
        with torch.no_grad():
            for name, weight in weights.items():
                parameters[name].copy_(weight)
        self.start = self.start | weights
        self.items, self.trained = {}, {}

    def returned(self) -> None:
        """What was trained in the round that was left is lost."""
        self.items, self.trained = {}, {}

    def state_dict(self) -> dict[str, Any]:
        """ "shared" is the same at all sites, "private" is this site's own."""
        private = {"items": dict(self.items), "trained": dict(self.trained)}
        return {"shared": {"start": dict(self.start)}, "private": private}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        self.start = dict(state["shared"]["start"])
        self.items, self.trained = dict(state["private"]["items"]), dict(state["private"]["trained"])
