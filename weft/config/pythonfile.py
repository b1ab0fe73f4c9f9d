"""Reading an experiment from a Python file: it runs the file, and finds in its source where each value is written."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from weft.config.component import Place
from weft.config.dataset import DatasetConfig, SplitConfig, TableConfig, TransformsConfig
from weft.config.document import Document, KeyPath, children
from weft.config.experiment import Experiment
from weft.config.hints import shown
from weft.config.patches import load_patch, problem_in_file
from weft.config.running import CheckpointEvery, RunConfig
from weft.config.training import EmaConfig, GradientCompression, ModelConfig, MonitorConfig, TrainingConfig
from weft.errors import ConfigError, Problem

_WHERE: dict[type[BaseModel], KeyPath] = {
    Experiment: (),
    DatasetConfig: ("dataset",),
    TableConfig: ("dataset", "table"),
    SplitConfig: ("dataset", "split"),
    TransformsConfig: ("dataset", "transforms"),
    ModelConfig: ("model",),
    TrainingConfig: ("training",),
    MonitorConfig: ("training", "monitor"),
    EmaConfig: ("training", "ema"),
    GradientCompression: ("training", "gradient_compression"),
    RunConfig: ("run",),
    CheckpointEvery: ("run", "checkpoint_every"),
}


def read_python(path: Path) -> Document:
    """Run a Python file that defines `experiment` (an Experiment or a dict) and return what it holds.

    Raises:
        ConfigError: an error happened in the file, or `experiment` is missing or something else.
    """
    from weft.config.load import as_written, plain_copy

    try:
        module = load_patch(path)
    except ConfigError as error:
        if isinstance(error.__cause__, ValidationError):
            raise ConfigError(_schema_problems(error.__cause__, path)) from error
        raise
    experiment = getattr(module, "experiment", None)
    if experiment is None:
        message = "does not define 'experiment'"
        raise ConfigError(
            Problem(message, "write: experiment = Experiment(dataset=..., model=..., training=...)", (), path, 1, 1)
        )
    if not isinstance(experiment, Experiment | dict):
        message = f"'experiment' must be an Experiment or a dict, found {shown(experiment)}"
        raise ConfigError(Problem(message, "write: experiment = Experiment(...)", (), path))
    document = Document(as_written(experiment) if isinstance(experiment, Experiment) else plain_copy(experiment))
    _find_places(ast.parse(path.read_text(encoding="utf-8")), path, document)
    return document


def _schema_problems(error: ValidationError, path: Path) -> list[Problem]:
    """What pydantic found while the file was run, with the places in its source."""
    from weft.config.problems import schema_problems

    line = problem_in_file(error, path).line
    root = next((section for section in _WHERE if section.__name__ == error.title), None)
    document = Document({})
    _find_places(ast.parse(path.read_text(encoding="utf-8")), path, document, only_written=False)
    document.values.setdefault((), Place(path, line))
    prefix = _WHERE[root] if root is not None else ()
    return schema_problems(error, root or Experiment, document, prefix)


def _find_places(tree: ast.Module, path: Path, document: Document, *, only_written: bool = True) -> None:
    assigned = {
        target.id: statement.value
        for statement in tree.body
        if isinstance(statement, ast.Assign)
        for target in statement.targets
        if isinstance(target, ast.Name)
    }
    finder = _Finder(path, assigned, document)
    if "experiment" in assigned:
        finder.visit(assigned["experiment"], (), document.data, 0)
    if not only_written:
        document.data = finder.outline


_Entry = tuple[str | int, ast.expr | ast.keyword, ast.expr]  # key, where it is written, and its value


class _Finder:
    """Follows keyword arguments, dicts, lists and names that were assigned at the top level of the file."""

    def __init__(self, path: Path, assigned: dict[str, ast.expr], document: Document) -> None:
        self.path = path
        self.assigned = assigned
        self.document = document
        self.outline: dict[str | int, Any] = {}

    def visit(self, node: ast.expr, path: KeyPath, data: Any, depth: int) -> None:
        """Note the places in an expression.

        Args:
            node: the expression.
            path: key path of its value.
            data: its value.
            depth: how many expressions lie around it.
        """
        if depth > 50:
            return
        self.document.values.setdefault(path, Place(self.path, node.lineno, node.col_offset + 1))
        outline = self.outline
        for segment in path:
            outline = outline.setdefault(segment, {})
        if isinstance(node, ast.Name) and node.id in self.assigned:
            self.visit(self.assigned[node.id], path, data, depth + 1)
        entries = _entries(node)
        inside = dict(children(data))
        if (
            path == ("model",)
            and "component" in inside
            and not any(segment == "component" for segment, _, _ in entries)
        ):
            self.visit(node, ("model", "component"), inside["component"], depth + 1)  # the section's short form
        elif len(inside) == 1 and not any(segment in inside for segment, _, _ in entries):
            entries, path, inside = self._in_component(node, entries, path, inside)
        for segment, key, child in entries:
            self.document.keys.setdefault((*path, segment), Place(self.path, key.lineno, key.col_offset + 1))
            self.visit(child, (*path, segment), inside.get(segment), depth + 1)

    def _in_component(
        self, node: ast.expr, entries: list[_Entry], path: KeyPath, inside: dict[str | int, Any]
    ) -> tuple[list[_Entry], KeyPath, dict[str | int, Any]]:
        """A component that is written with its class, `{Class: {...}}` or `Component.of(Class, ...)`: where its
        arguments are written."""
        ((name, arguments),) = inside.items()
        path = (*path, name)
        self.document.keys.setdefault(path, Place(self.path, node.lineno, node.col_offset + 1))
        if isinstance(node, ast.Dict) and len(node.values) == 1:
            entries = _entries(node.values[0])
        return entries, path, dict(children(arguments))


def _entries(node: ast.expr) -> list[_Entry]:
    if isinstance(node, ast.Call):
        return [("class" if k.arg == "class_" else k.arg, k, k.value) for k in node.keywords if k.arg is not None]
    if isinstance(node, ast.Dict):
        return [
            (key.value, key, value)
            for key, value in zip(node.keys, node.values)
            if isinstance(key, ast.Constant) and isinstance(key.value, str | int)
        ]
    if isinstance(node, ast.List | ast.Tuple):
        return [(index, child, child) for index, child in enumerate(node.elts)]
    return []
