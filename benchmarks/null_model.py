"""The engine's own time: a model, a loss and an optimizer that do next to nothing, whose cost is measured apart.

Steps are counted by difference: a run with long epochs minus one with short epochs, both with the same number of epochs
and the same validation split. So what an epoch costs (validation, history, checkpoints) drops out, and is told apart.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch.nn import functional

from benchmarks.cases import Case, Prepared, prepare
from benchmarks.common import Train, make_model
from benchmarks.pairs import Spread, run_once, spread

LONGER = 5  # how many times as long the long epochs are


@dataclass(frozen=True)
class OwnTime:
    """Time outside forward, backward and optimizer.

    Args:
        step: per step, in microseconds.
        epoch: per epoch (validation, history, checkpoints), in milliseconds.
    """

    step: Spread
    epoch: Spread


def measure(train: Train, case: Case, folder: Path, count: int) -> OwnTime:
    """A contender's own time per step and per epoch."""
    short = prepare(case, folder / "short")
    long = prepare(replace(case, train_items=LONGER * case.train_items), folder / "long")
    steps, epochs = [], []
    for number in range(-1, count):
        bare = bare_step(long)
        costs = [run_once(train, prepared, folder / "run").cpu for prepared in (short, long)]
        step = (costs[1] - costs[0]) / (long.case.steps - short.case.steps)
        if number >= 0:
            steps.append(1e6 * (step - bare))
            epochs.append(1e3 * (costs[0] - step * short.case.steps) / case.epochs)
    return OwnTime(spread(steps), spread(epochs))


def bare_step(prepared: Prepared) -> float:
    """CPU seconds of forward, loss, backward and optimizer: the least they cost, without records for profilers."""
    inputs, targets = (values[: prepared.case.batch_size] for values in prepared.tensors["train"])
    model, optimizer = make_model(prepared.case)
    model.train()
    parameters, step = list(model.parameters()), getattr(type(optimizer).step, "__wrapped__", type(optimizer).step)
    start = time.process_time()
    for _ in range(prepared.case.steps):
        for parameter in parameters:
            parameter.grad = None
        loss = functional.cross_entropy(model(inputs), targets)
        loss.backward()
        step(optimizer)
    seconds = time.process_time() - start
    assert torch.isfinite(loss)
    return seconds / prepared.case.steps
