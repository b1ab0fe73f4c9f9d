"""Reading YAML with the place of everything: composed nodes instead of loaded values.

Scalars follow the core schema of YAML 1.2 rather than 1.1: `1e-4` is a number, `no` and `on` are text, and a number
with a leading zero is an error, since the two versions read it differently.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from weft.config.component import Place
from weft.config.document import Document, KeyPath
from weft.errors import Problem

_GREATEST_DOCUMENT = 100_000  # nodes after aliases are expanded: a few lines of nested aliases can mean billions
_GREATEST_DEPTH = 100

_NULL = re.compile(r"~|null|Null|NULL|")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[-+]?\d+|0x[0-9a-fA-F]+|0o[0-7]+")
_FLOAT = re.compile(r"[-+]?(\.\d+|\d+(\.\d*)?)([eE][-+]?\d+)?")
_SPECIAL = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_LEADING_ZERO = re.compile(r"[-+]?0\d+")
_STANDARD_TAG = "tag:yaml.org,2002:"


def read_yaml(path: Path) -> Document:
    """Read a YAML file; what is wrong with it is in the document's `problems`."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        problem = Problem(f"is not UTF-8 text: {error.reason}", "save the file as UTF-8", (), path, line, 1)
        return Document(None, problems=[problem])
    return parse_yaml(text, path)


def parse_yaml(text: str, file: Path | str | None) -> Document:
    """Read YAML text; `file` is what its messages call the source."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        return Document(None, problems=[_syntax_problem(error, text, file)])
    except RecursionError:
        return Document(None, problems=[Problem("is nested too deeply", "check the brackets", (), file, 1, 1)])
    reader = _Reader(file, Document(None))
    if node is not None:
        reader.document.data = reader.read(node, ())
    return reader.document


def _syntax_problem(error: yaml.YAMLError, text: str, file: Path | str | None) -> Problem:
    if isinstance(error, yaml.reader.ReaderError):
        before = text[: error.position]
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        return Problem(
            f"a character that YAML does not allow: {error.character!r}", "remove it", (), file, line, column
        )
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return Problem(f"is not valid YAML: {error}", "", (), file, 1, 1)
    mark = error.problem_mark
    lines = text.splitlines()
    written = lines[mark.line] if mark.line < len(lines) else ""
    context = f" ({error.context})" if error.context else ""
    return Problem(
        f"is not valid YAML: {error.problem}{context}",
        _syntax_hint(str(error.problem), written, mark.column),
        (),
        file,
        mark.line + 1,
        mark.column + 1,
    )


def _syntax_hint(problem: str, line: str, column: int) -> str:
    if "\t" in line[: column + 1]:
        return "indent with spaces; YAML does not allow tabs"
    if "mapping values are not allowed" in problem:
        return "text with ': ' in it needs quotes; else check that the indentation fits the line above"
    if "expected <block end>" in problem or "did not find expected" in problem:
        return "check that the indentation is the same as that of the lines around"
    if "expected ',' or" in problem:
        return "a bracket or brace is not closed, or a comma is missing"
    if "could not find expected ':'" in problem:
        return "write 'key: value'"
    if "another document" in problem or "single document" in problem:
        return "put each experiment into a file of its own"
    if "found undefined alias" in problem:
        return "define it with '&name' before it is used as '*name'; text that starts with '*' needs quotes"
    if "cannot start any token" in problem:
        return "text that starts with this character needs quotes"
    return "check brackets, quotes and indentation around this place"


class _Reader:
    """Turns composed nodes into values and keeps where each was written."""

    def __init__(self, file: Path | str | None, document: Document) -> None:
        self.file = file
        self.document = document
        self.nodes = 0

    def place(self, node: yaml.Node) -> Place:
        return Place(self.file, node.start_mark.line + 1, node.start_mark.column + 1)

    def problem(self, message: str, hint: str, path: KeyPath, place: Place) -> None:
        self.document.problems.append(Problem(message, hint, path, place.file, place.line, place.column))

    def read(self, node: yaml.Node, path: KeyPath) -> Any:
        place = self.place(node)
        self.document.values[path] = place
        self.nodes += 1
        if self.nodes > _GREATEST_DOCUMENT or len(path) > _GREATEST_DEPTH:
            if not any("too large" in known.message for known in self.document.problems):
                self.problem("is too large or nested too deeply", "check the aliases (*name)", path, place)
            return None
        if not self._is_standard(node):
            self.problem(
                f"the tag {node.tag!r} is not supported", "write plain text, numbers, lists and mappings", path, place
            )
            return None
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self._entry(child, (*path, index)) for index, child in enumerate(node.value)]
        return self._scalar(node, path, place)

    @staticmethod
    def _is_standard(node: yaml.Node) -> bool:
        """Whether the node has no tag of its own, or one of those that plain data have (`!!str`)."""
        if isinstance(node, yaml.CollectionNode):
            allowed: tuple[str, ...] = ("map",) if isinstance(node, yaml.MappingNode) else ("seq",)
        else:
            allowed = ("null", "bool", "int", "float", "str", "timestamp", "value", "merge")
        return node.tag.startswith(_STANDARD_TAG) and node.tag.removeprefix(_STANDARD_TAG) in allowed

    def _entry(self, node: yaml.Node, path: KeyPath) -> Any:
        self.document.keys[path] = self.place(node)
        return self.read(node, path)

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[Any, Any]:
        result: dict[Any, Any] = {}
        written: dict[Any, Place] = {}
        merged = []
        for key_node, value_node in node.value:
            place = self.place(key_node)
            if key_node.tag == _STANDARD_TAG + "merge":
                merged.append((value_node, place))
                continue
            key = self._key(key_node, path)
            if key is None:
                continue
            if key in written:
                message = f"the key {str(key)!r} is written twice, first in line {written[key].line}"
                self.problem(message, "remove one of the two", (*path, key), place)
                continue
            written[key] = self.document.keys[(*path, key)] = place
            result[key] = self.read(value_node, (*path, key))
        for value_node, place in merged:
            self._merge(value_node, place, path, result)
        return result

    def _merge(self, node: yaml.Node, place: Place, path: KeyPath, result: dict[Any, Any]) -> None:
        """`<<: *name`: keys of another mapping that are not written here."""
        for source in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            if not isinstance(source, yaml.MappingNode):
                self.problem("'<<' needs a mapping", "write '<<: *name' where name is a mapping", path, place)
                continue
            for key_node, value_node in source.value:
                if key_node.tag == _STANDARD_TAG + "merge":
                    self._merge(value_node, place, path, result)
                    continue
                key = self._key(key_node, path)
                if key is not None and key not in result:
                    self.document.keys[(*path, key)] = self.place(key_node)
                    result[key] = self.read(value_node, (*path, key))

    def _key(self, node: yaml.Node, path: KeyPath) -> str | int | None:
        place = self.place(node)
        key = self._scalar(node, path, place) if isinstance(node, yaml.ScalarNode) else None
        if isinstance(key, str) or (isinstance(key, int) and not isinstance(key, bool)):
            return key
        self.problem("a key must be text or a whole number", "put quotes around it", path, place)
        return None

    def _scalar(self, node: yaml.Node, path: KeyPath, place: Place) -> Any:
        text: str = node.value
        if getattr(node, "style", None) is not None or (node.tag == _STANDARD_TAG + "str" and _is_explicit_text(node)):
            return text
        if _LEADING_ZERO.fullmatch(text):
            digits = text.lstrip("+-").lstrip("0") or "0"
            self.problem(
                f"the number {text} begins with a zero",
                f"write {digits} for the number, '{text}' for text",
                path,
                place,
            )
            return None
        return plain_value(text)


def _is_explicit_text(node: yaml.Node) -> bool:
    """Whether plain text was marked `!!str`: the mark of the value then lies behind that of the tag."""
    return node.end_mark.index - node.start_mark.index > len(node.value)


def plain_value(text: str) -> Any:
    """The value of a scalar without quotes."""
    if _NULL.fullmatch(text):
        return None
    if _BOOL.fullmatch(text):
        return text.lower() == "true"
    if _INT.fullmatch(text):
        return int(text, 0) if text[:2] in ("0x", "0o") else int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _SPECIAL.fullmatch(text):
        return float(text.replace(".", "", 1))
    return text
