"""Shares of batches and splits among processes, driven in one process: every odd size, to the sample."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from tests.processes.job import TIMING, make_run
from weft.data import Batch
from weft.engine import Participant, Run, RunResult, Together, drive_alone, training
from weft.engine.seeding import outer_randomness_kept, random_state
from weft.tasks import Classification, Update

ITEMS = 21


def settings_of(held_out: int) -> dict[str, Any]:
    return {
        "count": ITEMS,
        "ratio": [1 - held_out / ITEMS, held_out / ITEMS],
        "training": {"epochs": 2, "batch_size": 4},
    }


def participant(run: Run, rank: int) -> Participant:
    return Participant(str(rank), lambda: training(run), lambda: run.state.position, random_state())


def train_together(settings: dict[str, Any], world: int) -> tuple[list[Run], list[RunResult]]:
    with outer_randomness_kept():
        runs = [make_run(settings, rank, world) for rank in range(world)]
        results = Together([participant(run, rank) for rank, run in enumerate(runs)]).run()
    return runs, [results[str(rank)] for rank in range(world)]


def train_alone(settings: dict[str, Any]) -> tuple[Run, RunResult]:
    with outer_randomness_kept():
        run = make_run(settings, 0, 1)
        return run, drive_alone(training(run))


def same(first: float, second: float, tolerance: float) -> bool:
    return (math.isnan(first) and math.isnan(second)) or abs(first - second) <= tolerance


@pytest.mark.parametrize("held_out", [1, 2, 3, 7, 10, 13, 18, 20])
def test_any_size_is_trained_and_scored_once_on_any_number_of_processes(held_out: int) -> None:
    """Also with fewer items than processes, in a batch, a split or all in all."""
    assert_any_number_of_processes_agrees(held_out)


def assert_any_number_of_processes_agrees(held_out: int) -> None:
    """Train and score so many held out items alone and on 2 and 3 processes, and compare all that comes out."""
    settings = settings_of(held_out)
    alone, expected = train_alone(settings)
    for world in (2, 3):
        runs, results = train_together(settings, world)
        assert len({result.model_sha256 for result in results}) == 1
        for name, tensor in alone.state.model.state_dict().items():
            assert torch.allclose(runs[0].state.model.state_dict()[name], tensor, rtol=0, atol=1e-10)
        for result in results:
            for split, scores in expected.scores.items():
                for score, value in scores.items():
                    assert same(result.scores[split][score], value, 1e-10 if score == "loss" else 1e-15)
        for split, scored in alone.final.items():
            for run in runs:
                rows = sorted(str(row["case"]) for row in run.final[split].rows)
                assert rows == sorted(str(row["case"]) for row in scored.rows)
        for row, alike in zip(alone.state.history, runs[0].state.history, strict=True):
            assert all(same(float(alike[key]), float(row[key]), 1e-10) for key in row.keys() - TIMING)


@pytest.mark.slow
@pytest.mark.parametrize("held_out", range(1, ITEMS))
def test_every_size_up_to_twenty(held_out: int) -> None:
    assert_any_number_of_processes_agrees(held_out)


@pytest.mark.parametrize("clip_norm", [None, 0.5])
def test_a_process_whose_first_step_has_no_items_takes_part_in_fp16(clip_norm: float | None) -> None:
    """One item in a batch of two processes; so it is, too, with a run that goes on before the end of an epoch."""
    settings = {**settings_of(4), "model": {"float64": False}}
    settings["training"] = {"epochs": 1, "batch_size": 1, "precision": "fp16", "clip_norm": clip_norm}
    runs, results = train_together(settings, 2)
    assert len({result.model_sha256 for result in results}) == 1
    assert len({run.state.scaler.get_scale() for run in runs if run.state.scaler is not None}) == 1
    alone, _ = train_alone(settings)
    for name, tensor in alone.state.model.state_dict().items():
        assert torch.allclose(runs[0].state.model.state_dict()[name], tensor, rtol=0, atol=1e-3)


class Alternating(Classification):
    """Trains the first layer, then the last, each while the other is frozen."""

    updates = ("first", "last")

    def networks(self, model: nn.Module) -> dict[str, nn.Module]:
        layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
        return {"first": layers[0], "last": layers[-1]}

    def training_step(self, model: nn.Module, batch: Batch) -> Iterator[Update]:
        networks = self.networks(model)
        for name in self.updates:
            for other, network in networks.items():
                network.requires_grad_(other == name)
            outputs, _ = self.forward(model, batch)
            loss = self.loss_of(outputs, self.targets_for_loss(outputs, batch))
            yield Update(loss, weight=batch.size, network=name)


@pytest.mark.parametrize("held_out", [1, 4])
def test_a_task_may_freeze_one_network_while_it_trains_another(held_out: int) -> None:
    """Where a process has no items in a batch, its task does not run, and does not say what is frozen."""
    settings = settings_of(held_out)  # 20 or 17 items in batches of 4
    settings["training"] |= {"task": Alternating, "clip_norm": 0.5}
    alone, _ = train_alone(settings)
    for world in (2, 3, 5):
        runs, results = train_together(settings, world)
        assert len({result.model_sha256 for result in results}) == 1
        for name, tensor in alone.state.model.state_dict().items():
            assert torch.allclose(runs[0].state.model.state_dict()[name], tensor, rtol=0, atol=1e-10)
