"""Checks of the `model:` and `training:` sections: keys that need or exclude each other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from weft.config.component import Component
from weft.config.experiment import Experiment
from weft.config.hints import did_you_mean
from weft.config.namespace import Namespace
from weft.config.rooms import default_scores, known_scores, own_score, score_name
from weft.config.signatures import parameters_of
from weft.errors import ConfigError, Problem


def check_optimizers(experiment: Experiment) -> Iterator[Problem]:
    """One optimizer, or one for each network."""
    training = experiment.training
    if training.optimizer is not None and training.optimizers:
        message = "there are both 'optimizer' and 'optimizers'"
        yield Problem(
            message, "'optimizers' is for tasks with several networks; keep one of the two", ("training", "optimizers")
        )


def check_interval(experiment: Experiment) -> Iterator[Problem]:
    """A scheduler's interval needs a scheduler."""
    training = experiment.training
    if training.scheduler is None and training.scheduler_interval != "auto":
        yield Problem(
            "'scheduler_interval' needs a scheduler",
            "add 'scheduler', or remove it",
            ("training", "scheduler_interval"),
        )
    name = training.scheduler.name if training.scheduler is not None else ""
    if training.scheduler_interval == "step" and name.endswith("ReduceLROnPlateau"):
        message = "ReduceLROnPlateau looks at a score of each epoch"
        yield Problem(message, "remove 'scheduler_interval'", ("training", "scheduler_interval"))


def check_compiling(experiment: Experiment) -> Iterator[Problem]:
    """A mode of compiling needs compiling."""
    training = experiment.training
    if training.compile_mode != "default" and not training.compile:
        yield Problem(
            "compile_mode needs compile: true", "add it, or remove compile_mode", ("training", "compile_mode")
        )


def check_compression(experiment: Experiment) -> Iterator[Problem]:
    """What PowerSGD leaves out of one step goes into the next: their scale must be the same."""
    training = experiment.training
    compression = training.gradient_compression
    if compression is not None and compression.method == "powersgd" and training.precision == "fp16":
        message = "PowerSGD does not work with precision fp16, whose gradients change their scale"
        yield Problem(message, "use precision bf16, or method bf16", ("training", "gradient_compression"))


_WHOLE_MATRICES = ("Adafactor", "LBFGS", "Muon", "SparseAdam")


@dataclass(frozen=True, slots=True)
class Measured:
    """A score that will be measured.

    Args:
        name: what it is called among the results; those that have several values add `_...` to it.
        mode: which direction is better, None where nothing says so.
        certain: whether the name and direction are known before the metric is built.
    """

    name: str
    mode: str | None
    certain: bool

    def gives(self, score: str) -> bool:
        """Whether a name is that of one of its values."""
        return score == self.name or score.startswith((f"{self.name}_", f"{self.name}/"))


def check_monitor(experiment: Experiment) -> Iterator[Problem]:
    """The monitored score is one that is measured, and something says which direction is better."""
    monitor, where = experiment.training.monitor, ("training", "monitor", "metric")
    if monitor.metric == "loss":
        return
    try:
        scores = measured(experiment)
    except ConfigError:
        return  # told where the metric, task or patch is written
    if scores is None:
        return
    found = [score for score in scores if score.gives(monitor.metric)]
    if not found and all(score.certain for score in scores):
        names = ["loss", *(score.name for score in scores)]
        hint = did_you_mean(monitor.metric, names)
        if monitor.metric in known_scores():
            hint = f"add {monitor.metric} to training.metrics; measured are: {', '.join(names)}"
        yield Problem(f"the score {monitor.metric!r} is not measured", hint, where)
    best = max(found, key=lambda score: len(score.name), default=None)
    if best is not None and best.certain and best.mode is None and monitor.mode == "auto":
        yield Problem(
            f"nothing says which direction of {monitor.metric!r} is better",
            f"write monitor: {{metric: {monitor.metric}, mode: max}} or min, or give it the attribute higher_is_better",
            where,
        )


def measured(experiment: Experiment) -> list[Measured] | None:
    """The scores that an experiment measures beside the loss; None where only the task itself can tell.

    Raises:
        ConfigError: the task, a metric or a patch cannot be found.
    """
    training, namespace = experiment.training, experiment.namespace()
    defaults = default_scores(namespace.find(training.task, "task"))
    if defaults is None:
        return None
    components = [Component(name) for name in defaults] if training.metrics is None else training.metrics
    return [score for component in components for score in _scores_of(component, namespace)]


def _scores_of(component: Component, namespace: Namespace) -> Iterator[Measured]:
    target: Any = namespace.find(component, "metric")
    if isinstance(target, str):
        yield Measured(score_name(target, component.arguments), known_scores()[target].mode, True)
    elif hasattr(target, "items") and not isinstance(target, type):  # a mapping of the user's names to metrics
        for name, metric in target.items():
            yield Measured(str(name), own_score(metric)[1], True)
    else:  # what the objects of a class are and say is known only when they are made
        yield Measured(*own_score(target), certain=not isinstance(target, type))


def check_unfreeze(experiment: Experiment) -> Iterator[Problem]:
    """What is unfrozen was frozen, and before the end."""
    model = experiment.model
    if model.unfreeze and not model.freeze:
        yield Problem("nothing is frozen, so there is nothing to unfreeze", "add model.freeze", ("model", "unfreeze"))
    for epoch in model.unfreeze:
        if epoch > experiment.training.epochs:
            message = f"epoch {epoch} is after the last one, {experiment.training.epochs}"
            yield Problem(message, "epochs are counted from 1", ("model", "unfreeze", epoch))


def check_fused(experiment: Experiment, namespace: Namespace) -> Iterator[Problem]:
    """`fused` needs optimizers that have a fused form."""
    training = experiment.training
    for optimizer in (training.optimizer, *training.optimizers.values()):
        if not training.fused or optimizer is None or optimizer.is_finished:
            continue
        parameters = parameters_of(namespace.find(optimizer, "optimizer"), "optimizer")
        if parameters is not None and "fused" not in parameters:
            yield Problem(
                f"{optimizer.name} has no fused form",
                "remove 'fused', or use Adam, AdamW or SGD",
                ("training", "fused"),
            )


def check_recomputing(experiment: Experiment) -> Iterator[Problem]:
    """A compiled network decides by itself what is computed again."""
    if experiment.run.activation_checkpointing and experiment.training.compile:
        yield Problem(
            "activation_checkpointing does not go with training.compile, which chooses itself what is computed again",
            "remove one of the two",
            ("run", "activation_checkpointing"),
        )


def check_sharding(experiment: Experiment) -> Iterator[Problem]:
    """What needs the whole network in one process, or does not work with parts of it."""
    training, run = experiment.training, experiment.run
    if run.sharding == "none":
        return
    named = [component for component in (training.optimizer, *training.optimizers.values()) if component is not None]
    matrices = [component.name for component in named if component.name.rpartition(".")[2] in _WHOLE_MATRICES]
    found = {
        "training.precision: fp16": training.precision == "fp16",
        "training.ema": training.ema is not None,
        "training.compile": training.compile,
        "training.channels_last": training.channels_last,
        "training.gradient_compression": training.gradient_compression is not None,
        "training.optimizers (several networks)": bool(training.optimizers),
        f"the optimizer {', '.join(matrices)}, which looks at whole parameters": bool(matrices),
        "run.checkpoint_async": run.checkpoint_async,
        "run.debug": run.debug,
        "run.predictions (weft predict makes them from the finished run)": run.predictions,
    }
    for what, there in found.items():
        if there:
            yield Problem(f"run.sharding: fsdp does not go with {what}", "remove one of the two", ("run", "sharding"))


def check_batch_sizes(experiment: Experiment) -> Iterator[Problem]:
    """What makes one step is a whole number of batches, said once."""
    training = experiment.training
    whole, size = training.effective_batch_size, training.batch_size
    if whole is None:
        return
    if isinstance(size, int) and whole % size:
        sizes = [number for number in range(1, whole + 1) if whole % number == 0]
        near = sorted(sizes, key=lambda number: abs(number - size))[:2]
        yield Problem(
            f"effective_batch_size {whole} is not a multiple of batch_size {size}",
            f"use a batch_size of {' or '.join(map(str, sorted(near)))}, or auto",
            ("training", "effective_batch_size"),
        )
    elif training.accumulate != 1 and (size == "auto" or training.accumulate * int(size) != whole):
        yield Problem(
            f"there are both 'accumulate' {training.accumulate} and 'effective_batch_size' {whole}",
            "accumulate follows from the other two: remove it",
            ("training", "accumulate"),
        )
