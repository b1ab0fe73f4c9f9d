"""An experiment as it was written: plain data, and the place of each key and value for messages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from weft.config.component import Component, Place
from weft.errors import Problem

KeyPath = tuple[str | int, ...]


@dataclass
class Document:
    """What a file, dict or command line holds.

    Args:
        data: dicts, lists and values as written; keys are text or whole numbers.
        keys: place of the key (or list entry) at a key path.
        values: place of the value at a key path.
        problems: mistakes found while reading.
    """

    data: Any
    keys: dict[KeyPath, Place] = field(default_factory=dict)
    values: dict[KeyPath, Place] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def place(self, path: KeyPath, *, key: bool = False) -> Place:
        """The place of a key path, or of the nearest section around it that was written.

        Args:
            path: key path in the experiment's full form; `component` may be absent in the file (short form of `model`).
            key: the place of the key rather than of its value.
        """
        written, complete = self._as_written(path)
        if path[len(written) :] and self._at(written) == path[-1]:  # the bare name of a component
            return self.values.get(written) or self.keys.get(written) or Place()
        if complete and not (written in self.keys or written in self.values):
            inside = [place for known, place in self.keys.items() if known[: len(written)] == written]
            return inside[0] if inside else self.values.get((), Place())
        if complete:
            first, second = (self.keys, self.values) if key else (self.values, self.keys)
        else:
            first, second = self.keys, self.values
        return first.get(written) or second.get(written) or self.values.get((), Place())

    def _at(self, path: KeyPath) -> Any:
        node = self.data
        for segment in path:
            node = dict(children(node)).get(segment)
        return node

    def _as_written(self, path: KeyPath) -> tuple[KeyPath, bool]:
        """The longest part of the path that exists in the document, and whether that is all of it."""
        written: KeyPath = ()
        node = self.data
        for position, segment in enumerate(path):
            entries = dict(children(node))
            if segment in entries:
                node = entries[segment]
            elif segment == "component" and position == 1:
                continue
            else:
                return written, False
            written = (*written, segment)
        return written, True

    def at(self, problem: Problem, *, key: bool = False) -> Problem:
        """The problem with the place of its key path, unless it has one already."""
        if problem.file is not None or problem.line is not None:
            return problem
        place = self.place(problem.path, key=key)
        return replace(problem, file=place.file, line=place.line, column=place.column)

    def forget(self, path: KeyPath) -> None:
        """Drop the places of a key path and all below it."""
        for places in (self.keys, self.values):
            for known in [known for known in places if known[: len(path)] == path]:
                del places[known]

    def mark(self, path: KeyPath, value: Any, place: Place) -> None:
        """Give a key path and all below it one place."""
        self.keys[path] = self.values[path] = place
        for segment, child in children(value):
            self.mark((*path, segment), child, place)


def children(value: Any) -> Iterable[tuple[str | int, Any]]:
    """The entries of a mapping, list or component with their keys or positions; nothing for any other value."""
    if isinstance(value, Component):
        return [(value.name, value.arguments)]
    if isinstance(value, Mapping):
        return list(value.items())
    if isinstance(value, list | tuple):
        return list(enumerate(value))
    return []


def targets_of(value: Any) -> Iterator[Any]:
    """Every class and function in a component and its arguments."""
    if isinstance(value, Component):
        yield from (() if value.target is None else (value.target,))
        yield from targets_of(value.arguments)
    elif isinstance(value, type) or callable(value):
        yield value
    else:
        for _, child in children(value):
            yield from targets_of(child)
