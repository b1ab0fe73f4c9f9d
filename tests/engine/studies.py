"""Participants of a run on unequal shares of real data, for tests of drivers and strategies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer
from torch import Tensor, nn

from weft.config import Component, Experiment, load_experiment, resolve
from weft.data import Data, open_data
from weft.engine import CheckpointMemory, Membership, Participant, Run, Strategy, Together, build_run, training
from weft.engine.seeding import participant_seed, random_state, seed_everything

SIZES = {"site-a": 37, "site-b": 90, "site-c": 61}  # unequal, and with unequal numbers of batches


def share(start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the breast cancer table, standardised with the whole table's statistics."""
    data = load_breast_cancer()
    inputs = (data.data - data.data.mean(0)) / data.data.std(0)
    return inputs[start:stop], data.target[start:stop]


class DoubleNet(nn.Module):
    """A small network in float64, where rounding cannot hide a mistake."""

    def __init__(self, dropout: float = 0.0, batch_norm: bool = False) -> None:
        super().__init__()
        middle = nn.BatchNorm1d(16) if batch_norm else nn.Identity()
        self.layers = nn.Sequential(
            nn.Linear(30, 16), middle, nn.Tanh(), nn.Dropout(dropout), nn.Linear(16, 2)
        ).double()

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layers(inputs.double())


def site_experiment(
    start: int, stop: int, *, dropout: float = 0.0, batch_norm: bool = False, model: Any = None, **settings: Any
) -> Experiment:
    """An experiment on rows start to stop; `settings` go into `training`."""
    return resolve(
        load_experiment(
            {
                "seed": 5,
                "dataset": {
                    "arrays": Component.of(share, start=start, stop=stop),
                    "split": {"ratio": [0.8, 0.2], "stratified": True},
                },
                "model": model or Component.of(DoubleNet, dropout=dropout, batch_norm=batch_norm),
                "training": {
                    "task": "classification",
                    "epochs": 2,
                    "batch_size": 8,
                    "optimizer": {"SGD": {"lr": 0.05, "momentum": 0.9}},
                    "metrics": ["accuracy"],
                    **settings,
                },
                "run": {"device": "cpu", "num_workers": 0, "checkpoint_every": {"steps": 3}},
            }
        )
    )


def open_site(experiment: Experiment) -> Data:
    return open_data(
        experiment.dataset,
        experiment.namespace(),
        seed=experiment.seed,
        fold=None,
        base=experiment.base,
        target_kind="class",
    )


@dataclass
class Study:
    """Participants in one process, and the runs they are in the middle of."""

    strategy: Callable[[], Strategy]
    dropout: float = 0.0
    settings: dict[str, Any] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=lambda: dict(SIZES))

    def __post_init__(self) -> None:
        self.runs: dict[str, Run] = {}
        self.stores = {name: CheckpointMemory() for name in self.sizes}
        self.participants: list[Participant] = []
        start = 0
        for number, (name, size) in enumerate(self.sizes.items()):
            experiment = site_experiment(start, start + size, dropout=self.dropout, **self.settings)
            start += size
            self._add(name, number, experiment, open_site(experiment))
        self.together = Together(self.participants)

    def resumed(self) -> Study:
        """The same study begun anew, from what this one has saved, and run to its end."""
        again = replace(self)
        for name, store in self.stores.items():
            again.stores[name].last, again.stores[name].best = store.last, store.best
        again.together.run()
        return again

    def _add(self, name: str, number: int, experiment: Experiment, data: Data) -> None:
        def begin() -> Any:
            run = build_run(
                experiment,
                data,
                checkpoints=self.stores[name],
                strategy=self.strategy(),
                membership=Membership(len(self.sizes), number),
            )
            saved = self.stores[name].load_last()
            if saved is not None:
                run.state.load_state_dict(saved)
            run.on_saved = participant.saved
            self.runs[name] = run
            return training(run)

        before = random_state()
        torch.manual_seed(0)
        seed_everything(participant_seed(experiment.seed, number))
        participant = Participant(name, begin, lambda: self.runs[name].state.position, random_state())
        self.participants.append(participant)
        from weft.engine.seeding import set_random_state

        set_random_state(before)

    def weights(self) -> dict[str, dict[str, Tensor]]:
        return {name: run.state.model.state_dict() for name, run in self.runs.items()}

    def histories(self) -> dict[str, list[dict[str, Any]]]:
        timing = {"seconds_train", "seconds_validation", "items_per_second"}
        return {
            name: [{key: value for key, value in row.items() if key not in timing} for row in run.state.history]
            for name, run in self.runs.items()
        }


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    """Whether two sets of weights are the same to the bit."""
    return list(first) == list(second) and all(torch.equal(first[name], second[name]) for name in first)
