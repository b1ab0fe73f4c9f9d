"""Listing the components that there are, with their arguments and defaults."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from weft.config.annotations import described
from weft.config.catalog import SOURCES, may_be, members, module_if_there
from weft.config.component import import_path
from weft.config.namespace import Namespace, defined_names
from weft.config.signatures import annotations_of, describe, parameters_of
from weft.config.supplied import MEANINGS, supplied


@dataclass(frozen=True, slots=True)
class ArgumentInfo:
    """An argument of a component: its name, type in words, default as text, and whether it must be written."""

    name: str
    kind: str
    default: str
    required: bool


@dataclass(frozen=True, slots=True)
class ComponentInfo:
    """A component.

    Args:
        name: what to write in a file.
        kind: one of `weft.config.KINDS`.
        origin: "patch", "weft", "monai" or "torch".
        path: import path.
        summary: first line of its documentation.
        arguments: what it takes.
    """

    name: str
    kind: str
    origin: str
    path: str
    summary: str
    arguments: list[ArgumentInfo] = field(default_factory=list)


def components_of(kind: str, namespace: Namespace | None = None) -> list[ComponentInfo]:
    """Every component of a kind, in look-up order; a name that an earlier place has is not listed again.

    Args:
        kind: one of `weft.config.KINDS`.
        namespace: holds the patches to list first.
    """
    listed: dict[str, ComponentInfo] = {}
    seen: set[int] = set()
    for name, origin, value in _candidates(kind, namespace or Namespace()):
        if name not in listed and id(value) not in seen:  # a class that a registry names is listed by that name
            listed[name] = _info(name, kind, origin, value)
            seen.add(id(value))
    return list(listed.values())


def _candidates(kind: str, namespace: Namespace) -> Iterator[tuple[str, str, Any]]:
    for module in namespace.modules():
        own = [(name, getattr(module, name)) for name in defined_names(module)]
        yield from ((name, "patch", value) for name, value in own if may_be(value, kind))
    for source in SOURCES[kind]:
        module_found = module_if_there(source.module)
        if module_found is None:
            continue
        origin = source.module.partition(".")[0]
        yield from ((name, origin, entry) for name, entry in getattr(module_found, source.registry or "", {}).items())
        yield from ((name, origin, value) for name, value in members(source, module_found))


def _info(name: str, kind: str, origin: str, value: Any) -> ComponentInfo:
    if not callable(value):  # an entry of a registry that describes itself, as Weft's metrics do
        defaults = getattr(value, "arguments", {})
        arguments = [ArgumentInfo(key, "", describe(default), False) for key, default in defaults.items()]
        return ComponentInfo(name, kind, origin, name, str(getattr(value, "meaning", "")), arguments)
    summary = (inspect.getdoc(value) or "").strip().partition("\n")[0]
    return ComponentInfo(name, kind, origin, import_path(value), summary, _arguments(value, kind))


def _arguments(value: Any, kind: str) -> list[ArgumentInfo]:
    annotations = annotations_of(value)
    from_weft = supplied(kind, value, (), MEANINGS)
    found = []
    for name, parameter in (parameters_of(value, kind) or {}).items():
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        has_default = parameter.default is not parameter.empty
        text = from_weft.get(name) or (describe(parameter.default) if has_default else "")
        annotation = described(annotations[name]) if name in annotations else ""
        required = not has_default and name not in from_weft
        found.append(ArgumentInfo(name, annotation, text, required))
    return found
