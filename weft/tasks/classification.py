"""Classification: binary, multiclass and multilabel."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from weft.data import Batch
from weft.errors import ConfigError, DataError
from weft.tasks.base import Loss, Task, as_indices, squeeze_last

KINDS = ("auto", "binary", "multiclass", "multilabel")


class Classification(Task):
    """One class, or several labels, per item.

    A model with one output is trained as binary with BCE on the logit; one output per class with cross entropy;
    multilabel with BCE per label.

    Args:
        kind: "binary", "multiclass", "multilabel", or "auto": binary for two classes, else multiclass.
    """

    target_kind: ClassVar[str] = "class"
    default_metrics: ClassVar[tuple[str, ...]] = ("accuracy",)

    def __init__(self, kind: str = "auto") -> None:
        super().__init__()
        if kind not in KINDS:
            raise ConfigError(f"training.task classification has kind {kind!r}", f"choose one of {', '.join(KINDS)}")
        self.kind = kind

    def setup(self, loss: Loss | None, class_names: list[str] | None) -> None:
        """See `Task.setup`."""
        super().setup(loss, class_names)
        if self.kind == "auto":
            self.kind = "binary" if self.classes == 2 else "multiclass"
        if self.kind == "multiclass" and self.classes < 2:
            raise DataError(
                f"all targets are of one class, {class_names[0] if class_names else 'unnamed'!r}",
                "there is nothing to tell apart: check the target column and dataset.load_limit",
            )
        self.score_kind = self.kind

    def default_loss(self) -> Loss:
        """Cross entropy, or BCE for one output and for labels."""
        return self._cross_entropy

    def targets_for_loss(self, outputs: Tensor, batch: Batch) -> Any:
        """Indices for cross entropy; floats in the outputs' shape for BCE."""
        targets = batch.targets
        if self.kind == "multilabel" or outputs.ndim == 1 or outputs.shape[1] == 1:
            return self._floats(outputs, targets)
        return as_indices(targets)

    def loss_of(self, outputs: Tensor, targets: Any) -> Tensor:
        """Mean loss of a batch; a single output per item is a logit [n]."""
        if self.kind != "multilabel":
            outputs = squeeze_last(outputs)
        if self.loss is None:
            raise ConfigError("task classification was not set up", "call Task.setup first")
        return self._apply_loss(self.loss, outputs, targets)

    def predictions(self, outputs: Tensor) -> dict[str, Tensor]:
        """The predicted class (or labels) and probabilities."""
        if self.kind == "multilabel":
            probabilities = outputs.sigmoid()
            return {"prediction": (probabilities >= 0.5).long(), "probability": probabilities}
        flat = squeeze_last(outputs)
        if flat.ndim == 1:
            positive = flat.sigmoid()
            return {"prediction": (positive >= 0.5).long(), "probability": torch.stack([1 - positive, positive], dim=1)}
        probabilities = flat.softmax(1)
        return {"prediction": probabilities.argmax(1), "probability": probabilities}

    def _cross_entropy(self, outputs: Tensor, targets: Tensor) -> Tensor:
        if targets.is_floating_point():
            return functional.binary_cross_entropy_with_logits(outputs, targets)
        if outputs.shape[1] < self.classes:
            raise DataError(
                f"the model gives {outputs.shape[1]} outputs per item, but the data have {self.classes} classes"
                f" ({', '.join((self.class_names or [])[:10])}{', …' if self.classes > 10 else ''})",
                f"give the model {self.classes} outputs",
            )
        return functional.cross_entropy(outputs, targets)

    def _floats(self, outputs: Tensor, targets: Tensor) -> Tensor:
        wanted = squeeze_last(outputs).shape if self.kind != "multilabel" else outputs.shape
        if targets.numel() != wanted.numel():
            raise DataError(
                f"outputs {list(outputs.shape)} and targets {list(targets.shape)} do not fit",
                "give the model one output per label, or one per class",
            )
        return targets.reshape(wanted).to(outputs.dtype if outputs.dtype == torch.float64 else torch.float32)
