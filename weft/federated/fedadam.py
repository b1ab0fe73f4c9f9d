"""FedAdam: FedAvg whose rounds are steps of Adam."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from weft.errors import UsageError
from weft.federated.fedavg import FedAvg
from weft.federated.means import Aggregate


class FedAdam(FedAvg):
    """Reddi et al., 2021, "Adaptive Federated Optimization", arXiv:2003.00295, algorithm 2.

    The mean move of a round is the gradient of a step of Adam without correction of its bias, which every site
    computes alike. As FedAvg, 4 · parameters + 8 bytes each way per round (float32).

    Args:
        learning_rate: of the step over rounds.
        beta1, beta2: how much of the mean and of the mean square is kept, from 0 to below 1.
        tau: added to the root of the mean square, which begins with its square.
        steps_per_round, aggregate, tolerated: see `FedAvg`.
    """

    def __init__(
        self,
        learning_rate: float = 0.1,
        beta1: float = 0.9,
        beta2: float = 0.99,
        tau: float = 1e-3,
        steps_per_round: int | None = None,
        aggregate: Aggregate = "sum",
        tolerated: int = 1,
    ) -> None:
        super().__init__(steps_per_round, aggregate, tolerated)
        if not (0 < learning_rate < math.inf and 0 <= beta1 < 1 and 0 <= beta2 < 1 and 0 < tau < math.inf):
            raise UsageError(
                f"learning_rate is {learning_rate}, beta1 is {beta1}, beta2 is {beta2}, tau is {tau}",
                "give a learning rate and tau above 0, betas from 0 and below 1",
            )
        self.learning_rate, self.beta1, self.beta2, self.tau = learning_rate, beta1, beta2, tau
        self.first: dict[str, Tensor] = {}
        self.second: dict[str, Tensor] = {}

    def server_step(self, name: str, mean: Tensor) -> Tensor:
        """A step of the server's optimizer, in the parameter's dtype."""
        first = self.first.get(name, torch.zeros_like(mean)).to(mean.device)
        second = self.second.get(name, torch.full_like(mean, self.tau**2)).to(mean.device)
        self.first[name] = first * self.beta1 + mean * (1 - self.beta1)
        self.second[name] = self.next_second(second, mean.square())
        return self.learning_rate * self.first[name] / (self.second[name].sqrt() + self.tau)

    def next_second(self, second: Tensor, square: Tensor) -> Tensor:
        """The mean square of the moves, with the newest."""
        return second * self.beta2 + square * (1 - self.beta2)

    def state_dict(self) -> dict[str, Any]:
        """With both moments, which are the same at all sites."""
        state = super().state_dict()
        return state | {"shared": state["shared"] | {"first": dict(self.first), "second": dict(self.second)}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        super().load_state_dict(state)
        self.first, self.second = dict(state["shared"]["first"]), dict(state["shared"]["second"])
