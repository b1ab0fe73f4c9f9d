"""Calling what users of other systems wrote: where it fails, the error names file and line."""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path
from types import FunctionType
from typing import Any

from weft.errors import DataError, WeftError

SHOWN = "`--traceback` shows the way there"
_WEFT = Path(__file__).resolve().parents[1]
_LIBRARIES = [Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "purelib", "platlib")]


def is_users(file: str) -> bool:
    """Whether a file of a traceback is the user's, not Weft's nor a library's."""
    if file.startswith("<"):
        return False
    path = Path(file).resolve()
    return not any(path.is_relative_to(folder) for folder in (_WEFT, *_LIBRARIES))


def file_of(value: object) -> str:
    """The file that a class or function of a user comes from, for messages."""
    kind = value if isinstance(value, type | FunctionType) else type(value)
    module = sys.modules.get(kind.__module__)
    return str(getattr(module, "__file__", None) or kind.__module__)


def called(owner: object, name: str, function: Any, *arguments: Any, hint_for_arguments: str = "", **named: Any) -> Any:
    """Call something that the user wrote.

    Args:
        owner: the class, or an object of it, that has it.
        name: what it is called, for messages.
        function: what is called.
        arguments, named: what it is given.
        hint_for_arguments: what to do where arguments do not fit.

    Raises:
        DataError: with the error's own words, and where it happened.
    """
    try:
        return function(*arguments, **named)
    except WeftError:
        raise
    except (MemoryError, RecursionError):
        raise
    except Exception as error:
        if type(error).__name__ == "OutOfMemoryError":
            raise
        hint = str(getattr(error, "hint", "") or SHOWN)
        if hint_for_arguments and isinstance(error, TypeError) and "argument" in str(error):
            hint = hint_for_arguments
        raise DataError(f"{_place(error, owner)}: {name} failed: {type(error).__name__}: {error}", hint) from error


def _place(error: BaseException, owner: object) -> str:
    """The innermost line that is the user's, or of the owner's file."""
    file = file_of(owner)
    place, trace = file, error.__traceback__
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if name == file or is_users(name):
            place = f"{name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place
