"""A small experiment that is right, to be changed by tests."""

from __future__ import annotations

import copy
from typing import Any

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
    """The experiment with entries replaced; a key `a__b` stands for the entry `b` of section `a`, None removes it."""
    data = copy.deepcopy(VALID)
    for key, value in changes.items():
        *sections, last = key.split("__")
        node = data
        for section in sections:
            node = node.setdefault(section, {})
        if value is None:
            node.pop(last, None)
        else:
            node[last] = value
    return data
