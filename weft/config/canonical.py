"""One text for each value: type-tagged JSON with sorted keys, the same in every process and on every platform."""

from __future__ import annotations

import enum
import json
import math
from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Any

from weft.errors import ConfigError

Encode = Callable[[Any], Any]


def canonical_json(value: Any) -> str:
    """A value of numbers, texts, lists and mappings as canonical JSON.

    Equal texts mean equal values of equal types: 1, 1.0, "1" and true differ, as do 0.0 and -0.0, "" and null, [] and
    {}, and a key with a dot and a nested key. The order of keys does not matter; tuples count as lists, paths as text.

    Raises:
        ConfigError: the value holds NaN, or something that is not plain data.
    """
    return to_text(encode(value, _refuse))


def to_text(encoded: Any) -> str:
    """Encoded data as JSON in ASCII."""
    return json.dumps(encoded, ensure_ascii=True, separators=(",", ":"), allow_nan=False)


def encode(value: Any, other: Encode) -> Any:
    """A value as nested JSON lists that begin with a tag for the type.

    Args:
        value: what to encode.
        other: encodes what is not plain data.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, enum.Enum):
        return other(value)
    if isinstance(value, int):
        return ["i", str(int(value))]
    if isinstance(value, float):
        if math.isnan(value):
            raise ConfigError(
                "NaN has no place in an experiment: it equals nothing, not even itself", "write null or a number"
            )
        return ["f", float(value).hex()]
    if isinstance(value, str):
        return ["s", str(value)]
    if isinstance(value, PurePath):
        return ["s", value.as_posix()]
    if isinstance(value, list | tuple):
        return ["l", [encode(entry, other) for entry in value]]
    if isinstance(value, Mapping):
        pairs = [[encode(key, other), encode(entry, other)] for key, entry in value.items()]
        return ["d", sorted(pairs, key=lambda pair: to_text(pair[0]))]
    if isinstance(value, set | frozenset):
        return ["set", sorted((encode(entry, other) for entry in value), key=to_text)]
    if type(value).__module__ == "numpy" and getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        return encode(value.item(), other)
    return other(value)


def _refuse(value: Any) -> Any:
    raise ConfigError(f"a {type(value).__name__} is not plain data: {value!r}", "use numbers, text, lists and mappings")
