"""What the commands do, as functions: start_project (init), check, train, resume, evaluate, predict, test_model, show,
components, reproduce, report, compare, examine (doctor), profile.

Importing this package imports no torch; each function loads what it needs at first use.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from weft.actions.checking import CheckReport, ModelReport, check, test_model
    from weft.actions.compare import RunComparison, compare
    from weft.actions.doctor import Diagnosis, examine
    from weft.actions.evaluate import evaluate
    from weft.actions.launching import reports
    from weft.actions.looking import ShownExperiment, components, show
    from weft.actions.predict import predict
    from weft.actions.profiling import Profile, profile
    from weft.actions.projects import start_project
    from weft.actions.reporting import report
    from weft.actions.reproduce import Comparison, reproduce
    from weft.actions.train import resume, train
    from weft.actions.trained import TrainedRun, open

__all__ = [
    "CheckReport",
    "Comparison",
    "Diagnosis",
    "ModelReport",
    "Profile",
    "RunComparison",
    "ShownExperiment",
    "TrainedRun",
    "check",
    "compare",
    "components",
    "evaluate",
    "examine",
    "open",
    "predict",
    "profile",
    "report",
    "reports",
    "reproduce",
    "resume",
    "show",
    "start_project",
    "test_model",
    "train",
]

_HOMES = {
    "CheckReport": "checking",
    "Comparison": "reproduce",
    "Diagnosis": "doctor",
    "ModelReport": "checking",
    "Profile": "profiling",
    "RunComparison": "compare",
    "ShownExperiment": "looking",
    "TrainedRun": "trained",
    "check": "checking",
    "compare": "compare",
    "components": "looking",
    "evaluate": "evaluate",
    "examine": "doctor",
    "open": "trained",
    "predict": "predict",
    "profile": "profiling",
    "report": "reporting",
    "reports": "launching",
    "reproduce": "reproduce",
    "resume": "train",
    "show": "looking",
    "start_project": "projects",
    "test_model": "checking",
    "train": "train",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"weft.actions.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'weft.actions' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)


class _Actions(ModuleType):
    """Keeps functions' names for the functions: importing the file `train.py` would put its module in their place."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Actions
