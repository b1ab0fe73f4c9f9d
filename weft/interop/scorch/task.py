"""scorch's meaning of a batch: the Socket's criterion and metrics."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from weft.data import Batch
from weft.data.batches import map_tensors
from weft.errors import ConfigError
from weft.interop.scorch.checkpoints import restore_optimizer
from weft.interop.scorch.contract import broken, called
from weft.interop.scorch.model import ScorchModel
from weft.interop.scorch.schedules import StepsOnScore, facing
from weft.interop.scorch.scores import MAIN, ScorchScores, Scored, numbers_by_name
from weft.metrics import ScoreBook
from weft.tasks import Evaluation, Task, Update


class ScorchTask(Task):
    """Losses and scores of a Socket.

    Args:
        strict: schedulers as in the original: all are given the score, and a plateau is watched in the mode it has.

    Attributes:
        began: when the last training step had its data (monotonic seconds).
    """

    default_metrics = (MAIN,)

    def __init__(self, strict: bool = False) -> None:
        super().__init__()
        self.strict = strict
        self.began = 0.0
        self._model: ScorchModel | None = None
        self._seen_metrics = False

    @property
    def socket(self) -> Any:
        """The Socket of the model that is trained."""
        return self.model.socket

    @property
    def model(self) -> ScorchModel:
        """The model that is trained."""
        if self._model is None:
            raise ConfigError("a scorch task needs a scorch model", "make the experiment with scorch-train")
        return self._model

    def networks(self, model: nn.Module) -> dict[str, nn.Module]:
        """One, of which the Socket trains a part; the rest is frozen."""
        if not isinstance(model, ScorchModel):
            raise ConfigError(
                f"a scorch task needs a scorch model, not {type(model).__name__}", "make it with scorch-train"
            )
        self._model = model
        return {"main": model}

    def optimizer(self, network: str) -> Optimizer:
        """The Socket's, or Adam as it comes; in the state of the checkpoint that training goes on from."""
        optimizer = getattr(self.socket, "optimizer", None) or torch.optim.Adam(self._trained_parameters())
        if self.model.checkpoint is not None:
            restore_optimizer(optimizer, Path(self.model.checkpoint))
        self.socket.optimizer = optimizer
        return optimizer

    def _trained_parameters(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    def scheduler(self, network: str, optimizer: Optimizer) -> LRScheduler | ReduceLROnPlateau | None:
        """The Socket's, if it has one and its optimizer is the one that is used."""
        found = getattr(self.socket, "scheduler", None)
        if found is None or found.optimizer is not optimizer:
            return None
        return StepsOnScore(found) if self.strict else facing(found)

    def training_step(self, model: nn.Module, batch: Batch) -> Iterable[Update]:
        """One update, of the criterion."""
        self.began = time.monotonic()
        outputs = model(list(batch.inputs))
        return (Update(self._criterion(outputs, list(batch.targets)), float(batch.size)),)

    def evaluation_step(self, model: nn.Module, batch: Batch) -> Evaluation:
        """Outputs and targets as the scores want them: with the rows of their items."""
        with torch.set_grad_enabled(self.strict):  # a criterion could count on gradients in validation
            outputs, targets = model(list(batch.inputs)), list(batch.targets)
            loss = self._criterion(outputs, targets).detach() if targets else None
        scored = Scored(map_tensors(outputs, _plain), map_tensors(targets, _plain))
        if targets and not self._seen_metrics:
            self._try_metrics(scored)
        return Evaluation(batch.index, scored, loss, float(batch.size))

    def forward(self, model: nn.Module, batch: Batch) -> tuple[Any, Tensor | None]:
        """The list of outputs."""
        return model(list(batch.inputs)), None

    def predictions(self, outputs: Any) -> dict[str, Tensor]:
        """Each output under its number."""
        return {f"output_{number}": _plain(value) for number, value in enumerate(outputs, start=1)}

    def build_scores(self, metrics: Sequence[Any] | None, *, gather: bool = True) -> ScoreBook:
        """The Socket's metrics; the experiment cannot name others."""
        return ScorchScores(self.socket)

    def _criterion(self, outputs: list[Tensor], targets: list[Any]) -> Tensor:
        loss = called(self.socket, "Socket.criterion", self.socket.criterion, outputs, targets)
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            found = f"shape {list(loss.shape)}" if isinstance(loss, Tensor) else f"a {type(loss).__name__}"
            raise broken(self.socket, f"Socket.criterion returned {found}", "criterion")
        return loss.reshape(())

    def _try_metrics(self, scored: Scored) -> None:
        """See at once what `metrics` returns, not after the first epoch. Of one batch alone it may well fail."""
        self._seen_metrics = True
        try:
            found = self.socket.metrics(list(scored.outputs), list(scored.targets))
        except Exception:
            return
        numbers_by_name(self.socket, found)


def _plain(value: Tensor) -> Tensor:
    value = value.detach().cpu()
    return value.float() if value.dtype in (torch.bfloat16, torch.float16) else value
