"""Helpers under the names of coinstac-dinunet's."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from weft.interop.coinstac.config import score_delta
from weft.interop.coinstac.utils.logger import lazy_debug
from weft.runs.files import write_atomically

__all__ = [
    "FrozenDict",
    "clean_recursive",
    "duration",
    "jsonable",
    "lazy_debug",
    "performance_improved_",
    "save_cache",
    "save_scores",
    "stop_training_",
]


class FrozenDict(dict[Any, Any]):
    """A dict whose entries cannot be changed; others can be added."""

    def __setitem__(self, key: Any, value: Any) -> None:
        if key in self:
            raise ValueError(f"{key!r} is {self[key]!r} and stays so: it cannot become {value!r}")
        super().__setitem__(key, value)

    def update(self, *others: Any, **named: Any) -> None:
        """Add entries."""
        for key, value in dict(*others, **named).items():
            self[key] = value


def jsonable(value: Any) -> bool:
    """Whether a value can be written as JSON."""
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True


def duration(cache: dict[str, Any], begin: float, key: str) -> float:
    """Seconds since `begin` (of `time.time()`), noted in a list of the cache."""
    seconds = time.time() - begin
    cache.setdefault(key, []).append(seconds)
    return seconds


def clean_recursive(obj: Any) -> None:
    """Make what JSON does not know, in dicts and in lists of dicts, texts; in place."""
    if not isinstance(obj, dict):
        return
    for key, value in obj.items():
        if isinstance(value, dict):
            clean_recursive(value)
        elif isinstance(value, list) and not jsonable(value):
            for one in value:
                clean_recursive(one)
            obj[key] = [one if jsonable(one) else str(one) for one in value]
        elif not jsonable(value):
            obj[key] = str(value)


def save_cache(cache: Mapping[str, Any], log_dir: str | Path) -> None:
    """Write the cache to `logs.json`."""
    content = json.loads(json.dumps(dict(cache), default=str))
    write_atomically(Path(log_dir) / "logs.json", json.dumps(content).encode())


def save_scores(cache: Mapping[str, Any], log_dir: str | Path, file_keys: Sequence[str] = ()) -> None:
    """Write tables of the cache, each to `KEY.csv` under the log's header."""
    header = cache.get("log_header", "")
    for key in file_keys:
        lines = [",".join(map(str, line)) if isinstance(line, list | tuple) else str(line) for line in cache[key]]
        text = "\n".join([",".join(header) if isinstance(header, list) else str(header), *lines]) + "\n"
        write_atomically(Path(log_dir) / f"{key}.csv", text.encode())


def performance_improved_(epoch: int, score: float, cache: dict[str, Any]) -> bool:
    """Whether a score is better than `best_val_score` of the cache; if so, it is noted there with its epoch."""
    delta, best = cache.get("score_delta", score_delta), cache["best_val_score"]
    better = score > best + delta if cache["metric_direction"] == "maximize" else score < best - delta
    if better:
        cache.update(best_val_epoch=epoch, best_val_score=score)
    return bool(better)


def stop_training_(epoch: int, cache: Mapping[str, Any]) -> bool:
    """Whether more epochs than `patience` have passed since the best one."""
    patience = cache.get("patience")
    return bool(epoch - cache["best_val_epoch"] > (cache["epochs"] if patience is None else patience))
