"""Python files of the user (patches, experiments, programs), loaded as modules under names of their own."""

from __future__ import annotations

import base64
import contextlib
import importlib
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import ModuleType

from weft.errors import ConfigError, Problem

PACKAGE = "weft.config.patched"
MAIN = "__main__"

_loading: ContextVar[tuple[Path, ...]] = ContextVar("weft patches that are being loaded", default=())


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


def main_file() -> Path | None:
    """The file of the running program, which later processes can load as a patch.

    None where there is no such file: in a notebook or console, and for a module of a package (`python -m a.b`), which
    goes by its import path.
    """
    main = sys.modules.get(MAIN)
    file, spec = getattr(main, "__file__", None), getattr(main, "__spec__", None)
    if file is None or (spec is not None and spec.parent) or not Path(file).is_file():
        return None
    return Path(file).resolve()


def own_file_of(value: object) -> Path | None:
    """The user's file that a class or function comes from: a patch, a Python experiment file, or the running program;
    None for what has an import path."""
    module = getattr(value, "__module__", None) or ""
    return main_file() if module == MAIN else file_of(module)


@contextmanager
def being_loaded(path: Path) -> Iterator[None]:
    """Inside, a user's file is executed; see `refuse_while_loading`."""
    token = _loading.set((*_loading.get(), path))
    try:
        yield
    finally:
        _loading.reset(token)


def refuse_while_loading() -> None:
    """Raise while a user's file is being loaded for its classes and functions: whatever begins a run then, would begin
    one each time, and perhaps load the file again, without end.

    Raises:
        ConfigError: names the line of the file that began it.
    """
    if not _loading.get():
        return
    path = _loading.get()[-1]
    frames = [frame for frame in traceback.extract_stack() if frame.filename == str(path)]
    call = (frames[-1].line if frames else None) or "Weft"
    message = f"runs `{call}` whenever it is loaded for the classes and functions in it"
    hint = "put what only the program itself shall do under: if __name__ == '__main__':"
    raise ConfigError(Problem(message, hint, (), path, frames[-1].lineno if frames else None))


def load_patch(path: Path | str) -> ModuleType:
    """Load a Python file as a module of its own, once per process and version of the file. Its `__name__` is not
    `__main__`, so that the part of a program under such a guard is left out.

    Args:
        path: the file; two files of the same name in different folders are two modules.

    Raises:
        ConfigError: the file is missing, or an error happened in it; names file and line.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(Problem(f"there is no file {path}", "check the path", (), path))
    if path.resolve() in _loading.get():
        refuse_while_loading()
    name = module_name(path)
    loaded = sys.modules.get(name)
    if loaded is not None:
        if loaded.__dict__.get("__weft_source__") == path.read_bytes():
            return loaded
        del sys.modules[name]  # edited since, e.g. between two cells of a notebook
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)  # it may import what lies beside it, as when Python runs it as a program
    try:
        return importlib.import_module(name)
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:  # whatever the user's code raises is told with its place
        raise ConfigError(problem_in_file(error, path)) from error
    finally:
        with contextlib.suppress(ValueError):  # the file itself may have taken it away
            sys.path.remove(folder)


def imported_beside(path: Path | str) -> dict[str, Path]:
    """The files of modules that were imported from the folder of a file, by their paths there: what it may need.

    Modules of packages that are installed elsewhere, or below it in an environment of their own, are none of these.
    """
    folder = Path(path).resolve().parent
    found = {}
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if not isinstance(file, str) or name == MAIN or name.partition(".")[0] == PACKAGE.partition(".")[0]:
            continue
        place = name.replace(".", "/")
        for relative in (f"{place}.py", f"{place}/__init__.py"):
            if Path(file) == folder / relative:
                found[relative] = folder / relative
    return found


def problem_in_file(error: BaseException, path: Path) -> Problem:
    """An error of the user's code as a problem that names the line of the file that led to it."""
    if isinstance(error, SyntaxError) and error.filename == str(path.resolve()):
        return Problem(f"is not valid Python: {error.msg}", "", (), path, error.lineno, error.offset)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path.resolve())]
    line = frames[-1].lineno if frames else None
    hint = ""
    if isinstance(error, ModuleNotFoundError):
        hint = f"install {error.name!r}, or check how the name is written"
    if isinstance(error, SystemExit):
        hint = "it ends the program when it is loaded: put what only the program does under: if __name__ == '__main__':"
    return Problem(f"{type(error).__name__}: {error}", hint, (), path, line)


def _identifier(text: str) -> str:
    return "".join(character if character.isalnum() else "_" for character in text)
