"""Segmentation: one class per pixel or voxel."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from weft.data import Batch
from weft.errors import DataError
from weft.tasks.base import Loss, Task


class Segmentation(Task):
    """One class per pixel or voxel; class 0 is background.

    Models give logits [n, classes, ...]; targets are [n, 1, ...] or [n, ...]. Losses of torch that take indices get
    [n, ...], all others (MONAI's) get [n, 1, ...]. Without a named loss: cross entropy plus soft Dice.

    Args:
        classes: number of classes with background; None takes it from the model's outputs.
    """

    score_kind = "segmentation"
    target_kind: ClassVar[str] = "class"
    default_metrics: ClassVar[tuple[str, ...]] = ("dice",)

    def __init__(self, classes: int | None = None) -> None:
        super().__init__()
        self.declared_classes = classes

    def setup(self, loss: Loss | None, class_names: list[str] | None) -> None:
        """See `Task.setup`."""
        if class_names is None and self.declared_classes is not None:
            class_names = ["background", *(f"class {number}" for number in range(1, self.declared_classes))]
        super().setup(loss, class_names)

    def default_loss(self) -> Loss:
        """Cross entropy plus soft Dice, in equal parts (as nnU-Net, Isensee et al., 2021)."""
        return cross_entropy_and_dice

    def targets_for_loss(self, outputs: Tensor, batch: Batch) -> Any:
        """[n, ...] int64 for losses that take indices; [n, 1, ...] for all others."""
        targets = self.targets_for_scores(batch)
        if targets.shape[1:] != outputs.shape[2:]:
            raise DataError(
                f"outputs {list(outputs.shape)} and labels {list(targets.shape)} do not fit",
                "images and labels need the same size, and the model must keep it",
            )
        if self.loss is cross_entropy_and_dice or isinstance(self.loss, nn.CrossEntropyLoss | nn.NLLLoss):
            return targets
        return targets.unsqueeze(1)

    def targets_for_scores(self, batch: Batch) -> Tensor:
        """Labels [n, ...] int64."""
        targets: Tensor = batch.targets
        spatial = batch.inputs.ndim - 2 if isinstance(batch.inputs, Tensor) else batch.inputs[0].ndim - 2
        if targets.ndim == spatial + 2 and targets.shape[1] == 1:
            targets = targets.squeeze(1)
        return targets.long()

    def predictions(self, outputs: Tensor) -> dict[str, Tensor]:
        """The label map."""
        return {"label": outputs.argmax(1).to(torch.uint8 if outputs.shape[1] <= 256 else torch.int32)}


def cross_entropy_and_dice(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean of cross entropy and soft Dice loss, each item by itself, so that it decomposes over items.

    Soft Dice (Milletari et al., 2016): 1 - (2 Σ p t + ε) / (Σ p + Σ t + ε) per item and foreground class, ε = 1e-5.

    Args:
        outputs: logits [n, classes, ...].
        targets: labels [n, ...] int64.
    """
    if int(targets.max()) >= outputs.shape[1] or int(targets.min()) < 0:
        raise DataError(
            f"labels are {int(targets.min())} to {int(targets.max())}, but the model has {outputs.shape[1]} outputs",
            f"give the model at least {int(targets.max()) + 1} output channels, or map the labels (0 is background)",
        )
    entropy = functional.cross_entropy(outputs, targets)
    probabilities = outputs.float().softmax(1)[:, 1:].flatten(2)
    wanted = functional.one_hot(targets, outputs.shape[1]).movedim(-1, 1)[:, 1:].flatten(2).to(probabilities.dtype)
    overlap = (probabilities * wanted).sum(2)
    dice = (2 * overlap + 1e-5) / (probabilities.sum(2) + wanted.sum(2) + 1e-5)
    return 0.5 * entropy + 0.5 * (1 - dice).mean()
