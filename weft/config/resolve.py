"""Filling in what an experiment leaves to Weft, so that its fingerprint says what is run."""

from __future__ import annotations

from typing import Any

from weft.config.component import Component
from weft.config.experiment import Experiment
from weft.config.rooms import known_scores
from weft.config.supplied import scheduler_interval


def resolve(experiment: Experiment) -> Experiment:
    """The experiment with the `auto` values of `training` replaced, as far as they can be told without the data."""
    training = experiment.training
    changes: dict[str, Any] = {}
    if training.optimizer is None and not training.optimizers:
        changes["optimizer"] = Component("Adam")
    if scheduler_interval(training) != training.scheduler_interval:
        changes["scheduler_interval"] = scheduler_interval(training)
    if training.monitor.mode == "auto" and (mode := better_direction(training.monitor.metric)) is not None:
        changes["monitor"] = training.monitor.model_copy(update={"mode": mode})
    if training.effective_batch_size is not None and isinstance(training.batch_size, int):
        changes["accumulate"] = max(1, training.effective_batch_size // training.batch_size)
    if not changes:
        return experiment
    return experiment.model_copy(update={"training": training.model_copy(update=changes)})


def better_direction(score: str) -> str | None:
    """Whether a score shall grow ("max") or fall ("min"); None when it is none of Weft's own."""
    if score == "loss":
        return "min"
    known = known_scores()
    names = [name for name in known if score == name or score.startswith((f"{name}_", f"{name}/"))]
    mode = getattr(known[max(names, key=len)], "mode", None) if names else None
    return mode if mode in ("min", "max") else None
