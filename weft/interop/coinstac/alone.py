"""Training at one site alone (pretraining, SiteRunner), where the original calls further methods of trainers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from weft.data import Batch
from weft.interop.coinstac.devices import spread
from weft.interop.coinstac.items import SPLITS
from weft.interop.coinstac.networks import joint_optimizer
from weft.interop.coinstac.overrides import is_overridden
from weft.interop.coinstac.task import COINNTask
from weft.interop.coinstac.trainer import COINNTrainer
from weft.interop.usercode import called
from weft.tasks import Evaluation


def steps_itself(trainer: COINNTrainer) -> bool:
    """Whether a trainer goes through a batch in a way of its own, backward pass and steps included."""
    return is_overridden(trainer, COINNTrainer, "training_iteration_local")


class AloneTask(COINNTask):
    """A trainer at one site alone. Where it has them, its `training_iteration_local` is called for each batch,
    `_on_epoch_end` after each epoch that was validated, and `init_training_cache` before the first one.

    Args:
        trainer: the site's.
        batches: of training in an epoch.
    """

    def __init__(self, trainer: COINNTrainer, batches: int) -> None:
        super().__init__(trainer)
        self.batches, self.seen = max(batches, 1), 0
        self.steps_itself = steps_itself(trainer)
        self._ends = is_overridden(trainer, COINNTrainer, "_on_epoch_end")
        self._gradients: list[tuple[nn.Parameter, Tensor | None]] = []
        self._forget()

    def optimizer(self, network: str) -> Optimizer:
        """The trainer's, as one; it does nothing where the trainer steps itself."""
        made = joint_optimizer(self.trainer, (lambda: None) if self.steps_itself else None)
        if is_overridden(self.trainer, COINNTrainer, "init_training_cache"):
            called(self.trainer, "init_training_cache", self.trainer.init_training_cache)
        spread(self.trainer.nn, self.gpus)
        return made

    def scheduler(self, network: str, optimizer: Optimizer) -> LRScheduler | None:
        """What notices that an epoch is over."""
        return _EpochEnd(optimizer, self._epoch_over) if self._ends else None

    def running_epoch(self) -> int:
        """See `COINNTask`; in pretraining told by the batches that were seen."""
        return super().running_epoch() if self.run is not None else self.seen // self.batches

    def _trained(self, batch: Batch) -> dict[str, Any]:
        self.seen += 1
        if not self.steps_itself:
            return super()._trained(batch)
        trainer, name = self.trainer, "training_iteration_local"
        for parameter, gradient in self._gradients:  # those that it gathers over several batches are its own affair
            parameter.grad = gradient
        it: dict[str, Any] = called(trainer, name, trainer.training_iteration_local, self.number, batch.inputs)
        self._gradients = [(one, one.grad) for network in trainer.nn.values() for one in network.parameters()]
        for parameter, _ in self._gradients:
            parameter.grad = None
        self._require_loss(it, name)
        return it

    # --- the end of an epoch ------------------------------------------------------------------------------------------

    def _note(self, averages: Any, metrics: Any) -> None:
        super()._note(averages, metrics)
        if self._ends:
            for total, one in zip(self._of_training, (averages, metrics), strict=True):
                total.accumulate(one)

    def batches_of_epoch(self) -> int:
        """See `COINNTask`."""
        return self.batches

    def evaluation_step(self, model: nn.Module, batch: Batch) -> Evaluation:
        """See `COINNTask`."""
        found = super().evaluation_step(model, batch)
        if self._ends and SPLITS[int(batch.targets[0, 0])] == "validation":
            self._validated = True
            for pair in found.targets:
                for total, one in zip(self._of_validation, pair, strict=True):
                    total.accumulate(one)
        return found

    def _epoch_over(self) -> None:
        trainer = self.trainer
        if self._validated:
            called(
                trainer, "_on_epoch_end", trainer._on_epoch_end, ep=self.epoch + 1,
                ep_averages=self._of_training[0], ep_metrics=self._of_training[1],
                val_averages=self._of_validation[0], val_metrics=self._of_validation[1],
            )  # fmt: skip
        self._forget()

    def _forget(self) -> None:
        self._validated = False
        self._of_training: tuple[Any, Any] = self.trainer.new_averages(), self.trainer.new_metrics()
        self._of_validation: tuple[Any, Any] = self.trainer.new_averages(), self.trainer.new_metrics()


class _EpochEnd(LRScheduler):
    """Calls something where a schedule would change the learning rate: when an epoch has been trained and validated.

    Args:
        optimizer: left as it is.
        end: what is called.
    """

    def __init__(self, optimizer: Optimizer, end: Callable[[], None]) -> None:
        self._end: Callable[[], None] = lambda: None  # torch takes a step here
        super().__init__(optimizer)
        self._end = end

    def step(self, epoch: int | None = None) -> None:
        """An epoch is over."""
        self._end()

    def get_lr(self) -> list[float | Tensor]:
        """The rates as they are."""
        return [torch.as_tensor(group["lr"]) for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Nothing is remembered."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing was."""
