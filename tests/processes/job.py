"""One process of a run: trains its share and, where it is the first one, writes what came out as JSON.

Started by `tests.processes.launch`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from weft.config import Component, Experiment, load_experiment, resolve
from weft.data import Batch, open_data
from weft.engine import CheckpointFolder, CheckpointMemory, Membership, Run, build_run, drive_alone, training
from weft.engine.determinism import reproducible
from weft.engine.fully_sharded import whole
from weft.engine.processes import drive_among_processes, find_place, joined
from weft.tasks import Classification, Update

TIMING = {"seconds_train", "seconds_validation", "items_per_second"}


def rows(count: int, float64: bool = True) -> tuple[Tensor, Tensor]:
    data = load_breast_cancer()
    inputs = (data.data - data.data.mean(0)) / data.data.std(0)
    return torch.tensor(inputs[:count], dtype=torch.float32), torch.tensor(data.target[:count])


class Net(nn.Module):
    """A small network, with batch normalisation and dropout where asked, in float64 or float32.

    Its `seldom` part has so many units, and is for few items: there are batches that do without. One that is `unseeded`
    has other weights in each process.
    """

    def __init__(
        self,
        batch_norm: bool = False,
        dropout: float = 0.0,
        float64: bool = True,
        hidden: int = 16,
        depth: int = 0,
        blocks: bool = False,
        seldom: int = 0,
        unseeded: bool = False,
    ) -> None:
        super().__init__()
        self.dtype = torch.float64 if float64 else torch.float32
        middle = nn.BatchNorm1d(hidden) if batch_norm else nn.Identity()
        pairs = [(nn.Linear(hidden, hidden), nn.Tanh()) for _ in range(depth)]
        more = [nn.Sequential(*pair) for pair in pairs] if blocks else [layer for pair in pairs for layer in pair]
        self.layers = nn.Sequential(
            nn.Linear(30, hidden), middle, nn.Tanh(), nn.Dropout(dropout), *more, nn.Linear(hidden, 2)
        )
        self.seldom = nn.Sequential(nn.Linear(2, seldom), nn.Linear(seldom, 2)) if seldom else None
        self.to(self.dtype)
        if unseeded:
            drawn = np.random.default_rng()
            with torch.no_grad():
                for parameter in self.parameters():
                    parameter.copy_(torch.from_numpy(drawn.normal(0, 0.1, parameter.shape)))

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.layers(inputs.to(self.dtype))
        chosen = inputs[:, 0] > 1.2
        if self.seldom is None or not bool(chosen.any()):
            return outputs
        return outputs.index_add(0, chosen.nonzero()[:, 0], self.seldom(outputs[chosen]))


class Warmed(Classification):
    """Trains a number that is not the model's, and that all gradients depend on."""

    def networks(self, model: nn.Module) -> dict[str, nn.Module]:
        self.model = model
        self.warmth = nn.Parameter(torch.ones((), dtype=torch.float64))
        return super().networks(model)

    def optimizer(self, network: str) -> Optimizer:
        return SGD([*self.model.parameters(), self.warmth], lr=0.05)

    def loss_of(self, outputs: Tensor, targets: Any) -> Tensor:
        return super().loss_of(outputs * self.warmth, targets)


class Fickle(Classification):
    """Freezes the first layer in every third step."""

    count = 0

    def training_step(self, model: nn.Module, batch: Batch) -> Iterator[Update]:
        self.count += 1
        model.get_submodule("layers.0").requires_grad_(self.count % 3 > 0)
        yield from super().training_step(model, batch)


class FickleByItself(Fickle):
    """In other steps in each process."""

    def __init__(self) -> None:
        super().__init__()
        self.count = int(os.environ.get("RANK", "0"))


def experiment_of(settings: dict[str, Any]) -> Experiment:
    weights = dict(settings.get("weights", {}))
    if "unfreeze" in weights:
        weights["unfreeze"] = {int(epoch): patterns for epoch, patterns in weights["unfreeze"].items()}
    return resolve(
        load_experiment(
            {
                "seed": 9,
                "dataset": {
                    "arrays": Component.of(rows, count=settings.get("count", 150)),
                    "split": {"ratio": settings.get("ratio", [0.7, 0.3])},
                },
                "model": {"component": Component.of(Net, **settings.get("model", {})), **weights},
                "training": {
                    "task": "classification",
                    "epochs": 3,
                    "batch_size": 16,
                    "optimizer": {"SGD": {"lr": 0.05, "momentum": 0.9}},
                    "metrics": ["accuracy", "auroc", "f1"],
                    **settings.get("training", {}),
                },
                "run": {"device": "cpu", "num_workers": 0, **settings.get("run", {})},
            }
        )
    )


def make_run(settings: dict[str, Any], rank: int, world: int) -> Run:
    experiment = experiment_of(settings)
    data = open_data(
        experiment.dataset, experiment.namespace(), seed=9, fold=None, base=experiment.base, target_kind="class"
    )
    folder = settings.get("checkpoints")
    run = build_run(
        experiment,
        data,
        checkpoints=CheckpointFolder(Path(folder)) if folder and rank == 0 else CheckpointMemory(),
        membership=Membership(world, rank, shares_directory=world > 1),
    )
    state = run.checkpoints.load_last() if rank == 0 else None
    if state is not None:
        run.state.load_state_dict(state, rank, world)
        run.resumed = True
    return run


def main(settings: dict[str, Any]) -> None:
    place = find_place()
    with reproducible(threads=1, deterministic=True, device=torch.device("cpu")):
        if place is None:
            run = make_run(settings, 0, 1)
            result = drive_alone(training(run))
            weights = run.state.model.state_dict()
        else:
            with joined(place, timeout=settings.get("timeout", 60)):
                run = make_run(settings, place.rank, place.world)
                result = drive_among_processes(training(run), place, lambda: run.state.position)
                weights = {name: whole(tensor) for name, tensor in run.state.model.state_dict().items()}
    outcome = {
        "model_sha256": result.model_sha256,
        "scores": result.scores,
        "history": [{key: value for key, value in row.items() if key not in TIMING} for row in run.state.history],
        "weights": {name: tensor.tolist() for name, tensor in weights.items()},
        "cases": {name: len(split.rows) for name, split in run.final.items()},
    }
    rank = 0 if place is None else place.rank
    Path(settings["out"]).with_suffix(f".{rank}.json").write_text(json.dumps(outcome), encoding="utf-8")
