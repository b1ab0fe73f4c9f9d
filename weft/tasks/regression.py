"""Regression: one or several numbers per item."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from weft.data import Batch
from weft.errors import DataError
from weft.tasks.base import Loss, Task


class Regression(Task):
    """One or several numbers per item, trained with the mean squared error unless another loss is named."""

    score_kind = "regression"
    target_kind: ClassVar[str] = "number"
    default_metrics: ClassVar[tuple[str, ...]] = ("mae", "r2")

    def default_loss(self) -> Loss:
        """Mean squared error."""
        return nn.MSELoss()

    def targets_for_loss(self, outputs: Tensor, batch: Batch) -> Any:
        """Targets in the outputs' shape: [n] against [n, 1] would broadcast to [n, n] and train nonsense."""
        targets: Tensor = batch.targets
        if targets.shape == outputs.shape:
            return targets.to(outputs.dtype)
        if targets.numel() != outputs.numel():
            raise DataError(
                f"outputs {list(outputs.shape)} and targets {list(targets.shape)} do not fit",
                "give the model one output per target column",
            )
        return targets.reshape(outputs.shape).to(outputs.dtype)

    def predictions(self, outputs: Tensor) -> dict[str, Tensor]:
        """The predicted values."""
        return {"prediction": outputs}
