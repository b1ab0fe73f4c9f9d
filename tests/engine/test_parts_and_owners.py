"""Epochs and scores of part of the data, scores of the training split, and tasks that bring optimizer and schedule."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LRScheduler, StepLR

from tests.engine.runs import build, last_weights, small_experiment, trained
from weft.config import Component
from weft.engine import drive_alone, training
from weft.errors import ConfigError
from weft.nets import MLP
from weft.tasks import Classification

EVERY = 96  # training items of the small experiment, 24 for validation


@pytest.mark.parametrize("batches", [1, 4, 100])
def test_so_many_batches_of_an_epoch_are_trained_on(batches: int) -> None:
    run, result = trained(small_experiment(train_batches=batches, epochs=2))
    assert result.steps == 2 * min(batches, EVERY // 16)
    assert run.state.history[0]["step"] == min(batches, EVERY // 16)


def test_the_items_of_a_shortened_epoch_are_the_first_of_its_order() -> None:
    whole, part = (build(small_experiment(**given)) for given in ({}, {"train_batches": 2}))
    assert whole.train is not None
    assert part.train is not None
    for epoch in (0, 1):
        expected = [batch.index.tolist() for batch in whole.train.epoch(epoch)]
        assert [batch.index.tolist() for batch in part.train.epoch(epoch)] == expected[:2]


def test_so_many_batches_of_a_split_are_scored() -> None:
    run = build(small_experiment(evaluation_batches=1, evaluation_batch_size=10))
    seen = {name: [int(row) for batch in split.loader.epoch(0) for row in batch.index]
            for name, split in run.splits.items()}  # fmt: skip
    assert seen == {"train": list(range(10)), "validation": list(range(10))}


@pytest.mark.parametrize(("when", "in_history", "in_the_end"), [
    ("never", False, False), ("end", False, True), ("epochs", True, True),
])  # fmt: skip
def test_the_training_split_is_scored_when_it_is_asked_for(when: str, in_history: bool, in_the_end: bool) -> None:
    run, result = trained(small_experiment(run={"score_train": when}, monitor={"metric": "accuracy"}))
    assert all(("train_accuracy" in row) == in_history for row in run.state.history)
    assert ("train" in result.scores) == in_the_end
    if when == "epochs":
        assert result.best_epoch is not None
        assert run.state.history[result.best_epoch - 1]["train_accuracy"] == result.scores["train"]["accuracy"]


def test_scoring_the_training_split_changes_nothing() -> None:
    runs = [trained(small_experiment(run={"score_train": when}))[0] for when in ("never", "epochs")]
    one, other = map(last_weights, runs)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_an_epoch_without_a_batch_is_an_error() -> None:
    with pytest.raises(ConfigError, match="96 items are fewer than a batch of 97"):
        build(small_experiment(batch_size=97, drop_last=True))


class WithOwn(Classification):
    """Brings an optimizer for the last layer alone, and a schedule."""

    def networks(self, model: Any) -> dict[str, Any]:
        self.last = list(model.modules())[-1]
        return super().networks(model)

    def optimizer(self, network: str) -> Optimizer:
        return SGD(self.last.parameters(), lr=0.5)

    def scheduler(self, network: str, optimizer: Optimizer) -> LRScheduler:
        return StepLR(optimizer, 1, gamma=0.1)


def test_a_task_may_bring_optimizer_and_schedule() -> None:
    run, _ = trained(small_experiment(task=WithOwn, optimizer="weft.tasks.OwnOptimizer"))
    assert [row["learning_rate"] for row in run.state.history] == pytest.approx([0.5, 0.05, 0.005])
    assert sum(len(group["params"]) for group in run.state.optimizers["main"].param_groups) < len(
        list(run.state.model.parameters())
    )


def test_an_optimizer_that_the_experiment_names_comes_first() -> None:
    run, _ = trained(small_experiment(task=WithOwn, scheduler={"ConstantLR": {"factor": 1.0}}))
    assert math.isclose(run.state.history[-1]["learning_rate"], 0.05)


def test_a_task_that_brings_none_is_told() -> None:
    with pytest.raises(ConfigError, match="task Classification brings none for 'main'"):
        build(small_experiment(optimizer="weft.tasks.OwnOptimizer"))


def test_a_model_that_an_earlier_run_has_trained_does_not_begin_another() -> None:
    """As between folds: it would know the items that it is tested with."""
    made = MLP(in_features=30, out_features=2, hidden=[16])

    def the_same() -> MLP:
        return made

    trained(small_experiment(model=Component.of(the_same)))
    with pytest.raises(ConfigError, match=r"the model is not new: an earlier run has trained its parameter \S+weight"):
        trained(small_experiment(model=Component.of(the_same)))


def test_a_run_that_goes_on_may_find_the_model_that_it_has_trained() -> None:
    made = MLP(in_features=30, out_features=2, hidden=[16])

    def the_same() -> MLP:
        return made

    run, _ = trained(small_experiment(model=Component.of(the_same)))
    again = build(small_experiment(model=Component.of(the_same)))
    state = run.checkpoints.load_last()
    assert state is not None
    again.state.load_state_dict(state)
    again.checkpoints, again.resumed = run.checkpoints, True
    assert drive_alone(training(again)).status == "finished"


def test_models_may_share_a_part_that_is_frozen() -> None:
    shared = nn.Sequential(nn.Linear(30, 8), nn.Tanh())
    before = {name: tensor.clone() for name, tensor in shared.state_dict().items()}
    heads: list[tuple[nn.Module, dict[str, torch.Tensor]]] = []

    def with_head() -> nn.Sequential:
        head = nn.Sequential(nn.Sequential(nn.Linear(8, 8), nn.Tanh()), nn.Linear(8, 2))
        heads.append((head, {name: tensor.clone() for name, tensor in head.state_dict().items()}))
        return nn.Sequential(shared, *head)

    again = {"activation_checkpointing": ["0", "1"]}
    for _ in range(2):
        run, _ = trained(small_experiment(model={"component": Component.of(with_head), "freeze": ["0.*"]}, run=again))
        assert run.state.position.step == 3 * (EVERY // 16)
    assert all(torch.equal(tensor, before[name]) for name, tensor in shared.state_dict().items())
    assert len(heads) == 2
    for head, untrained in heads:
        assert not any(torch.equal(tensor, untrained[name]) for name, tensor in head.state_dict().items())
