"""SCAFFOLD: FedAvg whose sites correct their gradients for what sets them apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from weft.engine import Gradients
from weft.engine.collectives import Answer, Sum
from weft.engine.strategy import Exchange, all_finite
from weft.federated.fedavg import FedAvg
from weft.federated.means import own_mark, was_counted
from weft.federated.rounding import FEW


class SCAFFOLD(FedAvg):
    """Karimireddy et al., 2020, "SCAFFOLD: Stochastic Controlled Averaging for Federated Learning", arXiv:1910.06378.

    A site's control variate is the mean of its own gradients of the last round (option II of the paper, which for
    plain gradient descent says the same by means of weights); each gradient is corrected by the mean variate of all
    minus the site's own before clipping and the step. Sites count as many times as they have items, in both means.
    8 · parameters + 16 bytes each way per round (float32), moves and changes of variates, 8 for each tensor of
    parameters, and a byte for each site.

    The mean variate must be that of the sites' own, or corrections would not cancel out:

    - A site whose numbers the hub left out of a round learns it from the sum, and keeps the variate that it had, as the
      mean does.
    - What a round does not train keeps its variate, at all sites and in the mean: items are counted for each parameter.
    - Nobody but the site itself knows what it has told, so the mean keeps the variate of a site that is away, as in the
      paper. One that comes back has the variate of its last save, to which its changes no longer belong: it says so at
      the end of its first round, and at the end of the next one all tell their variates whole, from which the mean
      begins anew. One that is left out of that says so again.

    Gradients that are not finite, as where a scaled loss overflows, are in no variate.

    Args:
        steps_per_round: see `FedAvg`.
    """

    def __init__(self, steps_per_round: int | None = None) -> None:
        super().__init__(steps_per_round)
        # By name of the parameter, as all that follows.
        self.variates: dict[str, Tensor] = {}  # of all sites: the sum of each one's times its items (float64)
        self.total: dict[str, float] = {}  # items of all sites, in all rounds in which it was trained
        self.own: dict[str, Tensor] = {}
        self.own_items: dict[str, float] = {}  # of this site, in all rounds in which it was trained
        self.sums: dict[str, Tensor] = {}  # of this round's gradients
        self.steps: dict[str, int] = {}  # how many they are
        self.stale: set[str] = set()  # of which the mean has another variate of this site than its own
        self.renewed: set[str] = set()  # whose mean begins anew with the end of the next round that trains them

    def average_gradients(self, gradients: Gradients) -> Exchange:
        """Nothing is exchanged; gradients are noted, and corrected."""
        self.count(gradients)
        if gradients.weight > 0 and all_finite(tensors := gradients.tensors()):
            scale = gradients.scale
            for parameter, gradient in zip(gradients.parameters, tensors, strict=True):
                name = self.names.of(parameter)
                before = self.sums.get(name, torch.zeros_like(gradient)).to(gradient.device)
                self.sums[name], self.steps[name] = before + gradient / scale, self.steps.get(name, 0) + 1
                if name in self.own:
                    mean = self.variates[name].to(gradient) / self.total[name]
                    gradient.add_(mean - self.own[name].to(gradient), alpha=scale)
        return
        yield

    def end_of_round(self, model: nn.Module) -> Exchange:
        """Everybody's weights become those of the start, moved by the mean; everybody takes the new variates."""
        parameters = dict(model.named_parameters())
        rounds: list[tuple[_Told, Answer]] = []
        for network, names in self.trained.items():
            told = self._told(network, {name: parameters[name] for name in names})
            rounds.append((told, (yield Sum(f"round {network}", [*told.tensors, own_mark(self)]))))
        weights: dict[str, Tensor] = {}
        for told, answer in rounds:
            weights |= self._take(told, answer)
        self.begin_round(parameters, weights)

    def told_whole(self, tag: str) -> range | list[int]:
        """Places of the tensors in what is asked that stand for all that was told before: nothing of it may wait."""
        names = self.trained.get(tag.removeprefix("round "), [])
        return [place for place, name in enumerate(names, start=len(names)) if name in self.renewed]

    def _told(self, network: str, parameters: dict[str, nn.Parameter]) -> _Told:
        """What this site tells of a round."""
        items = self.items[network]
        moves, changes, counts, new = [], [], [], dict[str, Tensor]()
        for name, parameter in parameters.items():
            before = self.own_items.get(name, 0.0)
            known = 0.0 if name in self.renewed else before  # items of what the mean has of this site
            old = self.own.get(name, torch.zeros_like(parameter)).to(parameter)
            new[name] = (self.sums[name] / self.steps[name]).to(old) if name in self.sums else old
            moves.append((parameter.detach() - self.start[name]) * items)
            changes.append(new[name] * (before + items) - old * known)
            counts.append(before + items - known)
        stale = (self.stale - self.renewed) & parameters.keys()
        said = torch.tensor([items, float(bool(stale))], dtype=torch.float64)
        counted = torch.split(torch.tensor(counts, dtype=torch.float64), FEW)  # short ones are not rounded on the way
        return _Told(new, items, [*moves, *changes, *counted, said])

    def _take(self, told: _Told, answer: Answer) -> dict[str, Tensor]:
        """Take the new variates, also of a round from which this site was left out; the weights of all."""
        names, weights = list(told.own), dict[str, Tensor]()
        *tensors, said, marks = answer
        moves, changes, counts = tensors[: len(names)], tensors[len(names) : 2 * len(names)], tensors[2 * len(names) :]
        heard, (items, stale) = was_counted(self, marks), said.tolist()
        if items > 0:
            weights = {name: self.start[name] + move / items for name, move in zip(names, moves, strict=True)}
            for name, change, count in zip(names, changes, torch.cat(counts).tolist(), strict=True):
                self._add(name, change.double(), count)  # a sum over the whole run
            begun = self.renewed & told.own.keys()
            self.renewed -= begun
            if heard:
                self.own |= told.own
                self.own_items |= {name: self.own_items.get(name, 0.0) + told.items for name in names}
                self.stale -= begun
            else:
                self.stale |= begun  # the mean has nothing of this site
        if stale > 0:
            self.renewed |= told.own.keys()
        return weights

    def _add(self, name: str, change: Tensor, count: float) -> None:
        """Add what all sites told to the mean; where that begins anew, it is all there is."""
        if name in self.variates and name not in self.renewed:
            change, count = self.variates[name].to(change) + change, self.total[name] + count
        self.variates[name], self.total[name] = change, count

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


@dataclass(frozen=True, slots=True)
class _Told:
    """What a site tells of a network at the end of a round: the variates that it would have, and on how many items."""

    own: dict[str, Tensor]
    items: float
    tensors: list[Tensor]
