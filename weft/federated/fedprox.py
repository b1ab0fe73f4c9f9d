"""FedProx: FedAvg whose sites are held near the weights that the round began with."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from weft.errors import UsageError
from weft.federated.fedavg import FedAvg
from weft.federated.means import Aggregate


class FedProx(FedAvg):
    """Li et al., 2020, "Federated Optimization in Heterogeneous Networks", arXiv:1812.06127.

    mu/2 · |w - w_start|² is added to every loss. As FedAvg, 4 · parameters + 8 bytes each way per round (float32).

    Args:
        mu: how strongly sites are held; 0 is FedAvg.
        steps_per_round, aggregate, tolerated: see `FedAvg`.
    """

    def __init__(
        self,
        mu: float = 0.01,
        steps_per_round: int | None = None,
        aggregate: Aggregate = "sum",
        tolerated: int = 1,
    ) -> None:
        super().__init__(steps_per_round, aggregate, tolerated)
        if not 0 <= mu < math.inf:
            raise UsageError(f"mu is {mu}", "give a number from 0")
        self.mu = mu

    def loss_term(self, model: nn.Module) -> Tensor | None:
        """The proximal term, over the parameters that are trained now."""
        distances = [
            (parameter - self.start[name]).square().sum()
            for name, parameter in model.named_parameters()
            if parameter.requires_grad
        ]
        return torch.stack(distances).sum() * (self.mu / 2) if distances else None
