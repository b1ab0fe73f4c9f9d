"""FedAvgM: FedAvg with momentum over rounds."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from weft.errors import UsageError
from weft.federated.fedavg import FedAvg
from weft.federated.means import Aggregate


class FedAvgM(FedAvg):
    """Hsu et al., 2019, "Measuring the Effects of Non-Identical Data Distribution", arXiv:1909.06335.

    The mean move of a round is a step of gradient descent with momentum, which every site computes alike. As FedAvg,
    4 · parameters + 8 bytes each way per round (float32).

    Args:
        learning_rate: of the step over rounds.
        momentum: of the step over rounds, from 0 to below 1.
        steps_per_round, aggregate, tolerated: see `FedAvg`.
    """

    def __init__(
        self,
        learning_rate: float = 1.0,
        momentum: float = 0.9,
        steps_per_round: int | None = None,
        aggregate: Aggregate = "sum",
        tolerated: int = 1,
    ) -> None:
        super().__init__(steps_per_round, aggregate, tolerated)
        if not (0 < learning_rate < math.inf and 0 <= momentum < 1):
            raise UsageError(
                f"learning_rate is {learning_rate}, momentum is {momentum}",
                "give a learning rate above 0, a momentum from 0 and below 1",
            )
        self.learning_rate, self.momentum = learning_rate, momentum
        self.velocity: dict[str, Tensor] = {}

    def server_step(self, name: str, mean: Tensor) -> Tensor:
        """Momentum, in the parameter's dtype."""
        before = self.velocity.get(name, torch.zeros_like(mean)).to(mean.device)
        self.velocity[name] = before * self.momentum + mean
        return self.velocity[name] * self.learning_rate

    def state_dict(self) -> dict[str, Any]:
        """With the velocity, which is the same at all sites."""
        state = super().state_dict()
        return state | {"shared": state["shared"] | {"velocity": dict(self.velocity)}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        super().load_state_dict(state)
        self.velocity = dict(state["shared"]["velocity"])
