"""Strategies in runs of the engine: several networks and optimizers, frozen parts, accumulated gradients, 16 bits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.engine.studies import Study, same
from tests.federated.test_properties import ALL
from weft.config import Component
from weft.data import Batch
from weft.engine import Strategy
from weft.errors import Stopped
from weft.federated import PowerSGD, TopK, rankDAD
from weft.tasks import Classification, Update

FAST = ["FedAvg", "SCAFFOLD", "PowerSGD", "rankDAD"]


class Pair(nn.Module):
    """Two networks, one of them with a part that is frozen at first."""

    def __init__(self, double: bool = True) -> None:
        super().__init__()
        self.one = nn.Sequential(nn.Linear(30, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 2))
        self.other = nn.Sequential(nn.Linear(30, 6), nn.Tanh(), nn.Linear(6, 2))
        self.to(torch.float64 if double else torch.float32)

    def forward(self, inputs: Tensor) -> Tensor:
        inputs = inputs.to(self.other[0].weight.dtype)
        scores: Tensor = self.one(inputs) + self.other(inputs)
        return scores


class Opponents(Classification):
    """Each network learns the classes, the second one also what the first one says by now."""

    updates = ("one", "other")

    def networks(self, model: nn.Module) -> dict[str, nn.Module]:
        return {"one": model.get_submodule("one"), "other": model.get_submodule("other")}

    def training_step(self, model: nn.Module, batch: Batch) -> Iterator[Update]:
        one, other = model.get_submodule("one"), model.get_submodule("other")
        inputs = batch.inputs.to(next(model.parameters()).dtype)
        yield Update(nn.functional.cross_entropy(one(inputs), batch.targets), batch.size, "one")
        answer, told = other(inputs), one(inputs).softmax(1)  # reaches the first network, which it must not move
        loss = nn.functional.cross_entropy(answer, batch.targets) + nn.functional.cross_entropy(answer, told)
        yield Update(loss, batch.size, "other")


def _everything(**changes: Any) -> dict[str, Any]:
    component = Component.of(Pair, double="precision" not in changes)
    settings = {
        "model": {"component": component, "freeze": ["other.0.*"], "unfreeze": {2: ["other.0.*"]}},
        "task": Component.of(Opponents),
        "optimizer": None,
        "optimizers": {"one": {"SGD": {"lr": 0.05, "momentum": 0.9}}, "other": {"Adam": {"lr": 0.01}}},
        "accumulate": 2,
        "batch_size": 5,
        "drop_last": True,
    }
    return settings | changes


def _stopped_and_resumed(strategy: Callable[[], Strategy], settings: dict[str, Any]) -> Study:
    study = Study(strategy, settings=settings)
    for _ in range(25):
        study.together.turn()
    study.runs["site-c"].interruption.request("SIGTERM")
    with pytest.raises(Stopped):
        study.together.run()
    return study.resumed()


@pytest.mark.parametrize("name", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in ALL])
def test_networks_optimizers_freezing_and_accumulation_work_together_and_resume(name: str) -> None:
    settings = _everything()
    undisturbed = Study(ALL[name], settings=settings)
    first = undisturbed.together.participants[0]
    undisturbed.together.run()
    resumed = _stopped_and_resumed(ALL[name], settings)
    for site, run in resumed.runs.items():
        assert same(run.state.model.state_dict(), undisturbed.weights()[site])
    weights = list(undisturbed.weights().values())
    shared = [key for key in weights[0] if name != "FedBN" or not key.startswith("one.1.")]
    assert all(torch.equal(weights[0][key], other[key]) for other in weights[1:] for key in shared)
    assert first.result is not None
    assert first.result.scores["validation"]["accuracy"] > 0.7


@pytest.mark.parametrize(
    "name", [name if name in ("FedAvg", "PowerSGD") else pytest.param(name, marks=pytest.mark.slow) for name in ALL]
)
def test_half_precision_with_a_scaled_loss_trains(name: str) -> None:
    study = Study(ALL[name], settings=_everything(precision="fp16"))
    results = study.together.run()
    assert results["site-a"].scores["validation"]["accuracy"] > 0.7
    assert all(bool(torch.isfinite(tensor).all()) for tensor in study.weights()["site-a"].values())


@pytest.mark.parametrize(
    "strategy",
    [lambda: TopK(PowerSGD(1, warmup_steps=2), 0.5), pytest.param(lambda: rankDAD(1), marks=pytest.mark.slow)],
    ids=["top-k of PowerSGD", "rankDAD"],
)
def test_sites_that_are_killed_between_the_sums_of_a_step_change_nothing(strategy: Callable[[], Strategy]) -> None:
    """At every collective of a step in the middle, of strategies that have several of them."""
    undisturbed = Study(strategy, dropout=0.3)
    undisturbed.together.run()
    for killed_at in range(11, 15):
        study = Study(strategy, dropout=0.3)
        for turn in range(killed_at + 1):
            assert study.together.ask()
            if turn < killed_at:
                study.together.reply()
        study.together.restart("site-b")
        study.together.reply()
        study.together.restart("site-a")
        while study.together.turn():
            pass
        assert all(same(study.weights()[site], undisturbed.weights()[site]) for site in study.runs), killed_at
