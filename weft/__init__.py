"""Weft trains neural networks with PyTorch: an experiment is described once and runs unchanged on a laptop, in many
processes, as a task of a queue, or across sites that may not share data.

Importing `weft` imports no torch; the public names below load what they need at first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "Experiment": "weft.config",
    "load_experiment": "weft.config",
    "seed_for": "weft.data",
    "train": "weft.actions",
    "resume": "weft.actions",
    "open": "weft.actions",
    "evaluate": "weft.actions",
    "predict": "weft.actions",
    "reproduce": "weft.actions",
    "check": "weft.federated.checking",  # also of studies
}
__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'weft' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
