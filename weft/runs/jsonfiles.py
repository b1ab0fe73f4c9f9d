"""JSON files of a run: valid for every reader (jq, browsers), written whole."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from weft.errors import RunDirectoryError, UsageError
from weft.runs.files import write_atomically


def write_json(path: Path, value: object) -> None:
    """Write `value` as JSON, atomically.

    JSON has no NaN and no infinity: NaN is written as null, the infinities as "Infinity" and "-Infinity".

    Args:
        path: the file.
        value: dicts, lists, tuples, sets, paths, text, booleans and numbers (NumPy's and tensors too).

    Raises:
        UsageError: something in `value` is none of these.
        RunDirectoryError: the disk refuses; the old file is kept.
    """
    text = json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False)
    write_atomically(path, (text + "\n").encode("utf-8"))


def read_json(path: Path) -> Any:
    """Read a JSON file of a run.

    Raises:
        RunDirectoryError: it is missing, unreadable or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RunDirectoryError(f"{path} does not exist", "is it a run, and did it get that far?") from error
    except OSError as error:
        raise RunDirectoryError(f"cannot read {path}: {error.strerror}", "check the permissions of the run") from error
    except ValueError as error:
        raise RunDirectoryError(f"{path} is not valid JSON: {error}", "restore it, or remove it and resume") from error


def plain(value: object) -> Any:
    """`value` made of dicts, lists, text and finite numbers only, as `write_json` writes it."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        return None if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return [plain(item) for item in sorted(value, key=str)]
    if isinstance(value, Path):
        return str(value)
    tolist = getattr(value, "tolist", None)  # NumPy numbers and arrays, tensors
    if callable(tolist):
        return plain(tolist())
    raise UsageError(f"{value!r} cannot be written as JSON", "give numbers, text, lists and dicts")
