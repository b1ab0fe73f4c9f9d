"""What the configuration asks of the rooms above it: by dotted name, at the moment it asks, never by an import.

The configuration lies below the rooms whose names it looks up. It knows them only as text: `catalog.SOURCES` lists the
modules that hold components, this file what else is asked of those modules. No other module of this package names them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from weft.config.catalog import SOURCES, base_class, module_if_there

_METRICS = SOURCES["metric"][0].module
_TASK = SOURCES["task"][0].base


def known_scores() -> Mapping[str, Any]:
    """Weft's scores: name to what is known of each (`mode`, `arguments`)."""
    known: Mapping[str, Any] = _metrics().KNOWN
    return known


def check_score_arguments(name: str, arguments: Mapping[str, Any]) -> None:
    """Raise a UsageError when one of Weft's scores is given an argument that it does not have."""
    _metrics().check_arguments(name, arguments)


def score_name(name: str, arguments: Mapping[str, Any]) -> str:
    """What one of Weft's scores is called among the results: `top_k_accuracy` with k of 3, `top_3_accuracy`."""
    found: str = _metrics().score_name(name, arguments)
    return found


def own_score(metric: Any) -> tuple[str, str | None]:
    """What a score of the user's (an object, function or class) is called, and its better direction if it says so."""
    return _metrics().name_of(metric), _metrics().mode_of(metric)


def default_scores(task: Any) -> list[str] | None:
    """What a task measures when the experiment names nothing.

    Args:
        task: its class, or an object of it.

    Returns:
        names of Weft's scores; None where the task decides it itself.
    """
    base = base_class(_TASK)
    kind = task if isinstance(task, type) else type(task)
    if base is None or getattr(kind, "build_scores", None) is not getattr(base, "build_scores", None):
        return None
    return list(getattr(task, "default_metrics", ()))


def _metrics() -> Any:
    return module_if_there(_METRICS)
