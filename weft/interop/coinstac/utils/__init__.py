"""Helpers under the names of coinstac-dinunet's."""

from __future__ import annotations

import json
import time
from typing import Any


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
