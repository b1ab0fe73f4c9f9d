"""Writing an experiment as plain data and YAML, and the JSON schema for editors."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

import yaml

from weft.config.component import Component, import_path
from weft.config.experiment import Experiment
from weft.config.fields import Section
from weft.config.patches import MAIN
from weft.config.training import ModelConfig
from weft.config.yamlfile import plain_value
from weft.errors import ConfigError


def to_dict(experiment: Experiment) -> dict[str, Any]:
    """The whole experiment, defaults included, as dicts, lists, numbers and text that `load_experiment` reads again.

    Keys that nothing is written for by default (null, an empty list) are left out where that is so. Classes and
    functions are written as import paths; those of a patch or of a Python experiment file by their name, since
    `load_experiment` lists the file under `patches`.

    Raises:
        ConfigError: it holds an object that has no written form.
    """
    return _section(experiment)


def dump_yaml(experiment: Experiment) -> str:
    """The whole experiment, defaults included, as YAML that `load_experiment` reads again."""
    return yaml.dump(to_dict(experiment), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def json_schema() -> dict[str, Any]:
    """The JSON schema of experiment files, for editors that complete and check YAML."""
    schema = Experiment.model_json_schema(by_alias=True)
    component = {"$ref": "#/$defs/Component"}
    model = schema["$defs"]["ModelConfig"]
    named = Component.written_schema()
    schema["$defs"]["Component"] = named
    schema["$defs"]["ModelConfig"] = {
        "title": "ModelConfig",
        "description": model.get("description", ""),
        "anyOf": [model, component],
    }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _section(section: Section) -> dict[str, Any]:
    written = {}
    for name, field in type(section).model_fields.items():
        value = _value(getattr(section, name))
        nothing = value in (None, [], {}) and _value(field.get_default(call_default_factory=True)) == value
        if not nothing:
            written[field.alias or name] = value
    return written


def _value(value: Any) -> Any:
    """A field of the experiment."""
    if isinstance(value, ModelConfig) and value == ModelConfig(component=value.component):
        return _component(value.component)
    if isinstance(value, Section):
        return _section(value)
    if isinstance(value, Component):
        return _component(value)
    if isinstance(value, PurePath):
        return value.as_posix()
    if isinstance(value, dict):
        return {key: _value(child) for key, child in value.items()}
    if isinstance(value, list):
        return [_value(child) for child in value]
    return value


def _component(component: Component) -> Any:
    if component.is_finished:
        raise ConfigError(
            f"a finished {component.name} object cannot be written down",
            f"give the class and its arguments instead: Component.of({component.name.rpartition('.')[2]}, ...)",
        )
    name = component.name if component.target is None else _path_of(component.target)
    arguments = {key: _argument(value) for key, value in component.arguments.items()}
    return {name: arguments} if arguments else name


def _path_of(target: Any) -> str:
    """How a class or function is named in a file: by its import path, or its bare name when a patch has it."""
    name = target.__qualname__
    if "<" in name:
        raise ConfigError(
            f"{name} is defined inside a function, so it cannot be named", "define it at the top level of a file"
        )
    path = import_path(target)
    if path.startswith(f"{MAIN}."):
        raise ConfigError(
            f"{name} was typed into a notebook or console, so a run that is kept could not find it again",
            "move it to a file, and import it from there or list the file under patches:",
        )
    return path


def _argument(value: Any) -> Any:
    """An argument of a component."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int | float):
        return float(value) if isinstance(value, float) else int(value)
    if isinstance(value, PurePath):
        return value.as_posix()
    if type(value).__module__ == "numpy" and getattr(value, "ndim", None) == 0:
        return _argument(value.item())
    if isinstance(value, Component):
        return {"component": _component(value)}
    if isinstance(value, dict):
        return {key: _argument(child) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [_argument(child) for child in value]
    if callable(value) and hasattr(value, "__qualname__"):
        return {"object": _path_of(value)}
    raise ConfigError(
        f"a {import_path(value)} object cannot be written down: {value!r:.60}", "give its class as a component"
    )


_ONE_LINE = 100  # characters of a mapping that is still written in one line


class _Dumper(yaml.SafeDumper):
    """Writes text that would be read as something else in quotes, and short lists in one line."""


def _write_text(dumper: _Dumper, text: str) -> yaml.Node:
    plain = plain_value(text)
    reads_otherwise = not isinstance(plain, str) or text[:1] in "0123456789+-.~<=" or text == ""
    style = "'" if reads_otherwise else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style if text.isprintable() else '"')


def _write_float(dumper: _Dumper, number: float) -> yaml.Node:
    text = {float("inf"): ".inf", float("-inf"): "-.inf"}.get(number, repr(number))
    if "e" in text and "." not in text:
        text = text.replace("e", ".0e", 1)  # YAML 1.1, which other programs read, wants the point
    return dumper.represent_scalar("tag:yaml.org,2002:float", text)


def _write_mapping(dumper: _Dumper, items: dict[Any, Any]) -> yaml.Node:
    flat = not any((isinstance(value, dict) and value) or _is_nested(value) for value in items.values())
    return dumper.represent_mapping("tag:yaml.org,2002:map", items, flow_style=flat and len(repr(items)) < _ONE_LINE)


def _is_nested(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(item, list | dict) and item for item in value)


def _write_list(dumper: _Dumper, items: list[Any]) -> yaml.Node:
    return dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=not _is_nested(items))


_Dumper.add_representer(str, _write_text)
_Dumper.add_representer(float, _write_float)
_Dumper.add_representer(list, _write_list)
_Dumper.add_representer(dict, _write_mapping)
_Dumper.ignore_aliases = lambda self, data: True  # type: ignore[method-assign]
