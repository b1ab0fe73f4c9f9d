"""From an experiment and its data to a run that is ready to be driven."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.optim import Optimizer

from weft.config import Component, Experiment, Namespace, TrainingConfig
from weft.data import Data, SplitData, auto_workers, build_sampler, make_loader
from weft.engine.averaging import MovingAverage
from weft.engine.batch_norm import with_global_statistics
from weft.engine.checkpoint_memory import CheckpointMemory
from weft.engine.checkpoints import CheckpointStore
from weft.engine.compression import gradients_among_processes
from weft.engine.events import Observer
from weft.engine.freezing import check_freezing
from weft.engine.fully_sharded import ShardedGradients, require_one_network, shard
from weft.engine.monitoring import BestEpoch
from weft.engine.precision import Precision
from weft.engine.recomputing import recompute_blocks
from weft.engine.run import Observers, Plan, Run, ScoredSplit
from weft.engine.schedules import build_schedule
from weft.engine.seeding import outer_randomness_kept, participant_seed, seed_everything
from weft.engine.signals import Interruption
from weft.engine.state import TrainingState
from weft.engine.strategy import Strategy
from weft.engine.weights import load_pretrained
from weft.errors import ConfigError, DataError, Problem, UsageError
from weft.metrics import ScoreBook
from weft.runs import History
from weft.tasks import OwnOptimizer, Task

# Optimizers whose loop over all tensors at once (`foreach`) gives the same bits on a CPU as the one over each, which is
# torch's default there. It saves small networks a tenth of the step, but needs memory for copies of the parameters.
_SAME_BITS = (torch.optim.Adam, torch.optim.AdamW)
_SMALL = 1_000_000
# Batches of training that are scored at once, and the most input numbers that these may have together.
_SCORED_TOGETHER = 8
_SCORED_NUMBERS = 65_536


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
    participants: int = 1,
    participant: int = 0,
    shares_directory: bool = False,
    gather: bool = True,
    steps_per_epoch: int | None = None,
    splits: Sequence[str] = (),
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
        participants, participant: how many take part, and which one this is.
        shares_directory: they are processes of one run: each takes its share of every batch, and the first one writes.
        gather: whether predictions may leave a participant where a score does not follow from sums.
        steps_per_epoch: of the participant that has most, for schedules; by default this one's.
        splits: names of those that are scored though this participant has nothing in them.

    Raises:
        ConfigError, DataError: the parts do not fit.
    """
    namespace, training = experiment.namespace(), experiment.training
    device = pick_device(experiment.run.device)
    plan = make_plan(experiment, device)
    task, loss = build_task(experiment, namespace)
    seed_everything(participant_seed(experiment.seed, 0))
    sharded = shares_directory and dist.is_initialized() and experiment.run.sharding == "fsdp"
    model = build_model(experiment, namespace, torch.device("cpu") if sharded else device)
    check_freezing(model, experiment.model)
    if participant:  # all begin with the same weights; what is random afterwards is each one's own
        seed_everything(participant_seed(experiment.seed, participant))
    if shares_directory:
        if strategy is None and not sharded:
            strategy = gradients_among_processes(model, training)
        model = with_global_statistics(model) if training.batch_norm == "global" else model
    if experiment.run.activation_checkpointing:
        recompute_blocks(model, experiment.run.activation_checkpointing)
    mesh = shard(model, device) if sharded else None
    if sharded:
        strategy = ShardedGradients(training.items_per_batch)
    prepared = prepare(model, training)
    task.setup(loss, data.classes if data.classes is not None else class_names_of(task, model, data, plan))
    networks = task.networks(model)
    if tuple(networks) != tuple(dict.fromkeys(task.updates)):
        raise ConfigError(
            f"task {type(task).__name__} updates {', '.join(task.updates)}, but its networks are {', '.join(networks)}",
            "`networks` must return a module for each name in `updates`",
        )
    if sharded:
        require_one_network(networks)
    share = (participant, participants) if shares_directory else (0, 1)
    train = _loader(experiment, data, "train", namespace, share, training=True) if "train" in data.splits else None
    optimizers = {name: _optimizer(experiment, namespace, task, name, module) for name, module in networks.items()}
    if train is not None and len(train) == 0:
        raise ConfigError(
            Problem(
                f"{train.visits} items are fewer than a batch of {train.batch_size}, and such a batch is left out",
                "lower training.batch_size, or set training.drop_last: false",
                ("training", "drop_last"),
            )
        )
    if steps_per_epoch is None:
        steps_per_epoch = -(-len(train) // training.accumulate) if train is not None else 1
    schedules = {
        name: build_schedule(training, namespace, optimizer, steps_per_epoch, own=task.scheduler(name, optimizer))
        for name, optimizer in optimizers.items()
    }
    scored = score_splits(experiment, data, task, namespace, share, gather=gather, further=splits)
    state = TrainingState(
        model=model, prepared=prepared, networks=networks, optimizers=optimizers, schedules=schedules,
        best=_best(experiment, scored), scaler=plan.precision.scaler,
        average=MovingAverage(model, training.ema.decay) if training.ema is not None else None, strategy=strategy,
        mesh=mesh, task=task,
    )  # fmt: skip
    run = Run(
        state=state, task=task, plan=plan, train=train, splits=scored,
        cases=list(data.splits["train"].cases) if train is not None else [], name=experiment.name, path=path,
        history=history, observers=Observers(list(observers)),
        checkpoints=checkpoints if checkpoints is not None else CheckpointMemory(),
        interruption=interruption if interruption is not None else Interruption(),
        participants=participants, participant=participant, shares_directory=shares_directory,
    )  # fmt: skip
    run.observers.notify("on_build", run)
    return run


def pick_device(name: str) -> torch.device:
    """The device that `run.device` names; "auto" takes CUDA, then MPS, then the CPU.

    Raises:
        ConfigError: it is not there.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= (count := torch.cuda.device_count()):
        there = f"{count} CUDA device{'' if count == 1 else 's'}" if count else "no CUDA device"
        raise ConfigError(f"run.device is {name}, but this machine has {there}", "use `run.device: auto`")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("run.device is mps, but this machine has no such device", "use `run.device: auto`")
    return device


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


def class_names_of(task: Task, model: nn.Module, data: Data, plan: Plan) -> list[str] | None:
    """Names for classes that the data do not tell (labels inside images, any torch dataset): one per output of the
    model.

    The model is asked about one item, in evaluation mode; neither its state nor the random generators are moved.
    """
    if task.target_kind != "class":
        return None
    split = next(iter(data.splits.values()))
    loader = make_loader(split, batch_size=1, seed=0, shuffle=False, augment=False)
    batch = next(iter(loader.epoch(0))).to(plan.device)
    was_training = model.training
    with outer_randomness_kept(), torch.no_grad(), plan.precision.autocast():
        outputs, _ = task.forward(model.eval(), batch)
    model.train(was_training)
    if outputs.ndim < 2:
        return ["0", "1"]
    return [str(number) for number in range(max(outputs.shape[1], 2))]


def build_model(experiment: Experiment, namespace: Namespace, device: torch.device) -> nn.Module:
    """The network on its device, with pretrained weights where the experiment names some."""
    model = namespace.build(experiment.model.component, "model")
    if not isinstance(model, nn.Module):
        raise ConfigError(
            f"model {experiment.model.component.name} is a {type(model).__name__}, not a torch.nn.Module",
            "name a class derived from torch.nn.Module",
        )
    if experiment.model.weights is not None:
        load_pretrained(model, experiment.path(experiment.model.weights))
    model = model.to(device)
    if experiment.training.channels_last:
        for parameter in model.parameters():  # 5 dimensions have a format of their own
            if parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
            elif parameter.ndim == 5:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last_3d)
    return model


def prepare(model: nn.Module, training: TrainingConfig) -> nn.Module:
    """The module that is called: compiled where the experiment asks for it, sharing the model's parameters."""
    return torch.compile(model, mode=training.compile_mode) if training.compile else model  # type: ignore[return-value]


def score_splits(
    experiment: Experiment,
    data: Data,
    task: Task,
    namespace: Namespace,
    share: tuple[int, int],
    *,
    gather: bool = True,
    further: Sequence[str] = (),
) -> dict[str, ScoredSplit]:
    """Loaders and score books of the splits that can be scored, in the order train, validation, test.

    Args:
        experiment, data, task, namespace, share: as in `build_run`.
        gather: whether predictions may leave a participant.
        further: splits that others have; they are empty here where the data lack them.
    """
    names = [name for name in ("train", "validation", "test") if name in data.splits or name in further]
    splits: dict[str, ScoredSplit] = {}
    for name in names:
        if name in data.splits:
            loader = _loader(experiment, data, name, namespace, share, training=False)
        else:
            loader = make_loader(SplitData(name, [], []), batch_size=1, seed=experiment.seed, shuffle=False)
        splits[name] = ScoredSplit(
            loader, build_book(experiment, task, namespace, gather=gather), list(loader.split.cases)
        )
    return splits


def build_book(experiment: Experiment, task: Task, namespace: Namespace, *, gather: bool = True) -> ScoreBook:
    """The score book of the experiment's metrics."""
    chosen = experiment.training.metrics
    metrics = None if chosen is None else [_metric(component, namespace) for component in chosen]
    return task.build_scores(metrics) if gather else task.build_scores(metrics, gather=False)


def batches_of_epoch(experiment: Experiment, data: Data) -> int:
    """Number of batches that an epoch of training has with these data; 0 where there is nothing to train on."""
    if "train" not in data.splits:
        return 0
    return len(_loader(experiment, data, "train", experiment.namespace(), (0, 1), training=True))


def _metric(component: Component, namespace: Namespace) -> Any:
    found = namespace.find(component, "metric")
    if isinstance(found, str):
        return (found, component.arguments) if component.arguments else found
    if component.is_finished or (inspect.isroutine(found) and not component.arguments):
        return found
    return namespace.build(component, "metric")


def _loader(
    experiment: Experiment, data: Data, name: str, namespace: Namespace, share: tuple[int, int], *, training: bool
) -> Any:
    split = data.splits[name]
    if len(split) == 0:
        raise DataError(f"the {name} split is empty", "check the table and the ratios of dataset.split")
    settings, workers = experiment.training, experiment.run.num_workers
    component = experiment.dataset.samplers.get(name) if training or name != "train" else None  # type: ignore[call-overload]
    batches = settings.train_batches if training else settings.evaluation_batches
    together = settings.items_per_batch if training else settings.evaluation_batch_size or settings.items_per_batch
    return make_loader(
        split,
        batch_size=settings.items_per_batch if training else evaluation_batch_size(settings, split),
        seed=experiment.seed,
        shuffle=training,
        drop_last=settings.drop_last and training,
        num_workers=auto_workers(split, settings.items_per_batch) if workers == "auto" else int(workers),
        sampler=build_sampler(component, namespace, split) if component is not None else None,
        augment=training,
        share=share,
        pin_memory=torch.cuda.is_available(),
        limit=None if batches is None else batches * together,
    )


def evaluation_batch_size(settings: TrainingConfig, split: SplitData) -> int:
    """Number of items that are scored at once: what the experiment says, or `batch_size`.

    Small rows that lie in memory go several batches at a time: without gradients these need no more memory than one
    batch in training, and the costs of a call are shared.
    """
    size = settings.items_per_batch
    counted = settings.evaluation_batches is not None  # in batches of the size that the file names
    if settings.evaluation_batch_size is not None or counted or split.arrays is None:
        return settings.evaluation_batch_size or size
    inputs = split.arrays[0] if isinstance(split.arrays[0], tuple) else (split.arrays[0],)
    row: int = sum(part[0].numel() for part in inputs)
    return max(size, min(size * _SCORED_TOGETHER, _SCORED_NUMBERS // max(row, 1)))


def _optimizer(experiment: Experiment, namespace: Namespace, task: Task, network: str, module: nn.Module) -> Optimizer:
    training = experiment.training
    component = training.optimizers.get(network) or training.optimizer
    if component is None:
        if training.optimizers:
            raise ConfigError(
                f"training.optimizers names {', '.join(training.optimizers)}, but the task also trains '{network}'",
                f"add an optimizer for '{network}'",
            )
        component = Component.parse("Adam")
    parameters = list(module.parameters())
    if not parameters:
        raise ConfigError(f"network '{network}' has no parameters to train", "check the model")
    extra = {"fused": True} if training.fused else {}
    target = namespace.find(component, "optimizer")
    if target is OwnOptimizer:
        return task.optimizer(network)
    unset = not {"foreach", "fused", "differentiable"} & {*component.arguments, *extra}
    small = sum(parameter.numel() for parameter in parameters) <= _SMALL and parameters[0].device.type == "cpu"
    if unset and small and target in _SAME_BITS:
        extra = {"foreach": True}
    optimizer = namespace.build(component, "optimizer", parameters, **extra)
    if not isinstance(optimizer, Optimizer):
        raise ConfigError(f"optimizer {component.name} is not a torch.optim.Optimizer", "name one of torch.optim")
    return optimizer


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
