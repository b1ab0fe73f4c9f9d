"""A small experiment that is right, to be changed by tests."""

from __future__ import annotations

from typing import Any

from tests.experiments import changed

VALID: dict[str, Any] = {
    "name": "small",
    "seed": 3,
    "dataset": {
        "arrays": {"sklearn.datasets.load_breast_cancer": {"return_X_y": True}},
        "split": {"ratio": [0.7, 0.15, 0.15]},
    },
    "model": {"MLP": {"in_features": 30, "out_features": 2, "hidden": [16]}},
    "training": {
        "task": "classification",
        "epochs": 2,
        "batch_size": 16,
        "optimizer": {"AdamW": {"lr": 1e-3}},
        "metrics": ["accuracy"],
    },
}


def valid(**changes: Any) -> dict[str, Any]:
    """The experiment with entries replaced; see `changed`."""
    return changed(VALID, **changes)
