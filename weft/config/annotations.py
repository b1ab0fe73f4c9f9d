"""Whether a plain value (number, text, list, mapping) can be what a type annotation asks for.

Only clear contradictions count: where an annotation is not fully understood, every value is taken to fit.
"""

from __future__ import annotations

import collections.abc
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, Union, get_args, get_origin

from weft.config.hints import did_you_mean, shown
from weft.config.yamlfile import plain_value

_LISTS = (list, tuple, collections.abc.Sequence, collections.abc.Iterable, collections.abc.Collection, set, frozenset)
_MAPPINGS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)
_PLAIN = (bool, int, float, str, list, tuple, dict, type(None))


def mismatch(annotation: Any, value: Any) -> tuple[str, str] | None:
    """A message and hint when a value contradicts an annotation; None when it fits or may fit.

    Args:
        annotation: resolved annotation of a parameter, e.g. `float | None`.
        value: the argument as configured; objects other than plain values always fit.
    """
    if not isinstance(value, _PLAIN) or fits(annotation, value):
        return None
    literals = [option for option in _options(annotation) if get_origin(option) is Literal]
    choices = [choice for option in literals for choice in get_args(option)]
    hint = did_you_mean(value, [choice for choice in choices if isinstance(choice, str)]) if choices else ""
    if isinstance(value, str) and isinstance(plain_value(value), int | float) and fits(annotation, plain_value(value)):
        hint = f"without quotes: {value}"
    return f"expected {described(annotation)}, found {shown(value)}", hint


def fits(annotation: Any, value: Any) -> bool:
    """Whether a plain value may be what the annotation asks for."""
    origin = get_origin(annotation)
    if origin is typing.Annotated:
        return fits(get_args(annotation)[0], value)
    if origin in (Union, types.UnionType):
        return any(fits(option, value) for option in get_args(annotation))
    if origin is Literal:
        return any(type(choice) is type(value) and choice == value for choice in get_args(annotation))
    if annotation in (None, type(None)):
        return value is None
    if annotation is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if annotation in (bool, str):
        return isinstance(value, annotation)
    if annotation in _LISTS or origin in _LISTS:
        return _fits_list(origin or annotation, get_args(annotation), value)
    if annotation in _MAPPINGS or origin in _MAPPINGS:
        return (
            isinstance(value, Mapping) and all(fits(get_args(annotation)[1], child) for child in value.values())
            if len(get_args(annotation)) == 2
            else isinstance(value, Mapping)
        )
    if _is_tensor(annotation):
        return isinstance(value, int | float | list | tuple) and not isinstance(value, bool)
    return True


def _fits_list(kind: Any, items: tuple[Any, ...], value: Any) -> bool:
    if isinstance(value, str):  # text is a sequence of text, a mapping is iterable
        return kind not in (list, tuple, set, frozenset) and (not items or fits(items[0], value))
    if isinstance(value, Mapping):
        return kind in (collections.abc.Iterable, collections.abc.Collection)
    if not isinstance(value, list | tuple):
        return False
    if kind is tuple and len(items) > 1 and items[-1] is not Ellipsis:  # tuple[int] is often meant as any number
        return len(items) == len(value) and all(fits(item, child) for item, child in zip(items, value))
    return not items or all(fits(items[0], child) for child in value)


def _is_tensor(annotation: Any) -> bool:
    path = f"{getattr(annotation, '__module__', '')}.{getattr(annotation, '__qualname__', '')}"
    return path in ("torch.Tensor", "numpy.ndarray")


def wants_tensor(annotation: Any) -> bool:
    """Whether a torch tensor is the only thing but None that the annotation names."""
    options = [option for option in _options(annotation) if option is not type(None)]
    return len(options) == 1 and _is_tensor(options[0]) and options[0].__module__ == "torch"


def _options(annotation: Any) -> tuple[Any, ...]:
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(option for part in get_args(annotation) for option in _options(part))
    return (annotation,)


_WORDS = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    type(None): "null",
    list: "a list",
    tuple: "a list",
    dict: "a mapping",
}


def described(annotation: Any) -> str:
    """An annotation in words."""
    options = _options(annotation)
    if len(options) > 1:
        return " or ".join(dict.fromkeys(described(option) for option in options))
    if get_origin(annotation) is Literal:
        return "one of " + ", ".join(str(choice) for choice in get_args(annotation))
    origin, items = get_origin(annotation), get_args(annotation)
    if origin in _LISTS:
        inner = [item for item in items if item is not Ellipsis]
        if origin is tuple and items and items[-1] is not Ellipsis:
            return f"a list of {len(inner)}: {', '.join(described(item) for item in inner)}"
        return f"a list, each {described(inner[0])}" if inner else "a list"
    if annotation in _WORDS or origin in _MAPPINGS:
        return _WORDS.get(annotation, "a mapping")
    return getattr(annotation, "__name__", str(annotation))
