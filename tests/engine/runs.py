"""Small runs of the real engine on real data, for tests of its settings."""

from __future__ import annotations

from typing import Any

import torch
from sklearn.datasets import load_breast_cancer
from torch import Tensor

from weft.config import Component, Experiment, load_experiment, resolve
from weft.data import open_data
from weft.engine import CheckpointMemory, Observer, Run, RunResult, build_run, drive_alone, training
from weft.nets import MLP

TIMING = {"seconds_train", "seconds_validation", "items_per_second"}


def rows(count: int = 120) -> tuple[Tensor, Tensor]:
    """The first rows of the breast cancer table, standardised."""
    data = load_breast_cancer()
    inputs = (data.data - data.data.mean(0)) / data.data.std(0)
    return torch.tensor(inputs[:count], dtype=torch.float32), torch.tensor(data.target[:count])


def small_experiment(dataset: dict[str, Any] | None = None, **changes: Any) -> Experiment:
    """A classification of `rows` by an MLP; `changes` go into `training`, `model` and `run` replace those sections."""
    model = changes.pop("model", Component.of(MLP, in_features=30, out_features=2, hidden=[16], dropout=0.2))
    run = {"device": "cpu", "num_workers": 0, **changes.pop("run", {})}
    defaults = {
        "task": "classification",
        "epochs": 3,
        "batch_size": 16,
        "optimizer": {"SGD": {"lr": 0.05, "momentum": 0.9}},
        "metrics": ["accuracy"],
    }
    return resolve(
        load_experiment(
            {
                "seed": changes.pop("seed", 3),
                "dataset": dataset or {"arrays": Component.of(rows), "split": {"ratio": [0.8, 0.2]}},
                "model": model,
                "training": {**defaults, **changes},
                "run": run,
            }
        )
    )


def build(experiment: Experiment, observers: tuple[Observer, ...] = ()) -> Run:
    """The run of an experiment, its checkpoints in memory."""
    namespace = experiment.namespace()
    task: Any = namespace.find(experiment.training.task, "task")
    data = open_data(
        experiment.dataset,
        namespace,
        seed=experiment.seed,
        fold=None,
        base=experiment.base,
        target_kind=task.target_kind,
    )
    return build_run(experiment, data, checkpoints=CheckpointMemory(), observers=observers)


def trained(experiment: Experiment, observers: tuple[Observer, ...] = ()) -> tuple[Run, RunResult]:
    """A run driven to its end."""
    run = build(experiment, observers)
    return run, drive_alone(training(run))


def last_weights(run: Run) -> dict[str, Tensor]:
    """The weights after the last step (the run itself ends with those of the best epoch)."""
    assert isinstance(run.checkpoints, CheckpointMemory)
    assert run.checkpoints.last is not None
    weights: dict[str, Tensor] = run.checkpoints.last["model"]
    return weights


def untimed(run: Run) -> list[dict[str, Any]]:
    """The history without its timing columns."""
    return [{key: value for key, value in row.items() if key not in TIMING} for row in run.state.history]
