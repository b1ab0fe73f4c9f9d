"""Checks of the settings: monitor and mode, learning rates, batch sizes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch.optim import Optimizer

from weft.actions.checking.findings import Findings, count, number
from weft.config import Experiment
from weft.config.resolve import better_direction
from weft.data import Data

# Learning rates outside of these make no sense with standard networks: (lowest, highest).
_ADAPTIVE = (1e-8, 0.1)
_RATES: Mapping[str, tuple[float, float]] = {
    **dict.fromkeys(("Adam", "AdamW", "NAdam", "RAdam", "Adamax", "SparseAdam", "RMSprop", "Muon"), _ADAPTIVE),
    "Adagrad": (1e-7, 1.0),
    "SGD": (1e-7, 10.0),
    "ASGD": (1e-7, 10.0),
}


def check_monitor(experiment: Experiment, splits: list[str], findings: Findings) -> None:
    """The monitored score: its direction, and whether it can be measured and can stop anything."""
    training = experiment.training
    monitor = training.monitor
    better = better_direction(monitor.metric)
    if better is not None and monitor.mode not in ("auto", better):
        findings.error(
            "monitor mode",
            "training.monitor.mode",
            f"mode is {monitor.mode}, but {monitor.metric} is better when it is "
            f"{'larger' if better == 'max' else 'smaller'}: "
            "the worst epoch would be kept",
            f"write mode: {better}, or leave it out",
            metric=monitor.metric,
            mode=monitor.mode,
        )
    if splits and "validation" not in splits and (monitor.metric != "loss" or monitor.patience is not None):
        findings.warning(
            "monitor metric",
            "training.monitor.metric",
            f"there is no validation split on which {monitor.metric} could be measured"
            + ("; the training loss decides" if monitor.metric == "loss" else ", so no epoch is the best"),
            "give a validation split",
        )
    evaluations = training.epochs // training.evaluate_every
    if monitor.patience is not None and monitor.patience >= evaluations:
        findings.note(
            "patience",
            "training.monitor.patience",
            f"a patience of {count(monitor.patience, 'evaluation')} cannot end a training with {evaluations}",
            "",
        )


def check_rates(optimizers: Mapping[str, Optimizer], schedule_peaks: Mapping[str, float], findings: Findings) -> None:
    """Learning rates that make no sense for their optimizer.

    Args:
        optimizers: by network.
        schedule_peaks: the highest rate that a schedule names, by network.
        findings: goes in here.
    """
    for network, optimizer in optimizers.items():
        kind = type(optimizer).__name__
        rates = {float(group.get("initial_lr", group["lr"])) for group in optimizer.param_groups}
        peak = schedule_peaks.get(network)
        rates = {peak} if peak is not None else rates
        where = "training.scheduler" if peak is not None else "training.optimizer"
        for rate in sorted(rates):
            if rate == 0:
                findings.error("learning rate", where, "the learning rate is 0: nothing is learned", "e.g. lr: 1e-3")
                continue
            low, high = _RATES.get(kind, (0.0, float("inf")))
            if not low <= rate <= high:
                findings.warning(
                    "learning rate",
                    where,
                    f"a learning rate of {number(rate)} is absurdly {'high' if rate > high else 'low'} for {kind}",
                    "usual are 1e-4 to 1e-2" if high == _ADAPTIVE[1] else "usual are 1e-3 to 1e-1",
                    learning_rate=rate,
                )


def schedule_peak(scheduler: Any) -> float | None:
    """The highest learning rate of a schedule that sets the rate itself (OneCycleLR, CyclicLR); None for others."""
    peaks = [group["max_lr"] for group in scheduler.optimizer.param_groups if "max_lr" in group] if scheduler else []
    own = getattr(scheduler, "max_lrs", None)
    return max(map(float, own or peaks), default=None)


def check_batches(experiment: Experiment, data: Data, findings: Findings) -> None:
    """Batch sizes that leave nothing to train on."""
    training = experiment.training
    if "train" not in data.splits:
        findings.error("no training split", "dataset", "there is nothing to train on", "give a training split")
        return
    items = len(data.splits["train"])
    if training.drop_last and items < training.items_per_batch:
        findings.error(
            "batch size",
            "training.batch_size",
            f"{count(items, 'item')} make no full batch of {training.items_per_batch}, and drop_last leaves out "
            "what is not full: "
            "there is not one step",
            f"use a batch_size of at most {items}, or remove drop_last",
        )
    elif items < training.items_per_batch:
        findings.note(
            "batch size",
            "training.batch_size",
            f"the batch size is {training.items_per_batch}, but there are {count(items, 'training item')}: every "
            "epoch is one step",
            "",
        )
