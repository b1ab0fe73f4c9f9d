"""Loading an experiment from a YAML file, a Python file, a dict or an experiment, with every mistake in one error."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from weft.config.component import Component
from weft.config.document import Document, KeyPath, children, targets_of
from weft.config.experiment import Experiment
from weft.config.fields import Section
from weft.config.hints import did_you_mean, nearest, shown
from weft.config.overrides import apply_overrides
from weft.config.patches import own_file_of
from weft.config.problems import schema_problems, section_keys
from weft.config.yamlfile import read_yaml
from weft.errors import ConfigError, Problem

_YAML = (".yaml", ".yml")


def load_experiment(
    source: str | Path | Mapping[str, Any] | Experiment,
    overrides: Sequence[str] = (),
    *,
    base: Path | str | None = None,
    check: bool = True,
) -> Experiment:
    """Load an experiment and check it.

    Args:
        source: a `.yaml` or `.yml` file, a `.py` file that defines `experiment`, a dict in the form of the file, or an
            experiment.
        overrides: texts `key.path=value` that replace what is written, e.g. `training.optimizer.AdamW.lr=3e-4`.
        base: folder that relative paths start from; by default the file's folder, else the working directory.
        check: whether components and files are looked up and compared with what the experiment says of them.

    Raises:
        ConfigError: with all problems found, each with its place and a hint.
    """
    document, file = _read(source)
    if base is None:
        base = file.parent if file is not None else source.base if isinstance(source, Experiment) else None
    if not document.problems or document.data is not None:
        apply_overrides(document, overrides)
    problems = list(document.problems)
    experiment, found = _validate(document, file, problems)
    problems += found
    if experiment is not None:
        experiment._base = Path(base).resolve() if base is not None else Path.cwd()
        experiment._document = document
        _place_components(experiment, document)
        experiment = _with_own_files(experiment)
        if check:
            from weft.config.checks import check_experiment

            problems += check_experiment(experiment, doubtful=_doubtful(problems))
    if problems or experiment is None:
        raise ConfigError(_in_order(problems))
    return experiment


def _read(source: str | Path | Mapping[str, Any] | Experiment) -> tuple[Document, Path | None]:
    if isinstance(source, Experiment):
        return Document(as_written(source)), None
    if isinstance(source, Mapping):
        return Document(plain_copy(source)), None
    if not isinstance(source, str | Path):
        raise ConfigError(f"expected a file, a dict or an Experiment, found {shown(source)}")
    path = Path(source)
    if not path.is_file():
        what = "is a folder, not a file" if path.is_dir() else "does not exist"
        near = sorted(found.name for found in path.parent.glob("*") if found.suffix in (*_YAML, ".py"))
        raise ConfigError(Problem(what, did_you_mean(path.name, near), (), path))
    if path.suffix == ".py":
        from weft.config.pythonfile import read_python

        return read_python(path), path
    if path.suffix not in _YAML:
        raise ConfigError(Problem(f"expected a .yaml, .yml or .py file, found {path.suffix!r}", "", (), path))
    return read_yaml(path), path


def plain_copy(value: Any) -> Any:
    """A copy of dicts and lists, so that overrides do not change what the caller holds; all else as it is."""
    if isinstance(value, Mapping):
        return {key: plain_copy(child) for key, child in value.items()}
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        return [plain_copy(child) for child in value]
    return as_written(value) if isinstance(value, Experiment) else value


def as_written(experiment: Experiment) -> dict[str, Any]:
    """An experiment or section as dicts and lists that overrides can be written into; components stay what they are."""
    written: dict[str, Any] = _dissolve(experiment)
    return written


def _dissolve(value: Any) -> Any:
    if isinstance(value, Section):
        fields = type(value).model_fields
        return {
            fields[name].alias or name: _dissolve(getattr(value, name))
            for name in fields
            if name in value.model_fields_set
        }
    if isinstance(value, Component):
        return value if value.target is not None else {value.name: copy.copy(value.arguments)}
    if isinstance(value, dict):
        return {key: _dissolve(child) for key, child in value.items()}
    if isinstance(value, list):
        return [_dissolve(child) for child in value]
    return value


def _validate(document: Document, file: Path | None, known: list[Problem]) -> tuple[Experiment | None, list[Problem]]:
    """The experiment and the problems of the schema; with problems, what of it could be read all the same."""
    data = document.data
    if data is None and not known:
        return None, [Problem("the file is empty", "write at least dataset:, model: and training:", (), file, 1, 1)]
    if known and data is None:
        return None, []
    if not isinstance(data, Mapping):
        message = f"expected 'key: value' pairs, found {shown(data)}"
        return None, [document.at(Problem(message, "the keys are " + ", ".join(section_keys(Experiment, ()))))]
    if file is not None and "name" not in data:
        data = {"name": file.stem, **data}
    try:
        return Experiment.model_validate(data), []
    except ValidationError as error:
        problems = schema_problems(error, Experiment, document)
        covered = [problem.path for problem in known]
        fresh = [problem for problem in problems if not _is_below(problem.path, covered)]
        return salvage(data, error), fresh


def _doubtful(problems: list[Problem]) -> list[KeyPath]:
    """The key paths that are wrong, and those that were probably meant by unknown keys."""
    paths = [problem.path for problem in problems if problem.path]
    for problem in problems:
        if problem.path and problem.message.startswith("unknown key"):
            *section, key = problem.path
            if (meant := nearest(str(key), section_keys(Experiment, tuple(section)))) is not None:
                paths.append((*section, meant))
    return paths


def _place_components(experiment: Experiment, document: Document) -> None:
    """Tell components where they are written, for messages of what is built from them later."""
    for path, _, component in experiment.components():
        place = document.place(path)
        if component.place is None and place.file is not None:
            object.__setattr__(component, "place", place)  # frozen, but this one is new and only ours


def _with_own_files(experiment: Experiment) -> Experiment:
    """List the files of classes and functions that were loaded from the user's files, so that their names can be found
    again: the Python experiment file itself, above all, or the program that is running."""
    listed = {experiment.path(patch).resolve() for patch in experiment.patches}
    targets = [target for _, _, component in experiment.components() for target in targets_of(component)]
    files = [own_file_of(target) for target in targets]
    fresh = [file for file in dict.fromkeys(files) if file is not None and file not in listed]
    if not fresh:
        return experiment
    base = experiment.base
    paths = [file.relative_to(base) if file.is_relative_to(base) else file for file in fresh]
    return experiment.model_copy(update={"patches": [*experiment.patches, *paths]})


def _is_below(path: KeyPath, others: list[KeyPath]) -> bool:
    return any(other and path[: len(other)] == other for other in others)


_PLACEHOLDERS: dict[KeyPath, Any] = {
    ("dataset",): {},
    ("model",): "placeholder",
    ("training",): {},
    ("training", "task"): "placeholder",
    ("training", "epochs"): 1,
    ("training", "batch_size"): 1,
}


def salvage(data: Mapping[str, Any], error: ValidationError) -> Experiment | None:
    """The experiment without the parts that are wrong, so that the rest can still be checked.

    Keys that failed are removed until the rest is valid; keys that must be there get a placeholder. Checks are told
    which key paths to leave alone.
    """
    data = plain_copy(data)
    for _ in range(100):
        for details in error.errors(include_url=False):
            path = tuple(part for part in details["loc"] if not (isinstance(part, str) and part[:1] in "<["))
            if path in _PLACEHOLDERS:
                _set(data, path, _PLACEHOLDERS[path])
            elif details["type"] == "missing":
                _remove(data, path[:-1])
            else:
                _remove(data, path)
        _drop_removed(data)
        try:
            return Experiment.model_validate(data)
        except ValidationError as again:
            error = again
    return None


_REMOVED = object()


def _set(data: Any, path: KeyPath, value: Any) -> None:
    for segment in path[:-1]:
        if not isinstance(data.get(segment), dict):
            data[segment] = {}
        data = data[segment]
    data[path[-1]] = value


def _remove(data: Any, path: KeyPath) -> None:
    """Mark the entry at the path, or the last one on the way that exists (a component's short form), as removed."""
    if path in _PLACEHOLDERS:
        return _set(data, path, _PLACEHOLDERS[path])
    for position, segment in enumerate(path):
        try:
            child = data[segment]
        except (KeyError, IndexError, TypeError):
            return None
        if position == len(path) - 1 or not isinstance(child, dict | list):
            data[segment] = _REMOVED
            return None
        data = child
    return None


def _drop_removed(data: Any) -> None:
    if isinstance(data, list):
        data[:] = [entry for entry in data if entry is not _REMOVED]
    elif isinstance(data, dict):
        for key in [key for key, value in data.items() if value is _REMOVED]:
            del data[key]
    for _, child in children(data):
        _drop_removed(child)


def _in_order(problems: list[Problem]) -> list[Problem]:
    """Problems in the order of the file, each once."""
    unique = list(dict.fromkeys(problems))
    return sorted(unique, key=lambda problem: (str(problem.file or ""), problem.line or 0, problem.column or 0))
