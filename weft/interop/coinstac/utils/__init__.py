"""Helpers under the names of coinstac-dinunet's."""

from __future__ import annotations

import json
from typing import Any


def jsonable(value: Any) -> bool:
    """Whether a value can be written as JSON."""
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True
