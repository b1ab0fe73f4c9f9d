"""Batch normalisation and batches of one item: told before training, or where it happens, with what to do."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.data.helpers import global_states
from tests.engine.runs import build, rows, small_experiment, trained
from weft.config import Component
from weft.engine import Observer
from weft.engine.freezing import prepare_modules
from weft.engine.smallest_batch import check_smallest_batch
from weft.errors import ConfigError


class Normalised(nn.Module):
    """A small network with batch normalisation."""

    def __init__(self, spatial: bool = False) -> None:
        super().__init__()
        if spatial:
            layers = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 3 * 4, 2)]
            self.layers = nn.Sequential(nn.Unflatten(1, (1, 5, 6)), *layers)
        else:
            self.layers = nn.Sequential(nn.Linear(30, 8), nn.BatchNorm1d(8), nn.Dropout(0.2), nn.Linear(8, 2))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layers(inputs)


class Steps(Observer):
    taken = 0

    def on_step(self, step: Any) -> None:
        self.taken += 1


def experiment(count: int, **changes: Any) -> Any:
    """`count` items for training and as many for validation."""
    dataset = {"arrays": Component.of(rows, count=2 * count), "split": {"ratio": [0.5, 0.5]}}
    return small_experiment(dataset, **{"model": Component.of(Normalised), "epochs": 1, **changes})


def test_a_last_batch_of_one_item_is_told_before_the_first_step() -> None:
    steps = Steps()
    with pytest.raises(ConfigError) as caught:
        trained(experiment(33), (steps,))
    (problem,) = caught.value.problems
    assert problem.path == ("training", "batch_size")
    assert "33 items in batches of 16" in problem.message
    assert "drop_last: true" in problem.hint
    assert steps.taken == 0


def test_a_batch_size_of_one_is_told() -> None:
    with pytest.raises(ConfigError, match="training.batch_size is 1, but Normalised normalises over a batch"):
        trained(experiment(40, batch_size=1))


@pytest.mark.parametrize(
    "changes",
    [
        {"drop_last": True},
        {"batch_size": 11},
        {"evaluation_batch_size": 1, "batch_size": 11},
        {"model": Component.of(Normalised, spatial=True)},  # has several values for each channel
        {"model": {"component": Component.of(Normalised), "freeze": ["layers.1"]}},  # uses what it learned before
    ],
)
def test_what_can_be_trained_is_trained(changes: dict[str, Any]) -> None:
    _, result = trained(experiment(33, **changes))
    assert result.status == "finished"


def test_looking_at_the_smallest_batch_moves_nothing() -> None:
    run = build(experiment(33, model=Component.of(Normalised, spatial=True)))
    prepare_modules(run)
    before = {name: tensor.clone() for name, tensor in run.state.model.state_dict().items()}
    random = global_states()
    check_smallest_batch(run)
    assert global_states() == random
    assert all(torch.equal(tensor, before[name]) for name, tensor in run.state.model.state_dict().items())


def test_an_item_left_alone_by_bad_ones_is_told_where_it_happens() -> None:
    class Lonely:
        def __len__(self) -> int:
            return 4

        def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
            if row % 4:
                raise OSError("damaged")
            return torch.zeros(30), torch.tensor(0)

    dataset = {"class": {"train": Component.of(Lonely)}, "on_bad_item": "skip"}
    with pytest.raises(ConfigError, match=r"one item is too few: inputs \[1, 30\]"):
        trained(small_experiment(dataset, model=Component.of(Normalised)))
