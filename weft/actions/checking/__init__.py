"""Looking before leaping: `check` examines an experiment with its data, `test_model` a network; nothing is trained or
written. Each function loads what it needs at first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from weft.actions.checking.checks import check
    from weft.actions.checking.findings import CheckReport, Finding, Findings
    from weft.actions.checking.model_tests import ModelReport, ModelTest, test_model

__all__ = ["CheckReport", "Finding", "Findings", "ModelReport", "ModelTest", "check", "test_model"]

_HOMES = {
    "CheckReport": "findings",
    "Finding": "findings",
    "Findings": "findings",
    "ModelReport": "model_tests",
    "ModelTest": "model_tests",
    "check": "checks",
    "test_model": "model_tests",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"weft.actions.checking.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'weft.actions.checking' has no attribute '{name}'")
