"""The number of processes is not part of the experiment: training and scores are the same."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.processes.launch import train


def largest_difference(first: dict[str, Any], second: dict[str, Any]) -> float:
    pairs = [(first["weights"][name], second["weights"][name]) for name in first["weights"]]
    return max(
        float((torch.tensor(a, dtype=torch.float64) - torch.tensor(b, dtype=torch.float64)).abs().max())
        for a, b in pairs
    )


CASES: dict[str, tuple[dict[str, Any], float]] = {
    "float64": ({}, 1e-10),
    "float64 with batch statistics": ({"model": {"batch_norm": True}}, 1e-10),
    "float64, accumulated": ({"training": {"accumulate": 3, "batch_size": 8}}, 1e-10),
    "float64, more parameters than are summed one by one": ({"model": {"hidden": 2500, "batch_norm": True}}, 1e-10),
    "float64, several buckets, empty shares, accumulated, frozen": (
        {
            "model": {"hidden": 300, "depth": 4},
            "weights": {"freeze": ["layers.4.*", "layers.0.*"], "unfreeze": {2: ["layers.4.weight"]}},
            "training": {"accumulate": 3, "batch_size": 8},
        },
        1e-10,
    ),
    "batch statistics, and parts that the items of one process alone may reach": (
        {
            "model": {"batch_norm": True, "seldom": 30_000},
            "training": {"optimizer": {"SGD": {"lr": 0.05, "momentum": 0.9}}},
        },
        1e-10,
    ),
    "the same, summed by PowerSGD's steps that are whole": (
        {
            "model": {"batch_norm": True, "seldom": 30_000},
            "training": {
                "optimizer": {"SGD": {"lr": 0.05}},
                "gradient_compression": {"method": "powersgd", "rank": 1, "warmup_steps": 1000},
            },
        },
        1e-10,
    ),
    "several buckets, and parameters beside the model": (
        {
            "model": {"hidden": 300, "depth": 4},
            "training": {"task": "tests.processes.job.Warmed", "optimizer": "weft.tasks.OwnOptimizer"},
        },
        1e-10,
    ),
    "a task that freezes a layer now and then": ({"training": {"task": "tests.processes.job.Fickle"}}, 1e-10),
    "such a task, several buckets": (
        {"model": {"hidden": 300, "depth": 4}, "training": {"task": "tests.processes.job.Fickle"}},
        1e-10,
    ),
    "float32, several buckets": ({"model": {"hidden": 300, "depth": 4, "float64": False}}, 1e-5),
    "float32": ({"model": {"float64": False}}, 1e-5),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_one_two_and_three_processes_train_the_same(name: str, tmp_path: Path) -> None:
    settings, tolerance = CASES[name]
    alone = train(settings, 1, tmp_path)[0]
    for world in (2, 3):
        outcomes = train(settings, world, tmp_path)
        assert len({outcome["model_sha256"] for outcome in outcomes}) == 1  # replicas, to the bit
        assert largest_difference(alone, outcomes[0]) < tolerance
        for split, scores in alone["scores"].items():
            for score, value in scores.items():
                assert outcomes[0]["scores"][split][score] == pytest.approx(value, abs=max(tolerance, 1e-6))
        assert outcomes[0]["cases"] == alone["cases"]


@pytest.mark.parametrize(("held_out", "world"), [(33, 2), pytest.param(1, 3, marks=pytest.mark.slow)])
def test_scores_count_every_sample_once(held_out: int, world: int, tmp_path: Path) -> None:
    """33 samples on two processes are 33, and one validation sample on three processes is one."""
    count = 42
    settings = {
        "count": count,
        "ratio": [1 - held_out / count, held_out / count],
        "training": {"epochs": 1, "optimizer": {"SGD": {"lr": 0.0}}},
    }
    alone = train(settings, 1, tmp_path)[0]
    assert alone["cases"]["validation"] == held_out
    outcomes = train(settings, world, tmp_path)
    for outcome in outcomes:
        assert outcome["cases"] == alone["cases"]
        for score in ("accuracy", "auroc", "f1"):
            values = outcome["scores"]["validation"][score], alone["scores"]["validation"][score]
            assert values[0] == values[1] or all(math.isnan(value) for value in values)
        assert outcome["scores"]["validation"]["loss"] == pytest.approx(
            alone["scores"]["validation"]["loss"], abs=1e-12
        )
