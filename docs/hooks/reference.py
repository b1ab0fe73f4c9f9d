"""Makes the reference pages from the code itself: from the experiment's models, from the commands, from docstrings.

MkDocs calls `on_files`; `python docs/hooks/reference.py experiment` prints a page.
"""

from __future__ import annotations

import inspect
import re
import sys
import types
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from pydantic_core import PydanticUndefined
from typer.models import ArgumentInfo, OptionInfo

from weft.config import Component, Experiment
from weft.config.fields import Section, meanings

# --- the experiment file ---


def experiment_page() -> str:
    """Every key of the experiment file: its type, its default, what it means."""
    head = (
        "# The experiment file\n\n"
        "An experiment is a YAML file, a Python file that defines `experiment`, or a dict. What has no default must be "
        "written. A *component* is written `Name`, `Name: {argument: value}` or `import.path.Name: {…}`; "
        "`weft components` lists the names there are, `weft components NAME` the arguments of one. "
        "`weft schema` prints all of this as a JSON schema, with which editors complete and check.\n\n"
        "Any key can be replaced from the command line: `--set training.epochs=3`.\n"
    )
    return head + "".join(_sections("", Experiment))


def _sections(path: str, section: type[Section]) -> Iterator[str]:
    name = path or "The whole file"
    text = _paragraph(section.__doc__ or "")
    meaning = meanings(section)
    lines = ["| key | type | default | meaning |", "| --- | --- | --- | --- |"]
    below: list[tuple[str, type[Section]]] = []
    for field, info in section.model_fields.items():
        key = info.alias or field
        kind = _type(info.annotation, info.metadata)
        lines.append(f"| `{key}` | {kind} | {_default(info)} | {_cell(meaning.get(field, ''))} |")
        inner = _section_in(info.annotation)
        if inner is not None:
            below.append((f"{path}.{key}".lstrip("."), inner))
    title = f"`{path}`" if path else name
    yield f"\n## {title}\n\n{text}\n\n" + "\n".join(lines) + "\n"
    for where, inner in below:
        yield from _sections(where, inner)


def _section_in(annotation: Any) -> type[Section] | None:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    return next((found for part in get_args(annotation) if (found := _section_in(part)) is not None), None)


_NAMES = {
    int: "whole number",
    float: "number",
    str: "text",
    bool: "`true` or `false`",
    Path: "path",
    Component: "component",
}


def _type(annotation: Any, metadata: list[Any] | tuple[Any, ...] = ()) -> str:
    """A type in words."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(arguments[0], [*arguments[1:], *metadata])
    if origin in (Union, types.UnionType):
        shown = [_type(part, metadata) for part in arguments if part is not type(None)]
        return " or ".join(dict.fromkeys(shown))
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin is list:
        return f"list of {_plural(_type(arguments[0]))}"
    if origin is dict:
        return f"{_type(arguments[0])} to {_type(arguments[1])}"
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return "section"
    name = _NAMES.get(annotation, str(getattr(annotation, "__name__", annotation)))
    return name + _bounds(metadata)


def _plural(words: str) -> str:
    return f"{words}s" if words in ("whole number", "number", "path", "component", "section") else words


def _bounds(metadata: list[Any] | tuple[Any, ...]) -> str:
    found = []
    for item in metadata:
        for part in getattr(item, "metadata", [item]):
            if isinstance(part, annotated_types.Ge):
                found.append(f"≥ {part.ge:g}" if isinstance(part.ge, int | float) else "")
            elif isinstance(part, annotated_types.Gt):
                found.append(f"> {part.gt:g}")  # type: ignore[str-format]
            elif isinstance(part, annotated_types.Lt) and isinstance(part.lt, int) and part.lt < 2**31:
                found.append(f"< {part.lt:g}")
    return " " + ", ".join(found) if found else ""


def _default(info: Any) -> str:
    if info.is_required():
        return "must be written"
    value = info.default if info.default is not PydanticUndefined else info.default_factory()
    if value is None:
        return "–"
    if isinstance(value, Section):
        return "" if not value.model_fields_set else f"`{value.model_dump(exclude_unset=True)}`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if value in ([], {}):
        return "none"
    return f"`{'[' + ', '.join(map(str, value)) + ']' if isinstance(value, list) else value}`"


# --- the command line ---


def commands_page() -> str:
    """Every command with its arguments and options, read from the functions and their annotations."""
    from weft.cli.app import app, options

    text = f"# The command line\n\n{app.info.help}\n\n"
    text += (
        "Results go to standard output, everything else to standard error. Exit codes: 0 good, 1 failed, 2 wrong usage "
        "or configuration, 75 stopped and resumable.\n\nBefore the command may stand:\n\n"
    )
    text += _parameters(options)
    text += "".join(_command(command, "weft", "##") for command in app.registered_commands)
    for group in app.registered_groups:
        inner = group.typer_instance
        assert inner is not None
        name = f"weft {inner.info.name}"
        text += f"\n## `{name}`\n\n{inner.info.help}\n"
        text += "".join(_command(command, name, "###") for command in inner.registered_commands)
    return text


def _command(command: Any, before: str, heading: str) -> str:
    function, name = command.callback, f"{before} {command.name}"
    arguments = [shown for shown, info in _annotated(function) if isinstance(info, ArgumentInfo)]
    usage = " ".join([name, "[options]", *(shown.strip("`") for shown in arguments)])
    text = f"\n{heading} `{name}`\n\n```text\n{usage}\n```\n\n{_prose(function.__doc__ or '')}\n\n"
    return text + _parameters(function)


def _parameters(function: Callable[..., Any]) -> str:
    rows = [f"| {shown} | {_cell(info.help or '')} |" for shown, info in _annotated(function)]
    return "\n".join(["| | |", "| --- | --- |", *rows]) + "\n" if rows else ""


def _annotated(function: Callable[..., Any]) -> Iterator[tuple[str, Any]]:
    """(how it is written, what typer knows of it) of each parameter, arguments first."""
    found = []
    for name, parameter in inspect.signature(function, eval_str=True).parameters.items():
        kind, *metadata = get_args(parameter.annotation)
        info = next(item for item in metadata if isinstance(item, ArgumentInfo | OptionInfo))
        if info.hidden:
            continue
        if isinstance(info, ArgumentInfo):
            one = str(info.metavar or name.upper())
            needed = parameter.default is inspect.Parameter.empty
            found.append((f"`{one}`" if needed else f"`[{one}]`", info))
            continue
        first = (info.default,) if isinstance(info.default, str) else ()  # in Annotated[…] typer takes it for a default
        declared = [*first, *(info.param_decls or ())] or [f"--{name.replace('_', '-')}"]
        written = ", ".join(f"`{option}`" for option in declared)
        found.append((written if kind is bool else f"{written} {info.metavar or _value(kind)}", info))
    yield from sorted(found, key=lambda entry: isinstance(entry[1], OptionInfo))


def _value(kind: Any) -> str:
    """What an option is followed by."""
    inner = [part for part in get_args(kind) if part is not type(None)]
    if get_origin(kind) is Literal:
        return "\\|".join(f"`{choice}`" for choice in inner)
    if inner:
        return _value(inner[0])
    return {int: "NUMBER", float: "NUMBER", Path: "PATH", str: "TEXT"}.get(kind, "VALUE")


# --- Python ---

PUBLIC: dict[str, tuple[str, ...]] = {
    "weft": ("train", "resume", "open", "evaluate", "predict", "reproduce", "check", "load_experiment", "seed_for"),
    "weft.actions": ("TrainedRun",),
    "weft.config": ("Experiment", "Component"),
    "weft.tasks": ("Task", "Update", "Evaluation", "OwnOptimizer"),
    "weft.data": ("Batch",),
    "weft.metrics": ("Metric",),
    "weft.nets": ("MLP", "SmallCNN", "UNet"),
    "weft.engine": ("Observer", "Start", "Step", "Epoch", "RunResult"),
    "weft.federated": (
        "dSGD", "PowerSGD", "rankDAD", "FedAvg", "FedProx", "FedAvgM", "FedAdam", "FedYogi", "SCAFFOLD", "FedBN",
        "Payload", "TopK",
    ),
    "weft.federated.study": ("simulate",),
    "weft.monitor": ("TensorBoard", "Notifications", "Carbon", "MLflow"),
    "weft.runs": ("RunDirectory",),
    "weft.interop.scorch": ("Flags", "Inferred", "train", "infer", "open_items", "open_batches", "open_model"),
    "weft.errors": (
        "WeftError", "ConfigError", "UsageError", "DataError", "CheckpointError", "RunDirectoryError", "NotFiniteError",
        "WorkerError", "Stopped",
    ),
}  # fmt: skip


def python_page() -> str:
    """Every public name with its signature and docstring."""
    text = "# Python\n\nWhat `import weft` and its rooms offer to users. Everything is typed.\n"
    for module, names in PUBLIC.items():
        text += f"\n## `{module}`\n"
        for name in names:
            text += _documented(getattr(import_module(module), name), f"{module}.{name}", 3)
    return text


def _documented(value: Any, name: str, level: int) -> str:
    text = f"\n{'#' * level} `{name}`\n\n"
    if callable(value) and not (isinstance(value, type) and issubclass(value, BaseException)):
        shown = _signature(value)
        if shown is not None:
            text += f"```text\n{name.rpartition('.')[2]}{shown}\n```\n\n"
    text += _docstring(inspect.getdoc(value) or "")
    if isinstance(value, type) and not issubclass(value, BaseException):
        for key, member in vars(value).items():
            inner = member.__func__ if isinstance(member, classmethod | staticmethod) else member
            inner = inner.fget if isinstance(inner, property) else inner
            if not key.startswith("_") and inspect.isfunction(inner) and inner.__doc__:
                head = key if isinstance(member, property) else f"{key}{_signature(inner)}"
                first, *rest = _docstring(inspect.getdoc(inner) or "").strip().split("\n\n")
                body = "".join(f"\n\n    {line}" for part in rest for line in part.splitlines())
                text += f"- `{head}`: {first}{body}\n"
        text += "\n"
    return text


def _signature(value: Any) -> str | None:
    try:
        text = str(inspect.signature(value))
    except (TypeError, ValueError):
        return None
    text = re.sub(r"\b(?:[a-z_]\w*\.)+([A-Z]\w*)", r"\1", text)
    text = re.sub(r"(: |-> )'([^']*)'", r"\1\2", text)  # annotations, which are kept as text
    return re.sub(r"<factory>|<object object at 0x[0-9a-f]+>", "…", text)


_PART = re.compile(r"^(Args|Returns|Raises|Yields|Attributes):$", re.M)


def _docstring(text: str) -> str:
    """A docstring as Markdown: its parts as lists."""
    head, *parts = _PART.split(text)
    shown = _prose(head) + "\n\n"
    for title, body in zip(parts[::2], parts[1::2]):
        listed, _, after = body.strip("\n").partition("\n\n")
        entries = re.split(r"\n(?=    \S)", listed)
        lines = [" ".join(line.strip() for line in entry.splitlines()) for entry in entries]
        shown += f"**{title}**\n\n" + "".join(f"- {_entry(line)}\n" for line in lines) + "\n"
        shown += f"{_prose(inspect.cleandoc(after))}\n\n" if after.strip() else ""
    return shown


def _entry(line: str) -> str:
    name, colon, rest = line.partition(": ")
    return f"`{name}`: {rest}" if colon and re.fullmatch(r"[\w, .*]+", name) else line


def _prose(text: str) -> str:
    return "\n\n".join(_paragraph(part) for part in inspect.cleandoc(text).split("\n\n"))


def _paragraph(text: str) -> str:
    """One line, unless it is a list or a piece of code."""
    text = inspect.cleandoc(text)
    if re.match(r"^(\s{4}|[-*] )", text):
        return text
    return _escaped(" ".join(text.split()))


def _cell(text: str) -> str:
    return _escaped(" ".join(text.split())).replace("|", "\\|")


def _escaped(text: str) -> str:
    """Text in which only code is special: < would begin an element, [ ] a link."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else part.replace("<", "&lt;").replace("*", "\\*") for part in parts)


PAGES: dict[str, Callable[[], str]] = {
    "experiment": experiment_page,
    "commands": commands_page,
    "python": python_page,
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages, so that they are never older than the code."""
    for name, make in PAGES.items():
        files.append(File.generated(config, f"reference/{name}.md", content=make()))
    return files


if __name__ == "__main__":
    print(PAGES[sys.argv[1]]())
