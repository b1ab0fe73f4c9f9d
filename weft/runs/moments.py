"""What the runs of one command share (installed packages, code, the repository's state) is looked at once for all."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar, cast

Function = TypeVar("Function", bound=Callable[..., Any])

_kept: ContextVar[dict[tuple[Any, ...], Any] | None] = ContextVar("weft_moment", default=None)


@contextmanager
def one_moment() -> Iterator[None]:
    """Inside, functions marked by `looked_at_once` answer what they answered first, with the same arguments.

    For the sites of a study and the folds of a run: without it each would read the same hundreds of files again.
    """
    if _kept.get() is not None:  # a study of several folds: the outer moment holds
        yield
        return
    token = _kept.set({})
    try:
        yield
    finally:
        _kept.reset(token)


def looked_at_once(function: Function) -> Function:
    """Mark a function of hashable arguments, whose answer nobody changes: within one moment it is called once."""

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        kept = _kept.get()
        if kept is None:
            return function(*arguments)
        key = (function, *arguments)
        if key not in kept:
            kept[key] = function(*arguments)
        return kept[key]

    return cast("Function", call)
