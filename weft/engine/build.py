"""From an experiment and its data to a run that is ready to be driven."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.optim import Optimizer

from weft.config import Experiment, Namespace
from weft.data import Data
from weft.engine.averaging import MovingAverage
from weft.engine.checkpoint_memory import CheckpointMemory
from weft.engine.checkpoints import CheckpointStore
from weft.engine.events import Observer, Observers
from weft.engine.fully_sharded import require_one_network
from weft.engine.loaders import score_splits, train_loader
from weft.engine.membership import ALONE, Membership
from weft.engine.monitoring import BestEpoch
from weft.engine.network import build_network, class_names_of, pick_device
from weft.engine.optimizers import build_optimizer, networks_of
from weft.engine.precision import Precision
from weft.engine.run import Plan, Run, ScoredSplit
from weft.engine.schedules import Schedule, build_schedule
from weft.engine.signals import Interruption
from weft.engine.state import TrainingState
from weft.engine.strategy import Strategy
from weft.errors import ConfigError, Problem, UsageError
from weft.runs import History
from weft.tasks import Task


def build_run(
    experiment: Experiment,
    data: Data,
    *,
    path: Path | None = None,
    checkpoints: CheckpointStore | None = None,
    history: History | None = None,
    observers: Sequence[Observer] = (),
    interruption: Interruption | None = None,
    strategy: Strategy | None = None,
    membership: Membership = ALONE,
) -> Run:
    """Build everything that a run needs; the global generators are seeded on the way, before the model is made.

    Args:
        experiment: resolved (see `weft.config.resolve`).
        data: opened data.
        path: the run directory, for messages.
        checkpoints: where the state is kept; memory by default.
        history: where rows of the history go, besides the state.
        observers: who watches.
        interruption: the flag that signals set.
        strategy: what participants exchange; None alone.
        membership: what this participant is to the others.

    Raises:
        ConfigError, DataError: the parts do not fit.
    """
    namespace = experiment.namespace()
    plan = make_plan(experiment, pick_device(experiment.run.device))
    task, loss = build_task(experiment, namespace)
    network = build_network(experiment, namespace, plan.device, strategy, membership)
    task.setup(loss, data.classes if data.classes is not None else class_names_of(task, network.model, data, plan))
    networks = networks_of(task, network.model)
    if network.mesh is not None:
        require_one_network(networks)
    train = train_loader(experiment, data, namespace, membership)
    optimizers = {name: build_optimizer(experiment, namespace, task, name, part) for name, part in networks.items()}
    own_steps = -(-len(train) // plan.accumulate) if train is not None else 1
    steps = membership.steps_per_epoch if membership.steps_per_epoch is not None else own_steps
    schedules = _schedules(experiment, namespace, task, optimizers, steps)
    scored = score_splits(experiment, data, task, namespace, membership)
    ema = experiment.training.ema
    state = TrainingState(
        model=network.model, prepared=network.prepared, networks=networks, optimizers=optimizers, schedules=schedules,
        best=_best(experiment, scored), scaler=plan.precision.scaler, strategy=network.strategy, mesh=network.mesh,
        average=MovingAverage(network.model, ema.decay) if ema is not None else None, task=task,
    )  # fmt: skip
    run = Run(
        state=state, task=task, plan=plan, train=train, splits=scored,
        cases=list(data.splits["train"].cases) if train is not None else [], name=experiment.name, path=path,
        history=history, observers=Observers(list(observers)),
        checkpoints=checkpoints if checkpoints is not None else CheckpointMemory(),
        interruption=interruption if interruption is not None else Interruption(),
        participants=membership.participants, participant=membership.participant,
        shares_directory=membership.shares_directory,
    )  # fmt: skip
    run.observers.notify("on_build", run)
    return run


def make_plan(experiment: Experiment, device: torch.device) -> Plan:
    """The settings that the loop looks at."""
    training, every = experiment.training, experiment.run.checkpoint_every
    return Plan(
        seed=experiment.seed,
        epochs=training.epochs,
        steps=training.steps,
        precision=Precision(training.precision, device),
        device=device,
        batch_size=training.items_per_batch,
        accumulate=training.accumulate,
        clip_norm=training.clip_norm,
        clip_value=training.clip_value,
        channels_last=training.channels_last,
        evaluate_every=training.evaluate_every,
        score_train=experiment.run.score_train,
        log_every=experiment.run.log_every,
        save_steps=every.steps,
        save_seconds=every.minutes * 60 if every.minutes is not None else None,
        save_epochs=every.epochs,
        freeze=tuple(experiment.model.freeze),
        unfreeze=dict(experiment.model.unfreeze),
    )


def build_task(experiment: Experiment, namespace: Namespace) -> tuple[Task, Any]:
    """The task and the named loss (None for the task's own), not set up yet."""
    task = namespace.build(experiment.training.task, "task")
    if not isinstance(task, Task):
        raise ConfigError(
            f"training.task {experiment.training.task.name} is a {type(task).__name__}, not a weft.tasks.Task",
            "derive the class from weft.tasks.Task",
        )
    loss = namespace.build(experiment.training.loss, "loss") if experiment.training.loss is not None else None
    return task, loss


def _schedules(
    experiment: Experiment, namespace: Namespace, task: Task, optimizers: dict[str, Optimizer], steps_per_epoch: int
) -> dict[str, Schedule]:
    return {
        name: build_schedule(
            experiment.training, namespace, optimizer, steps_per_epoch, own=task.scheduler(name, optimizer)
        )
        for name, optimizer in optimizers.items()
    }


def _best(experiment: Experiment, splits: dict[str, ScoredSplit]) -> BestEpoch:
    monitor = experiment.training.monitor
    mode: str = monitor.mode
    if "validation" in splits:
        book, where = splits["validation"].book, ("training", "monitor", "metric")
        if not any(monitor.metric == name or monitor.metric.startswith(f"{name}_") for name in book.names):
            measured = ", ".join(book.names)
            raise ConfigError(Problem(f"the score {monitor.metric!r} is not measured", f"measured: {measured}", where))
        try:
            mode = book.mode(monitor.metric) if mode == "auto" else mode
        except UsageError as error:
            raise ConfigError(Problem(error.message, error.hint, where)) from error
    keep = experiment.run.keep_best
    return BestEpoch(monitor.metric, "min" if mode == "auto" else mode, monitor.patience, monitor.min_delta, keep=keep)
