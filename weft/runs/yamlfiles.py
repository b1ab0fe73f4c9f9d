"""YAML files of a run, read fast."""

from __future__ import annotations

from typing import Any

import yaml

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # both are safe; the one in C is ten times faster


def parse_yaml(text: str) -> Any:
    """The content of a YAML text: plain values only, no objects.

    Raises:
        yaml.YAMLError: it is not valid.
    """
    return yaml.load(text, _LOADER)  # noqa: S506 -- a safe loader
