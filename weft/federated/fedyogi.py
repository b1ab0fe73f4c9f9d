"""FedYogi: FedAdam whose mean square grows and shrinks by no more than a move's."""

from __future__ import annotations

from torch import Tensor

from weft.federated.fedadam import FedAdam


class FedYogi(FedAdam):
    """Reddi et al., 2021, "Adaptive Federated Optimization", arXiv:2003.00295, algorithm 2, with the rule of Yogi.

    Bytes are those of `FedAdam`: 4 · parameters + 8 each way per round (float32).

    Args:
        learning_rate, beta1, beta2, tau: see `FedAdam`.
        steps_per_round, aggregate, tolerated: see `FedAvg`.
    """

    def next_second(self, second: Tensor, square: Tensor) -> Tensor:
        """The mean square of the moves, changed by a share of the newest square towards it."""
        return second - (1 - self.beta2) * square * (second - square).sign()
