"""PyTorch-Ignite: engines, metrics and handlers."""

from __future__ import annotations

from pathlib import Path

from ignite.engine import Engine, Events, create_supervised_evaluator, create_supervised_trainer
from ignite.handlers import Checkpoint, DiskSaver, ProgressBar
from ignite.handlers.tensorboard_logger import TensorboardLogger
from ignite.metrics import Accuracy, Average, Loss
from torch import nn

from benchmarks.cases import LOG_EVERY, SEED, Prepared
from benchmarks.common import Outcome, Stopwatch, make_loaders, make_model
from weft import seed_for


def train(prepared: Prepared, folder: Path) -> Outcome:
    """Train with Ignite."""
    loaders = make_loaders(prepared)
    model, optimizer = make_model(prepared.case)
    loss = nn.CrossEntropyLoss()
    trainer = create_supervised_trainer(model, optimizer, loss)
    evaluator = create_supervised_evaluator(model, metrics={"loss": Loss(loss), "accuracy": Accuracy()})
    Average().attach(trainer, "loss")
    ProgressBar(desc="epoch").attach(trainer, output_transform=lambda value: {"loss": value})

    @trainer.on(Events.STARTED | Events.DATALOADER_STOP_ITERATION)
    def order(engine: Engine) -> None:  # before the loader is opened: an old one that is exhausted draws once more
        loaders.generator.manual_seed(seed_for(SEED, max(engine.state.epoch - 1, 0)))

    @trainer.on(Events.EPOCH_COMPLETED)
    def validate(engine: Engine) -> None:
        evaluator.run(loaders.validation)

    logger = TensorboardLogger(log_dir=str(folder / "tensorboard"))
    every = Events.ITERATION_COMPLETED(every=LOG_EVERY)
    logger.attach_output_handler(trainer, every, tag="train", output_transform=lambda value: {"loss": value})
    logger.attach_output_handler(trainer, Events.EPOCH_COMPLETED, tag="epoch", metric_names=["loss"])
    logger.attach_output_handler(
        evaluator,
        Events.COMPLETED,
        tag="validation",
        metric_names="all",
        global_step_transform=lambda *_: trainer.state.iteration,
    )
    disk = DiskSaver(str(folder), require_empty=False)
    state = {"model": model, "optimizer": optimizer, "trainer": trainer}
    trainer.add_event_handler(Events.EPOCH_COMPLETED, Checkpoint(state, disk, n_saved=1))
    best = Checkpoint(
        {"model": model},
        disk,
        filename_prefix="best",
        n_saved=1,
        score_function=lambda engine: -engine.state.metrics["loss"],
    )
    evaluator.add_event_handler(Events.COMPLETED, best)
    watch = Stopwatch()
    trainer.run(loaders.train, max_epochs=prepared.case.epochs)
    watch.stop()
    logger.close()
    return watch.outcome(model)
