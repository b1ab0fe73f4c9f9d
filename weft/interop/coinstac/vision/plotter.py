"""Plots of logs, for code that draws its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from weft.interop.coinstac.plots import plot


def plot_progress(cache: Mapping[str, Any], log_dir: str | Path, plot_keys: Sequence[str] = (), **further: Any) -> None:
    """Draw logs of the cache into `log_dir`, `KEY_0.png` and so on.

    Args:
        cache: has the logs, and `log_header`.
        log_dir: where they are drawn.
        plot_keys: which logs.
        further: what the original smooths by; nothing is smoothed.
    """
    for key in plot_keys:
        if cache.get(key) and cache.get("log_header"):
            plot(Path(log_dir), str(key), str(cache["log_header"]), cache[key])
