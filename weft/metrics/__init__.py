"""Scores whose states are sums, so that they pool exactly over batches, processes and sites.

`build_scores` makes a `ScoreBook` from names, objects or functions; `KNOWN` lists the names. Importing this package
imports no torch: the names can be checked before anything heavy is loaded.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from weft.metrics.names import (
    KINDS,
    KNOWN,
    Kind,
    MetricInfo,
    check_arguments,
    find_metric,
    mode_of,
    name_of,
    score_name,
)

if TYPE_CHECKING:
    from weft.metrics.book import ScoreBook, build_scores
    from weft.metrics.foreign import Metric
    from weft.metrics.surface import SurfaceDistances, surface_distances

__all__ = [
    "KINDS",
    "KNOWN",
    "Kind",
    "Metric",
    "MetricInfo",
    "ScoreBook",
    "SurfaceDistances",
    "build_scores",
    "check_arguments",
    "find_metric",
    "mode_of",
    "name_of",
    "score_name",
    "surface_distances",
]

_LAZY = {
    "ScoreBook": "weft.metrics.book",
    "build_scores": "weft.metrics.book",
    "Metric": "weft.metrics.foreign",
    "SurfaceDistances": "weft.metrics.surface",
    "surface_distances": "weft.metrics.surface",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'weft.metrics' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
