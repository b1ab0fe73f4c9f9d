"""What a task hands to the engine: updates while training, evaluations while scoring."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(slots=True)
class Update:
    """One loss that one optimizer shall reduce.

    Args:
        loss: scalar, the mean over whatever `weight` counts.
        weight: normaliser of the loss: items, voxels, or the sum of class weights. Used wherever losses of several
            batches or participants are combined, and only there.
        network: the network (and so the optimizer) that this update trains; see `Task.networks`.
    """

    loss: Tensor
    weight: float | Tensor
    network: str = "main"


@dataclass(slots=True)
class Evaluation:
    """What a model said about one batch.

    Args:
        outputs: raw outputs (logits or values), first dimension items.
        targets: as in the batch, in the form the scores expect; None for predicting without targets.
        loss: mean loss of the batch, None without targets.
        weight: what the mean is taken over.
        spacing: voxel size per item in mm [n, d], where the data know it.
    """

    outputs: Tensor
    targets: Any
    loss: Tensor | None
    weight: float
    spacing: Tensor | None = None
