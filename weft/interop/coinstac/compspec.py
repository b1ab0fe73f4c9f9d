"""A compspec.json, COINSTAC's description of a computation, from the arguments that its scripts use. Nothing is run."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from weft.errors import ConfigError, UsageError
from weft.interop.coinstac.arguments import DEFAULTS
from weft.interop.coinstac.config.keys import AGG_Engine, Key, Mode

VERSION = 2
_SITES_OWN = ("gpus", "pin_memory", "num_workers", "labels_file", "data_dir", "split_dir", "pretrained_path",
              "dataloader_args")  # fmt: skip
_CHOICES: Mapping[str, Sequence[str]] = {
    "mode": [Mode.TRAIN.value, Mode.TEST.value],
    "agg_engine": [engine.value for engine in AGG_Engine],
    "metric_direction": ["maximize", "minimize"],
}
# Of arguments that may be left out.
_TYPES = dict.fromkeys(("load_limit", "num_folds", "patience"), "number") | dict.fromkeys(
    ("gpus", "split_ratio", "pretrain_args", "dataloader_args"), "object"
)
# What the package itself keeps in the cache, which nobody is asked for.
_INTERNAL = {key.value for key in Key} | {
    "split_ix", "split_file", "splits", "log_dir", "nn", "optimizer", "device", "dataset", "cursor", "best_nn_state",
    "latest_nn_state", "frozen_args", "pretrain", "folds", "fold", "epoch", "data_size", "weft",
}  # fmt: skip


def compspec(
    scripts: Sequence[Path], *, name: str, image: str = "", inputspec: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The description of a computation.

    Args:
        scripts: files of the user, of which every argument is noted that is read from the cache or given to
            `COINNLocal`.
        name: what people see.
        image: the container's.
        inputspec: values of a site that stand for defaults where there are no others.

    Raises:
        UsageError: a script is missing.
        ConfigError: a script is no Python.
    """
    given, used = _arguments_of(scripts)
    values: dict[str, Any] = dict.fromkeys([*used, *given]) | dict(DEFAULTS) | dict(inputspec or {})
    values |= {key: value for key, value in given.items() if value is not None}
    values["load_limit"] = None if values["load_limit"] == DEFAULTS["load_limit"] else values["load_limit"]
    wanted = [key for key in values if key not in _INTERNAL]
    identity = "".join(letter if letter.isalnum() else "-" for letter in name.lower())
    node = {"type": "docker", "dockerImage": image or identity, "command": ["python"]}
    return {
        "meta": {
            "name": name, "id": identity, "version": "v1.0.0", "repository": "", "description": name,
            "compspecVersion": VERSION,
        },
        "computation": {
            **node,
            "remote": node,
            "input": {key: _entry(key, values[key], order) for order, key in enumerate(wanted, 1)},
            "output": {},
            "display": {"type": "string"},
        },
    }  # fmt: skip


def dumps(spec: Mapping[str, Any]) -> str:
    """The description as the text of its file."""
    return json.dumps(spec, indent=2) + "\n"


def _entry(key: str, value: Any, order: int) -> dict[str, Any]:
    choices = _CHOICES.get(key)
    entry: dict[str, Any] = {
        "label": key.replace("_", " ").capitalize(),
        "type": "select" if choices else _TYPES.get(key) or _type(value),
        "source": "member" if key in _SITES_OWN else "owner",
        "order": order,
    }
    if choices:
        entry["values"] = list(choices)
    if value is not None:
        entry["default"] = list(value) if isinstance(value, tuple) else value
    return entry


def _type(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    return "object" if isinstance(value, dict | list | tuple) else "string"


def _arguments_of(scripts: Sequence[Path]) -> tuple[dict[str, Any], list[str]]:
    """Values that `COINNLocal` is given, and names that are looked up in a cache, in files and what they import."""
    given: dict[str, Any] = {}
    used: list[str] = []
    for file in _with_neighbours(scripts):
        for node in ast.walk(_parsed(file)):
            if isinstance(node, ast.Call) and _name(node.func) == "COINNLocal":
                given |= _literals(node)
            used += [key for key in _looked_up(node) if key not in used]
    return given, used


def _literals(call: ast.Call) -> dict[str, Any]:
    """Keyword arguments that are plain values."""
    found = {}
    for keyword in call.keywords:
        if keyword.arg is None or keyword.arg in ("cache", "input", "state"):
            continue
        try:
            found[keyword.arg] = ast.literal_eval(keyword.value)
        except ValueError:
            found[keyword.arg] = None  # it is computed: its name is known, its value is not
    return found


def _looked_up(node: ast.AST) -> Iterator[str]:
    """`cache["key"]`, `cache.get("key")` and `self.path(..., cache_key)`."""
    key: ast.expr | None = None
    if isinstance(node, ast.Subscript) and _name(node.value) == "cache":
        key = node.slice
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
        if node.func.attr in ("get", "setdefault") and _name(node.func.value) == "cache":
            key = node.args[0]
        elif node.func.attr == "path":
            named = [word.value for word in node.keywords if word.arg == "cache_key"]
            key = (named or node.args[-1:])[0]
    if isinstance(key, ast.Constant) and isinstance(key.value, str):
        yield key.value


def _name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _with_neighbours(scripts: Sequence[Path]) -> list[Path]:
    """The scripts, and the files beside them that they import."""
    found: list[Path] = []
    waiting = list(scripts)
    while waiting:
        file = waiting.pop(0)
        if file.resolve() in [one.resolve() for one in found]:
            continue
        found.append(file)
        for node in ast.walk(_parsed(file)):
            names = [node.module] if isinstance(node, ast.ImportFrom) else []
            names += [one.name for one in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                path = file.parent.joinpath(*(name or "").split("."))
                waiting += [one for one in (path.with_suffix(".py"), path / "__init__.py") if name and one.is_file()]
    return found


def _parsed(file: Path) -> ast.Module:
    if not file.is_file():
        raise UsageError(f"there is no script {file}", "name the scripts of the site and the remote")
    try:
        return ast.parse(file.read_text(encoding="utf-8"), str(file))
    except SyntaxError as error:
        raise ConfigError(f"{file}:{error.lineno}: {error.msg}", "mend the script") from None
