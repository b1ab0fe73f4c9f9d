"""Errors of the schema, told in the words of the experiment file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from weft.config.document import Document, KeyPath
from weft.config.federation import SITE_NAME
from weft.config.fields import Section, meanings
from weft.config.hints import did_you_mean, listing, nearest, shown
from weft.config.yamlfile import plain_value
from weft.errors import Problem

_EXPECTED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "dict_type": "'key: value' pairs",
    "model_type": "'key: value' pairs",
    "model_attributes_type": "'key: value' pairs",
    "path_type": "a path",
    "finite_number": "a finite number",
}
_BOUNDS = {
    "greater_than": ("a number greater than {}", "gt"),
    "greater_than_equal": ("a number of at least {}", "ge"),
    "less_than": ("a number less than {}", "lt"),
    "less_than_equal": ("a number of at most {}", "le"),
}


def schema_problems(
    error: ValidationError, root: type[BaseModel], document: Document, prefix: KeyPath = ()
) -> list[Problem]:
    """The problems of a failed validation, each with its key path and place.

    Args:
        error: what pydantic found.
        root: the class that was validated.
        document: what was written, for the places.
        prefix: key path of the section that was validated.
    """
    problems = []
    for details in error.errors(include_url=False):
        local = _path(details["loc"])
        problem = _translate(details, local, root)
        on_key = details["type"] in ("extra_forbidden", "missing") or details["loc"][-1:] == ("[key]",)
        problems.append(document.at(Problem(problem.message, problem.hint, prefix + local), key=on_key))
    return problems


def _path(location: tuple[int | str, ...]) -> KeyPath:
    """The key path of an error: without the marks for forms of a union and for keys."""
    return tuple(part for part in location if not (isinstance(part, str) and part[:1] in "<["))


def _translate(details: ErrorDetails, path: KeyPath, root: type[BaseModel]) -> Problem:
    kind, value, context = details["type"], details["input"], details.get("ctx", {})
    if kind == "extra_forbidden":
        return Problem(f"unknown key {str(path[-1])!r}", did_you_mean(path[-1], section_keys(root, path[:-1])))
    if kind == "missing":
        return Problem(f"the key {path[-1]!r} is missing", f"add '{path[-1]}: ...'{_describe(root, path)}")
    if kind == "literal_error" or kind == "enum":
        allowed = _allowed(context)
        near = nearest(str(value), allowed)
        hint = f"did you mean '{near}'?" if near else ""
        return Problem(f"expected one of {', '.join(allowed)}, found {shown(value)}", hint)
    if kind in _BOUNDS:
        text, bound = _BOUNDS[kind]
        return Problem(f"expected {text.format(format(context[bound], 'g'))}, found {shown(value)}")
    if kind == "string_pattern_mismatch":
        name = context.get("pattern") == SITE_NAME
        hint = "letters, digits, - and _, beginning with a letter or digit: it names a folder" if name else ""
        return Problem(f"{shown(value)} does not fit", hint or _describe(root, path).strip(" ()"))
    if kind in ("string_too_short", "string_too_long"):
        return Problem(f"expected {_lengths(context)}, found {shown(value)}")
    if kind in _EXPECTED:
        expected = _EXPECTED[kind]
        return Problem(f"expected {expected}, found {shown(value)}", _type_hint(kind, value, root, path))
    hint = str(context.get("hint", ""))
    return Problem(details["msg"], hint)


def _allowed(context: Mapping[str, Any]) -> list[str]:
    text = str(context.get("expected", ""))
    return [part.strip().strip("'") for part in text.replace(" or ", ", ").split(",") if part.strip()]


def _lengths(context: Mapping[str, Any]) -> str:
    low, high = context.get("min_length"), context.get("max_length")
    return "one character" if high == 1 else f"at least {low} character(s)"


def _type_hint(kind: str, value: Any, root: type[BaseModel], path: KeyPath) -> str:
    convert: Callable[[str], Any] = plain_value
    read = convert(value) if isinstance(value, str) else None
    if kind.startswith(("int", "float")) and isinstance(read, int | float) and not isinstance(read, bool):
        return f"a number has no quotes: {value}" if kind.startswith("float") or isinstance(read, int) else ""
    if kind.startswith("int") and isinstance(value, float) and value.is_integer():
        return f"write {int(value)}"
    if kind.startswith("bool"):
        word = str(value).lower()
        return {"yes": "write true", "on": "write true", "no": "write false", "off": "write false"}.get(word, "")
    if kind == "string_type" and isinstance(value, int | float):
        return f"text that looks like a number needs quotes: '{value}'"
    if kind == "list_type" and isinstance(value, str | int | float):
        return f"write [{value}]"
    if kind in ("model_type", "model_attributes_type"):
        return listing(section_keys(root, path))
    if value is None:
        return "write a value, or remove the key"
    if kind == "dict_type":
        return _describe(root, path).strip(" ()")
    return ""


def _describe(root: type[BaseModel], path: KeyPath) -> str:
    section = section_class(root, path[:-1])
    if section is None or not issubclass(section, Section):
        return ""
    for name, field in section.model_fields.items():
        if path[-1] in (name, field.alias) and (text := meanings(section).get(name, "").rstrip(".")):
            return f" ({text.split(': ')[0] if len(text) > 90 else text})"
    return ""


def section_keys(root: type[BaseModel], path: KeyPath) -> list[str]:
    """The keys that a section of the experiment may have."""
    section = section_class(root, path)
    return [field.alias or name for name, field in section.model_fields.items()] if section is not None else []


def section_class(root: type[BaseModel], path: KeyPath) -> type[BaseModel] | None:
    """The class of the section at a key path; None where there is no section."""
    section: type[BaseModel] | None = root
    rest = list(path)
    while rest and section is not None:
        segment = rest.pop(0)
        found = [f for name, f in section.model_fields.items() if segment in (name, f.alias)]
        if not found:
            return None
        section, in_mapping = _section_in(found[0].annotation)
        if in_mapping and rest:
            rest.pop(0)
    return section


def _section_in(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    """The section class inside an annotation such as `TableConfig | None`, and whether it is the value of a dict."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    for argument in get_args(annotation):
        section, in_mapping = _section_in(argument)
        if section is not None:
            return section, in_mapping or get_origin(annotation) is dict
    return None, False
