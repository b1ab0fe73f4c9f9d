"""Comparing the arguments of a component with the signature of what it names, before anything is built."""

from __future__ import annotations

import inspect
import math
import typing
from collections.abc import Mapping
from enum import Enum
from typing import Any, Literal, get_origin

import yaml

from weft.config.annotations import fits, mismatch
from weft.config.component import Component
from weft.config.hints import did_you_mean, listing
from weft.errors import Problem

# How many arguments Weft supplies itself by position; for those by name see `weft.config.supplied`.
BY_POSITION: Mapping[str, int] = {"optimizer": 1, "scheduler": 1}
# Functions of these kinds are the component itself: the file's arguments are bound, the first ones come with each call.
CALLED_LATER: Mapping[str, int] = {"loss": 2, "metric": 2, "transform": 1}
_LONGEST = 60  # characters of a default value


def signature_of(target: Any) -> inspect.Signature | None:
    """The signature of a class or function as it is called; None where Python cannot tell it (some compiled code)."""
    try:
        return inspect.signature(target)
    except (ValueError, TypeError):
        return None


def parameters_of(target: Any, kind: str) -> dict[str, inspect.Parameter] | None:
    """The parameters that a configuration may set, by name, without those that Weft fills by position."""
    signature = signature_of(target)
    if signature is None:
        return None
    parameters = list(signature.parameters.values())
    later = CALLED_LATER.get(kind, 0) if inspect.isroutine(target) else BY_POSITION.get(kind, 0)
    return {parameter.name: parameter for parameter in parameters[later:]}


def check_arguments(
    component: Component, target: Any, kind: str, supplied: frozenset[str] = frozenset()
) -> list[Problem]:
    """Unknown and missing arguments, and values of a wrong simple type; key paths start at the component.

    Args:
        component: what is written.
        target: the class or function that it names.
        kind: the component's kind.
        supplied: names of further arguments that Weft gives.
    """
    parameters = parameters_of(target, kind)
    if parameters is None:
        return []
    path, name = component.name, component.name.rpartition(".")[2]
    named = {
        key: value
        for key, value in parameters.items()
        if value.kind in (value.POSITIONAL_OR_KEYWORD, value.KEYWORD_ONLY)
    }
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    annotations = annotations_of(target)
    problems = []
    for argument, value in component.arguments.items():
        if argument not in named and not takes_any:
            hint = did_you_mean(argument, named) if named else f"{name} takes no arguments"
            problems.append(Problem(f"{name} has no argument {argument!r}", hint, (path, argument)))
        elif argument in named:
            problem = _type_problem(argument, value, named[argument], annotations)
            if problem is not None:
                problems.append(Problem(problem[0], problem[1], (path, argument)))
    given = {*component.arguments, *supplied}
    if kind == "sampler":  # its first argument is the split, unless the file gives it (weights, for instance)
        given.update(list(named)[:1])
    missing = [key for key, value in named.items() if value.default is value.empty and key not in given]
    if missing:
        what = "argument" if len(missing) == 1 else "arguments"
        hint = f"write {path if component.target is None else name}: {{{', '.join(f'{key}: ...' for key in missing)}}}"
        if unused := [key for key in named if key not in component.arguments and key not in missing]:
            hint += "; " + listing(unused).replace("valid: ", "it also takes ")
        problems.append(Problem(f"{name} needs the {what} {', '.join(missing)}", hint, (path,)))
    return problems


def annotations_of(target: Any) -> dict[str, Any]:
    """Annotations of the call's parameters, resolved one by one: one that cannot be resolved hides no other."""
    function = getattr(target, "__init__") if isinstance(target, type) else target  # noqa: B009 - unsound for mypy otherwise
    function = inspect.unwrap(function)
    try:
        return typing.get_type_hints(function)
    except (NameError, TypeError, AttributeError, SyntaxError):
        pass
    found = {}
    for name, annotation in getattr(function, "__annotations__", {}).items():
        holder = type("Holder", (), {"__annotations__": {name: annotation}})
        try:
            found.update(typing.get_type_hints(holder, globalns=getattr(function, "__globals__", {})))
        except (NameError, TypeError, AttributeError, SyntaxError):
            continue
    return found


def _type_problem(
    argument: str, value: Any, parameter: inspect.Parameter, annotations: Mapping[str, Any]
) -> tuple[str, str] | None:
    if argument not in annotations or is_reference(value):
        return None
    default, annotation = parameter.default, annotations[argument]
    # An annotation that its own default contradicts is not to be trusted; of words it may tell which there are.
    trusted = isinstance(value, str) and get_origin(annotation) is Literal and fits(annotation, default)
    if default is not parameter.empty and default is not None and type(value) is type(default) and not trusted:
        return None
    return mismatch(annotation, value)


def is_reference(value: Any) -> bool:
    """Whether an argument is `{component: ...}` or `{object: ...}`, to be replaced by an object before the call."""
    return isinstance(value, Mapping) and len(value) == 1 and next(iter(value)) in ("component", "object")


def describe(value: Any) -> str:
    """A default value as somebody would write it in a file; what cannot be written there, by its name."""
    text = _written(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def _written(value: Any) -> str:
    if isinstance(value, Enum):
        return _written(value.value)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float):
        unwritten = {"inf": ".inf", "-inf": "-.inf", "nan": ".nan"}
        return unwritten.get(repr(value), repr(value))
    if isinstance(value, str):  # with quotes only where it would be read as something else
        return yaml.safe_dump([value], default_flow_style=True, width=math.inf, allow_unicode=True).strip()[1:-1]
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_written, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_written(key)}: {_written(entry)}' for key, entry in value.items())}}}"
    return str(getattr(value, "__name__", None) or repr(value))
