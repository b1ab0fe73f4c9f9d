"""A component: a name with keyword arguments that becomes an object (a network, an optimizer, a transform, ...)."""

from __future__ import annotations

import functools
import inspect
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from weft.config.patches import MAIN, own_file_of

_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


@dataclass(frozen=True, slots=True)
class Place:
    """Where something is written. Line and column count from 1; None where there is no such thing."""

    file: Path | str | None = None
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        return ":".join(str(part) for part in (self.file, self.line, self.column) if part is not None)


@dataclass(frozen=True, slots=True, eq=False)
class Component:
    """A name or import path with keyword arguments, or a Python object, that Weft turns into an object.

    In YAML it is written `Name`, `Name: {argument: value}` or `package.module.Name: {argument: value}`. In Python it
    may also be the class, function or finished object itself, a `functools.partial`, or
    `Component.of(Class, argument=value)`.

    Args:
        name: a name that the look-up order knows (patches, Weft, MONAI, torch) or an import path.
        arguments: keyword arguments. `{component: {Name: {...}}}` as a value is built too,
            `{object: package.module.name}` stands for what has that import path (a class or function that is passed
            on, not called).
        target: the class, function or finished object itself, when it came from Python.
        place: where the component is written, for messages.
    """

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
    target: object | None = None
    place: Place | None = field(default=None, repr=False)

    @classmethod
    def of(cls, target: object, /, **arguments: Any) -> Component:
        """Make a component from a name, class, function or object, with its keyword arguments."""
        made = cls.parse(target)
        return cls(made.name, {**made.arguments, **arguments}, made.target, made.place)

    @property
    def is_finished(self) -> bool:
        """Whether the target is an object that needs no building (neither a class nor a function)."""
        return self.target is not None and not isinstance(self.target, type) and not inspect.isroutine(self.target)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Component):
            return NotImplemented
        if self.is_finished or other.is_finished:
            return self.target is other.target
        return self.name == other.name and _comparable(self.arguments) == _comparable(other.arguments)

    __hash__ = None  # type: ignore[assignment]  # arguments are a dict

    @classmethod
    def parse(cls, value: object) -> Component:
        """Read a component from any of its written forms; raises PydanticCustomError (a ValueError) when it is none."""
        if isinstance(value, Component):
            return value
        if isinstance(value, str):
            return cls(_valid_name(value))
        if isinstance(value, Mapping):
            return cls._from_mapping(value)
        if value is None or isinstance(value, bool | int | float | list | tuple | set | bytes):
            raise PydanticCustomError(
                "component", "expected a component, found {found}", {"found": _short(value), "hint": _FORMS}
            )
        return cls._from_object(value)

    @classmethod
    def _from_mapping(cls, value: Mapping[Any, Any]) -> Component:
        if len(value) != 1:
            names = ", ".join(str(key) for key in value) or "none"
            raise PydanticCustomError(
                "component",
                "a component has exactly one name, found {count}: {names}",
                {"count": len(value), "names": names, "hint": "put the arguments under the name, " + _FORMS},
            )
        ((key, arguments),) = value.items()
        made = cls._from_object(key) if callable(key) else cls(_valid_name(key))
        if arguments is None:
            return made
        if not isinstance(arguments, Mapping):
            raise PydanticCustomError(
                "component",
                "the arguments of {name} must be 'argument: value' pairs, found {found}",
                {"name": made.name, "found": _short(arguments), "hint": _FORMS},
            )
        wrong = [key for key in arguments if not isinstance(key, str)]
        if wrong:
            raise PydanticCustomError(
                "component",
                "the arguments of {name} need names, found {found}",
                {"name": made.name, "found": ", ".join(_short(key) for key in wrong), "hint": _FORMS},
            )
        return cls(made.name, {**made.arguments, **arguments}, made.target)

    @classmethod
    def _from_object(cls, value: object) -> Component:
        if isinstance(value, functools.partial):
            if value.args:
                raise PydanticCustomError(
                    "component",
                    "a partial may hold keyword arguments only, found {found}",
                    {"found": _short(value.args)},
                )
            inner = cls._from_object(value.func)
            return cls(inner.name, {**inner.arguments, **value.keywords}, inner.target)
        return cls(import_path(value), {}, value)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(cls.parse)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return cls.written_schema()

    @staticmethod
    def written_schema() -> JsonSchemaValue:
        """The JSON schema of a component's written forms."""
        arguments = {"type": ["object", "null"], "description": "keyword arguments"}
        named = {"type": "object", "minProperties": 1, "maxProperties": 1, "additionalProperties": arguments}
        return {"title": "Component", "anyOf": [{"type": "string", "description": "name or import path"}, named]}


_FORMS = "write 'Name' or 'Name: {argument: value}'"


def import_path(value: object) -> str:
    """The import path of a class or function; of any other object that of its class.

    What a patch, an experiment file or the running program defines has no import path that means anything elsewhere: it
    goes by its bare name. `__main__` stays in the path only of what is typed into a notebook or console.
    """
    if not isinstance(value, type) and not (inspect.isroutine(value) and hasattr(value, "__qualname__")):
        value = type(value)
    if own_file_of(value) is not None:
        return value.__qualname__
    module = value.__module__
    if module == MAIN and (spec := getattr(sys.modules.get(MAIN), "__spec__", None)) is not None:
        module = spec.name  # python -m package.module
    return f"{module}.{value.__qualname__}"


def _comparable(value: Any) -> Any:
    """Arguments in the form in which they are written: lists for tuples, text for paths, import paths for classes."""
    if isinstance(value, Component):
        return {"component": {value.name: _comparable(value.arguments)}}
    if isinstance(value, Mapping):
        plain = {key: _comparable(child) for key, child in value.items()}
        if set(plain) == {"component"} and not isinstance(value["component"], Component):
            try:
                return _comparable(Component.parse(value["component"]))
            except ValueError:
                return plain
        return plain
    if isinstance(value, list | tuple):
        return [_comparable(child) for child in value]
    if isinstance(value, PurePath):
        return value.as_posix()
    if isinstance(value, type) or (inspect.isroutine(value) and hasattr(value, "__qualname__")):
        return {"object": import_path(value)}
    return value


def _valid_name(value: object) -> str:
    if isinstance(value, str) and _NAME.fullmatch(value):
        return value
    raise PydanticCustomError(
        "component", "expected a name or import path, found {found}", {"found": _short(value), "hint": _FORMS}
    )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
