"""Experiments to break, and what is compared of their runs."""

from __future__ import annotations

import copy
import csv
import json
import shutil
from pathlib import Path
from typing import Any

import yaml

from weft.runs import TIMING_COLUMNS

PATCH = Path(__file__).with_name("patch.py")

# 46 items in batches of 6: 8 batches an epoch, the last one smaller; 4 batches of validation; 2 of test.
BASE: dict[str, Any] = {
    "name": "noisy",
    "seed": 7,
    "dataset": {
        "inputs": ["inputs"],
        "targets": ["targets"],
        "class": {
            "train": {"Noisy": {"items": 46}},
            "validation": {"Noisy": {"items": 20, "augment": False}},
            "test": {"Noisy": {"items": 9, "augment": False}},
        },
        "transforms": {"train": [{"Shaken": {"amount": 0.1}}]},
    },
    "model": {"Net": {}},
    "training": {
        "task": "classification",
        "epochs": 3,
        "batch_size": 6,
        "optimizer": {"AdamW": {"lr": 0.01}},
        "scheduler": {"OneCycleLR": {"max_lr": 0.05}},
        "metrics": ["accuracy", "auroc"],
    },
    "patches": ["patch.py"],
    "run": {
        "device": "cpu",
        "num_workers": 0,
        "threads": 1,
        "checkpoint_every": {"steps": 3},
        "log_every": 1,
        "progress": False,
        "tensorboard": False,
        "observers": ["Trap"],
    },
}

VARIANTS: dict[str, dict[str, Any]] = {
    "one-cycle": {},
    "warm-up and average": {
        "training.scheduler": {"CosineAnnealingLR": {"T_max": 3}},
        "training.warmup_steps": 5,
        "training.ema": {"decay": 0.8},
        "training.clip_norm": 1.0,
    },
    "half precision": {
        "training.precision": "fp16",
        "training.optimizer": {"SGD": {"lr": 0.001, "momentum": 0.9}},
        "training.scheduler": {"OneCycleLR": {"max_lr": 0.002}},
        "model": {"Net": {"steep": 20.0}},
    },
    "accumulated": {
        "training.accumulate": 2,
        "training.scheduler": {"ReduceLROnPlateau": {"patience": 0}},
        "training.monitor": {"metric": "accuracy", "patience": 2},
        "training.epochs": 5,
    },
}  # fmt: skip

# Further ones, whose steps and validations fall on other numbers.
MORE: dict[str, dict[str, Any]] = {
    "thawed": {
        "model": {"component": {"Net": {}}, "freeze": ["body.0", "body.1"], "unfreeze": {2: ["body.0"]}},
        "training.steps": 21,
        "training.evaluate_every": 2,
        "training.drop_last": True,
        "training.precision": "bf16",
        "training.scheduler": {
            "CyclicLR": {"base_lr": 0.001, "max_lr": 0.05, "step_size_up": 5, "cycle_momentum": False}
        },
        "dataset.samplers": {"train": {"RandomSampler": {"replacement": True, "num_samples": 50}}},
    },
    "in memory": {
        "dataset": {
            "arrays": {"points": {"items": 60}},
            "split": {"ratio": [0.6, 0.2, 0.2], "stratified": True},
            "standardize": True,
        },
        "training.optimizer": {"Adam": {"lr": 0.01, "amsgrad": True}},
        "training.scheduler": {"StepLR": {"step_size": 1}},
        "training.fused": True,
    },
    "two networks": {
        "dataset": {"arrays": {"points": {"items": 50}}, "split": {"ratio": [0.8, 0.2]}},
        "model": {"Pair": {}},
        "training.task": "Opponents",
        "training.optimizer": None,
        "training.optimizers": {"one": {"SGD": {"lr": 0.05, "momentum": 0.9}}, "other": {"AdamW": {"lr": 0.01}}},
        "training.metrics": None,
        "training.scheduler": {"OneCycleLR": {"max_lr": 0.05}},
    },
}


def write_experiment(folder: Path, changes: dict[str, Any] | None = None) -> Path:
    """Write the experiment and its patch into a folder; `changes` are values by dotted key, None removes."""
    experiment = copy.deepcopy(BASE)
    for key, value in (changes or {}).items():
        *parents, last = key.split(".")
        section = experiment
        for parent in parents:
            section = section[parent]
        section[last] = value
        if value is None:
            del section[last]
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(PATCH, folder / "patch.py")
    file = folder / "experiment.yaml"
    file.write_text(yaml.safe_dump(experiment, sort_keys=False))
    return file


def result_of(run: Path) -> dict[str, Any]:
    """What result.json says."""
    result: dict[str, Any] = json.loads((run / "result.json").read_text())
    return result


def history_of(run: Path) -> list[dict[str, str]]:
    """history.csv as it is written, without the timing columns."""
    with (run / "history.csv").open(newline="") as file:
        return [{key: cell for key, cell in row.items() if key not in TIMING_COLUMNS} for row in csv.DictReader(file)]


def outcome(run: Path) -> dict[str, Any]:
    """All that must be the same to the bit in a run that was disturbed and one that was not."""
    result = result_of(run)
    assert result["status"] == "finished"
    return {
        "weights": result["model_sha256"],
        "history": history_of(run),
        "steps": (run / "steps.csv").read_text(),
        "scores": result["scores"],
        "cases": {file.name: file.read_text() for file in sorted((run / "scores").glob("*.csv"))},
        "best": (result["best_epoch"], result["monitor"], result["epochs"], result["steps"]),
    }
