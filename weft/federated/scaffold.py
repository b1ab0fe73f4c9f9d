"""SCAFFOLD: FedAvg whose sites correct their gradients for what sets them apart."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from weft.engine import Gradients
from weft.engine.collectives import Answer, Sum
from weft.engine.strategy import Exchange
from weft.federated.fedavg import FedAvg


class SCAFFOLD(FedAvg):
    """Karimireddy et al., 2020, "SCAFFOLD: Stochastic Controlled Averaging for Federated Learning", arXiv:1910.06378.

    A site's control variate is the mean of its own gradients of the last round (option II of the paper, which for
    plain gradient descent says the same by means of weights); each gradient is corrected by the mean variate of all
    minus the site's own before clipping and the step. Sites count as many times as they have items, in both means.
    8 · parameters + 24 bytes each way per round (float32): moves and changes of variates.

    The mean variate must be that of the sites' own, or corrections would not cancel out. Nobody but the site itself
    knows what it has told, so the mean keeps the variate of a site that is away, as in the paper. One that comes back
    has the variate of its last save, to which its changes no longer belong: it says so at the end of its first round,
    and at the end of the next one all tell their variates whole, from which the mean begins anew. What the hub leaves
    out of a round, the site does not learn; the share of that in the mean falls with the items of further rounds.

    Args:
        steps_per_round: see `FedAvg`.
    """

    def __init__(self, steps_per_round: int | None = None) -> None:
        super().__init__(steps_per_round)
        self.variates: dict[str, Tensor] = {}  # of all sites: the sum of each one's times its items (float64)
        self.total: dict[str, float] = {}  # by network: items of all sites, in all rounds
        self.own: dict[str, Tensor] = {}
        self.own_items: dict[str, float] = {}  # by network: of this site, in all rounds
        self.sums: dict[str, Tensor] = {}  # of this round's gradients
        self.steps: dict[str, int] = {}  # by network: of this round
        self.stale: set[str] = set()  # networks of which the mean has another variate of this site than its own
        self.renewed: set[str] = set()  # networks whose mean begins anew with the end of this round

    def average_gradients(self, gradients: Gradients) -> Exchange:
        """Nothing is exchanged; gradients are noted, and corrected."""
        self.count(gradients)
        if gradients.weight > 0:
            network, scale = gradients.network, gradients.scale
            self.steps[network] = self.steps.get(network, 0) + 1
            for parameter, gradient in zip(gradients.parameters, gradients.tensors(), strict=True):
                name = self.names.of(parameter)
                before = self.sums.get(name, torch.zeros_like(gradient)).to(gradient.device)
                self.sums[name] = before + gradient / scale
                if name in self.own:
                    mean = self.variates[name].to(gradient) / self.total[network]
                    gradient.add_(mean - self.own[name].to(gradient), alpha=scale)
        return
        yield

    def end_of_round(self, model: nn.Module) -> Exchange:
        """Everybody's weights become those of the start, moved by the mean; everybody takes the new variates."""
        parameters = dict(model.named_parameters())
        rounds: list[tuple[str, dict[str, Tensor], Answer]] = []
        for network, names in self.trained.items():
            items, before = self.items[network], self.own_items.get(network, 0.0)
            old = {name: self.own.get(name, torch.zeros_like(parameters[name])).to(parameters[name]) for name in names}
            new = old | {name: mean.to(old[name]) for name, mean in self._means(network).items()}
            moves = [(parameters[name].detach() - self.start[name]) * items for name in names]
            known = 0.0 if network in self.renewed else before  # items of what the mean has of this site
            changes = [new[name] * (before + items) - old[name] * known for name in names]
            said = torch.tensor([items, before + items - known, float(network in self.stale)], dtype=torch.float64)
            answer = yield Sum(f"round {network}", [*moves, *changes, said])
            rounds.append((network, new, answer))
        weights: dict[str, Tensor] = {}
        for network, new, (*sums, told) in rounds:
            total, counted, stale = told.tolist()
            if total > 0:
                names = self.trained[network]
                moves, changes = sums[: len(names)], sums[len(names) :]
                weights |= {name: self.start[name] + move / total for name, move in zip(names, moves, strict=True)}
                self._take(network, new, dict(zip(names, changes, strict=True)), counted)
            if stale > 0:
                self.stale.discard(network)
                self.renewed.add(network)
        self.begin_round(parameters, weights)

    def _means(self, network: str) -> dict[str, Tensor]:
        """The mean gradients of this site in the round."""
        steps = self.steps.get(network, 0)
        return {name: self.sums[name] / steps for name in self.trained[network]} if steps else {}

    def _take(self, network: str, own: dict[str, Tensor], changes: dict[str, Tensor], total: float) -> None:
        self.own |= own
        if network in self.renewed:  # what changed is all there is
            self.renewed.discard(network)
            self.total[network] = 0.0
            for name in changes:
                self.variates.pop(name, None)
        for name, change in changes.items():
            wide = change.double()  # a sum over the whole run
            self.variates[name] = self.variates.get(name, torch.zeros_like(wide)).to(wide.device) + wide
        self.total[network] = self.total.get(network, 0.0) + total
        self.own_items[network] = self.own_items.get(network, 0.0) + self.items[network]

    def begin_round(self, parameters: dict[str, nn.Parameter], weights: dict[str, Tensor]) -> None:
        """Take the new weights, and begin to count anew."""
        super().begin_round(parameters, weights)
        self.sums, self.steps = {}, {}

    def returned(self) -> None:
        """The gradients of the round that was left are lost; of the own variate the mean may have a later one."""
        super().returned()
        self.sums, self.steps = {}, {}
        self.stale = set(self.total)

    def state_dict(self) -> dict[str, Any]:
        """The mean variate is the same at all sites, the own one and this round's gradients are not."""
        state = super().state_dict()
        shared = {"variates": dict(self.variates), "total": dict(self.total), "renewed": sorted(self.renewed)}
        private = {"own": dict(self.own), "own_items": dict(self.own_items), "stale": sorted(self.stale)}
        round_so_far = {"sums": dict(self.sums), "steps": dict(self.steps)}
        return {"shared": state["shared"] | shared, "private": state["private"] | private | round_so_far}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        super().load_state_dict(state)
        shared, private = state["shared"], state["private"]
        self.variates, self.total = dict(shared["variates"]), dict(shared["total"])
        self.own, self.own_items = dict(private["own"]), dict(private["own_items"])
        self.sums, self.steps = dict(private["sums"]), dict(private["steps"])
        self.renewed, self.stale = set(shared["renewed"]), set(private["stale"])
