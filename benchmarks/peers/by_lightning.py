"""Lightning's Trainer with its own progress bar, logger and checkpoints."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.cases import LOG_EVERY, SEED, Prepared
from benchmarks.common import Outcome, Stopwatch, make_loaders, make_model
from weft import seed_for

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", module="lightning")


class Module(LightningModule):
    """Model, loss and scores."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, watch: Stopwatch) -> None:
        super().__init__()
        self.model = model
        self.optimizer = optimizer
        self.watch = watch

    def training_step(self, batch: list[Tensor], number: int) -> Tensor:
        inputs, targets = batch
        loss = functional.cross_entropy(self.model(inputs), targets)
        self.log("train_loss", loss, on_step=True, on_epoch=True, prog_bar=True)
        return loss

    def validation_step(self, batch: list[Tensor], number: int) -> None:
        inputs, targets = batch
        outputs = self.model(inputs)
        self.log("validation_loss", functional.cross_entropy(outputs, targets))
        self.log("validation_accuracy", (outputs.argmax(1) == targets).float().mean(), prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.optimizer

    def on_train_end(self) -> None:  # called after that of all callbacks
        self.watch.stop()


class Order(Callback):
    """Gives the training items the order that all others use (Lightning opens the loader before it announces an epoch);
    starts the clock."""

    def __init__(self, generator: torch.Generator, watch: Stopwatch) -> None:
        self.generator = generator
        self.watch = watch
        generator.manual_seed(seed_for(SEED, 0))

    def on_train_start(self, trainer: Any, module: Any) -> None:
        self.watch.start()

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        self.generator.manual_seed(seed_for(SEED, trainer.current_epoch + 1))


def train(prepared: Prepared, folder: Path) -> Outcome:
    """Train with Lightning."""
    loaders, watch = make_loaders(prepared), Stopwatch()
    model, optimizer = make_model(prepared.case)
    trainer = Trainer(
        max_epochs=prepared.case.epochs,
        accelerator="cpu",
        logger=TensorBoardLogger(str(folder)),
        log_every_n_steps=LOG_EVERY,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=[
            Order(loaders.generator, watch),
            ModelCheckpoint(str(folder / "last")),
            ModelCheckpoint(str(folder / "best"), monitor="validation_loss", save_weights_only=True),
        ],
    )
    trainer.fit(Module(model, optimizer, watch), loaders.train, loaders.validation)
    return watch.outcome(model)
