"""Checks of the `model:` and `training:` sections: keys that need or exclude each other."""

from __future__ import annotations

from collections.abc import Iterator

from weft.config.catalog import SOURCES, module_if_there
from weft.config.experiment import Experiment
from weft.config.hints import did_you_mean
from weft.config.namespace import Namespace
from weft.config.signatures import parameters_of
from weft.errors import Problem


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


def check_monitor(experiment: Experiment) -> Iterator[Problem]:
    """The monitored score is one that is measured."""
    training, wanted = experiment.training, experiment.training.monitor.metric
    known = known_metrics()
    if wanted == "loss" or known is None:
        return
    if training.metrics is None:
        measured = _defaults(experiment)
        measured = list(known) if measured is None else measured
    elif all(metric.name in known for metric in training.metrics):
        measured = [metric.name for metric in training.metrics]
    else:
        return  # what an object of the user's measures is known only when it has measured
    if not any(wanted == name or wanted.startswith((f"{name}_", f"{name}/")) for name in measured):
        hint = did_you_mean(wanted, ["loss", *measured])
        if wanted in known:
            hint = f"add {wanted} to training.metrics; measured are: {', '.join(['loss', *measured])}"
        yield Problem(f"the score {wanted!r} is not measured", hint, ("training", "monitor", "metric"))


def known_metrics() -> list[str] | None:
    """Names of Weft's scores; None where there are none yet."""
    module = module_if_there(SOURCES["metric"][0].module)
    registry = getattr(module, "KNOWN", None)
    return None if registry is None else [str(name) for name in registry]


def _defaults(experiment: Experiment) -> list[str] | None:
    """What a task measures when nothing is named; None where that depends on the data or the task is the user's."""
    defaults = getattr(module_if_there("weft.metrics"), "DEFAULTS", {})
    found = defaults.get(experiment.training.task.name)
    return None if found is None else list(found)


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
