"""Reading an experiment from a Python file: it runs the file, and finds in its source where each value is written."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from weft.config.component import Place
from weft.config.dataset import DatasetConfig, SplitConfig, TableConfig, TransformsConfig
from weft.config.document import Document, KeyPath
from weft.config.experiment import Experiment
from weft.config.hints import shown
from weft.config.patches import load_patch, problem_in_file
from weft.config.running import CheckpointEvery, RunConfig
from weft.config.training import EmaConfig, ModelConfig, MonitorConfig, TrainingConfig
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
        finder.visit(assigned["experiment"], (), 0)
    if not only_written:
        document.data = finder.outline


class _Finder:
    """Follows keyword arguments, dicts, lists and names that were assigned at the top level of the file."""

    def __init__(self, path: Path, assigned: dict[str, ast.expr], document: Document) -> None:
        self.path = path
        self.assigned = assigned
        self.document = document
        self.outline: dict[str | int, Any] = {}

    def visit(self, node: ast.expr, path: KeyPath, depth: int) -> None:
        if depth > 50:
            return
        self.document.values.setdefault(path, Place(self.path, node.lineno, node.col_offset + 1))
        if path:
            outline = self.outline
            for segment in path:
                outline = outline.setdefault(segment, {})
        if isinstance(node, ast.Name) and node.id in self.assigned:
            self.visit(self.assigned[node.id], path, depth + 1)
        for segment, key, child in _entries(node):
            self.document.keys.setdefault((*path, segment), Place(self.path, key.lineno, key.col_offset + 1))
            self.visit(child, (*path, segment), depth + 1)


def _entries(node: ast.expr) -> list[tuple[str | int, ast.expr | ast.keyword, ast.expr]]:
    if isinstance(node, ast.Call):
        return [("class" if k.arg == "class_" else k.arg, k, k.value) for k in node.keywords if k.arg is not None]
    if isinstance(node, ast.Dict):
        found: list[tuple[str | int, ast.expr | ast.keyword, ast.expr]] = []
        for key, value in zip(node.keys, node.values):
            if isinstance(key, ast.Constant) and isinstance(key.value, str | int):
                found.append((key.value, key, value))
        return found
    if isinstance(node, ast.List | ast.Tuple):
        return [(index, child, child) for index, child in enumerate(node.elts)]
    return []
