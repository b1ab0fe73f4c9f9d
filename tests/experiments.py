"""What tests of all rooms do with an experiment as it is written."""

from __future__ import annotations

import copy
from typing import Any


def changed(written: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A copy with entries replaced; a key `a__b` stands for the entry `b` of section `a`, None removes it."""
    written = copy.deepcopy(written)
    for key, value in changes.items():
        *sections, last = key.split("__")
        node = written
        for section in sections:
            node = node.setdefault(section, {})
        if value is None:
            node.pop(last, None)
        else:
            node[last] = value
    return written
