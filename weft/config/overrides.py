"""Overrides from the command line: `training.optimizer.AdamW.lr=3e-4`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from weft.config.component import Component, Place
from weft.config.document import Document, KeyPath
from weft.config.hints import shown
from weft.config.training import MODEL_KEYS, is_long_model
from weft.config.yamlfile import parse_yaml
from weft.errors import Problem

_SEGMENT = re.compile(r'"([^"]*)"|([^."]+)')


def apply_overrides(document: Document, overrides: Sequence[str]) -> None:
    """Write overrides into a document, in order; what is wrong with them is added to its problems.

    Args:
        document: the experiment as written; changed in place.
        overrides: texts `key.path=value`, the value as in YAML. Key paths may name list entries by number, and keys
            with dots (import paths) as they are or in double quotes.
    """
    for text in overrides:
        place = Place(f"--set {text}")
        path, equals, value = text.partition("=")
        segments = [quoted or plain for quoted, plain in _SEGMENT.findall(path)]
        if not equals or not segments:
            _refuse(document, place, (), f"expected key.path=value, found {text!r}", "e.g. training.epochs=3")
            continue
        read = parse_yaml(value, place.file)
        if read.problems:
            for problem in read.problems:
                hint = problem.hint or "write the value as in a YAML file"
                _refuse(document, place, tuple(segments), problem.message, hint)
            continue
        _write(document, segments, read.data, place)


def _refuse(document: Document, place: Place, path: KeyPath, message: str, hint: str) -> None:
    document.problems.append(Problem(message, hint, path, place.file))


def _write(document: Document, segments: list[str], value: Any, place: Place) -> None:
    if document.data is None:
        document.data = {}
    node: Any = document.data
    path: KeyPath = ()
    while True:
        if path == ("model",):
            node, path = _model_form(document, node, segments)
        key, used = _next_key(node, segments)
        if isinstance(node, list) and not (isinstance(key, int) and 0 <= key < len(node)):
            message = f"there is no entry {key!r} in a list of {len(node)}"
            return _refuse(document, place, (*path, key), message, "entries are counted from 0")
        if not isinstance(node, dict | list):
            return _refuse(document, place, path, f"is {shown(node)}, which has no {key!r}", "set it as a whole")
        segments = segments[used:]
        path = (*path, key)
        if not segments:
            node[key] = value
            document.forget(path)
            return document.mark(path, value, place)
        child = node[key] if isinstance(node, list) else node.get(key)
        opened = _opened(child, segments)
        if opened is not child or (isinstance(node, dict) and key not in node):
            node[key] = opened
            document.mark(path, opened, place if child is None else document.values.get(path, place))
        node = opened


def _model_form(document: Document, model: Any, segments: list[str]) -> tuple[Any, KeyPath]:
    """Where in the `model` section to go on, which has a short form (the component alone) and a long one."""
    if not isinstance(model, dict):
        return model, ("model",)
    own_key = segments[0] in MODEL_KEYS
    if is_long_model(model) and not own_key and "component" in model:
        opened = _opened(model["component"], segments)
        model["component"] = opened
        return opened, ("model", "component")
    if own_key and model and not is_long_model(model):
        document.data["model"] = {"component": model}
        for places in (document.keys, document.values):
            for known in [known for known in places if known[:1] == ("model",) and len(known) > 1]:
                places[("model", "component", *known[1:])] = places.pop(known)
    return document.data["model"], ("model",)


def _next_key(node: Any, segments: list[str]) -> tuple[Any, int]:
    """The key that the first segments name, and how many segments it took: known keys may hold dots."""
    if isinstance(node, Mapping):
        for used in range(len(segments), 1, -1):
            if ".".join(segments[:used]) in node:
                return ".".join(segments[:used]), used
    first = segments[0]
    number = int(first) if re.fullmatch(r"\d+", first) else None
    if number is not None and (isinstance(node, list) or (isinstance(node, Mapping) and number in node)):
        return number, 1
    return first, 1


def _opened(child: Any, segments: list[str]) -> Any:
    """What stands at a key, as something that more keys can be written into: `AdamW` becomes `AdamW: {}`."""
    if child is None:
        return {}
    if isinstance(child, str):
        for used in range(len(segments), 0, -1):
            if ".".join(segments[:used]) == child:
                return {child: {}}
    if isinstance(child, Component) and child.target is None:
        return {child.name: dict(child.arguments)}
    if isinstance(child, tuple):
        return list(child)
    return child
