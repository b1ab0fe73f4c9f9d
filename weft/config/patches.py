"""Python files of the user (patches, experiments), loaded as modules under names of their own."""

from __future__ import annotations

import base64
import importlib
import sys
import traceback
from pathlib import Path
from types import ModuleType

from weft.errors import ConfigError, Problem

PACKAGE = "weft.config.patched"


def module_name(path: Path) -> str:
    """The name under which a file is imported.

    It holds the resolved path itself, so two files never share a name, and a process that was just started (a loader
    worker that unpickles a dataset) can import the module without having been told of it.
    """
    coded = base64.b32encode(str(path.resolve()).encode()).decode().rstrip("=").lower()
    return f"{PACKAGE}.{_identifier(path.stem)}__{coded}"


def file_of(name: str) -> Path | None:
    """The file that a module name of `module_name` stands for; None for any other name."""
    package, _, rest = name.rpartition(".")
    if package != PACKAGE or "__" not in rest:
        return None
    coded = rest.rpartition("__")[2].upper()
    try:
        return Path(base64.b32decode(coded + "=" * (-len(coded) % 8)).decode())
    except ValueError:
        return None


def load_patch(path: Path | str) -> ModuleType:
    """Load a Python file as a module of its own, once per process and version of the file.

    Args:
        path: the file; two files of the same name in different folders are two modules.

    Raises:
        ConfigError: the file is missing, or an error happened in it; names file and line.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(Problem(f"there is no file {path}", "check the path", (), path))
    name = module_name(path)
    loaded = sys.modules.get(name)
    if loaded is not None:
        if loaded.__dict__.get("__weft_source__") == path.read_bytes():
            return loaded
        del sys.modules[name]  # edited since, e.g. between two cells of a notebook
    try:
        return importlib.import_module(name)
    except ConfigError:
        raise
    except Exception as error:  # whatever the user's code raises is told with its place
        raise ConfigError(problem_in_file(error, path)) from error


def problem_in_file(error: BaseException, path: Path) -> Problem:
    """An error of the user's code as a problem that names the line of the file that led to it."""
    if isinstance(error, SyntaxError) and error.filename == str(path.resolve()):
        return Problem(f"is not valid Python: {error.msg}", "", (), path, error.lineno, error.offset)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path.resolve())]
    line = frames[-1].lineno if frames else None
    hint = ""
    if isinstance(error, ModuleNotFoundError):
        hint = f"install {error.name!r}, or check how the name is written"
    return Problem(f"{type(error).__name__}: {error}", hint, (), path, line)


def _identifier(text: str) -> str:
    return "".join(character if character.isalnum() else "_" for character in text)
