"""Losses under the names of coinstac-dinunet's."""

from __future__ import annotations

from torch import Tensor


def dice_loss_binary(outputs: Tensor, target: Tensor, beta: float = 1, weights: Tensor | None = None) -> Tensor:
    """One minus the overlap of a mask with what is predicted of it, smoothed by one item.

    Args:
        outputs: probabilities of the mask, of any shape.
        target: 0 and 1, as many.
        beta: more than 1 makes what is predicted beside the mask cost more, less than 1 what is missed.
        weights: of each place.
    """
    guess, truth = outputs.reshape(-1).float(), target.reshape(-1).float()
    scale = 1.0 if weights is None else weights.reshape(-1).float()
    both, square = (guess * truth * scale).sum(), beta**2
    return 1 - ((1 + square) * both + 1) / (square * (guess * scale).sum() + (truth * scale).sum() + 1)
