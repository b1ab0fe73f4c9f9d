"""The source of the user's code that a class or function depends on, in a form that comments and layout leave alone."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import inspect
import io
import linecache
import sys
import sysconfig
import textwrap
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from weft.errors import ConfigError

_LAYOUT = {tokenize.COMMENT, tokenize.NL, tokenize.ENCODING, tokenize.ENDMARKER}
_OPENING = {
    value for name in ("FSTRING_START", "TSTRING_START") if (value := getattr(tokenize, name, None)) is not None
}
_CLOSING = {value for name in ("FSTRING_END", "TSTRING_END") if (value := getattr(tokenize, name, None)) is not None}


def normalised(source: str) -> str:
    """Python source without comments, docstrings, blank lines and spacing.

    It is made of tokens rather than of the syntax tree, whose text differs between versions of Python.
    """
    lines: list[list[str]] = [[]]
    for kind, text in _tokens(source):
        if kind == tokenize.NEWLINE:
            lines.append([])
        elif kind in _MARKS:
            lines += [[_MARKS[kind]], []]
        else:
            lines[-1].append(text)
    return "\n".join(" ".join(line) for line in lines if line and not _is_bare_text(line))


_MARKS = {tokenize.INDENT: "<in>", tokenize.DEDENT: "<out>"}


def _is_bare_text(line: list[str]) -> bool:
    """Whether a logical line is a text by itself: a docstring."""
    return len(line) == 1 and line[0][-1:] in ("'", '"')


def _tokens(source: str) -> Iterator[tuple[int, str]]:
    """Tokens that mean something; a formatted string is one token, as it was before Python 3.12."""
    rows = source.splitlines(keepends=True)
    depth, start = 0, (0, 0)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in _OPENING:
            start = token.start if depth == 0 else start
            depth += 1
        elif token.type in _CLOSING:
            depth -= 1
            if depth == 0:
                yield tokenize.STRING, _between(rows, start, token.end)
        elif depth == 0 and token.type not in _LAYOUT:
            yield token.type, token.string


def _between(rows: list[str], start: tuple[int, int], end: tuple[int, int]) -> str:
    if start[0] == end[0]:
        return rows[start[0] - 1][start[1] : end[1]]
    return rows[start[0] - 1][start[1] :] + "".join(rows[start[0] : end[0] - 1]) + rows[end[0] - 1][: end[1]]


@dataclass(frozen=True, eq=False)
class SourceFile:
    """A Python file: which statement of its top level binds which names, and which act without binding one."""

    text: str
    bindings: dict[str, list[ast.stmt]]
    effects: list[ast.stmt]

    @classmethod
    def read(cls, path: Path) -> SourceFile:
        """Parse a file; raises ConfigError when that is impossible."""
        try:
            return _parse(path.read_text(encoding="utf-8"))
        except (OSError, SyntaxError, ValueError) as error:
            raise ConfigError(
                f"{path} cannot be read as Python: {error}", "the fingerprint needs the source of user code"
            ) from error

    def needed(self, names: Iterable[str]) -> list[ast.stmt]:
        """The statements that bind the names, and all that these use of the same file, in the order of the file."""
        found: dict[int, ast.stmt] = {}
        open_names = list(names)
        seen = set(open_names)
        while open_names:
            for statement in self.bindings.get(open_names.pop(), ()):
                found[statement.lineno] = statement
                for name in _names_used(statement) - seen:
                    seen.add(name)
                    open_names.append(name)
        return [found[line] for line in sorted(found)]

    def segment(self, statement: ast.stmt) -> str:
        """The source of a top-level statement, decorators included."""
        first = min([statement.lineno, *(node.lineno for node in getattr(statement, "decorator_list", ()))])
        return "".join(self.text.splitlines(keepends=True)[first - 1 : statement.end_lineno])


@lru_cache(maxsize=256)
def _parse(text: str) -> SourceFile:
    bindings: dict[str, list[ast.stmt]] = {}
    effects = []
    for statement in ast.parse(text).body:
        for name in _names_bound(statement):
            bindings.setdefault(name, []).append(statement)
        if _acts(statement):
            effects.append(statement)
    return SourceFile(text, bindings, effects)


def _names_bound(statement: ast.stmt) -> set[str]:
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {statement.name}
    bound = set()
    for node in ast.walk(statement):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            bound.add(node.id)
        elif isinstance(node, ast.alias):
            bound.add((node.asname or node.name).partition(".")[0])
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            bound.add(node.name)
    return bound


def _names_used(statement: ast.stmt) -> set[str]:
    return {node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}


def _acts(statement: ast.stmt) -> bool:
    """Whether a statement may change something other than a name of its own file (a class of torch, say)."""
    if isinstance(statement, ast.Expr):
        return not isinstance(statement.value, ast.Constant)
    if isinstance(statement, ast.Assign):
        return not all(isinstance(target, ast.Name | ast.Tuple) for target in statement.targets)
    if isinstance(statement, ast.If) and "__main__" in ast.dump(statement.test):
        return False
    simple = (
        ast.FunctionDef,
        ast.AsyncFunctionDef,
        ast.ClassDef,
        ast.Import,
        ast.ImportFrom,
        ast.AnnAssign,
        ast.AugAssign,
    )
    return not isinstance(statement, (*simple, ast.Pass))


def is_user_file(path: Path) -> bool:
    """Whether a file is the user's code: not of Python itself, an installed package or Weft."""
    path = path.resolve()
    if {"site-packages", "dist-packages"} & set(path.parts):
        return False
    library = [Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib")]
    weft = Path(__file__).resolve().parents[1]
    return not any(path.is_relative_to(folder) for folder in (*library, weft))


def file_of_module(name: str) -> Path | None:
    """The file of a module that is imported or can be; None for built-in ones and those that are not there."""
    module = sys.modules.get(name)
    origin = getattr(module, "__file__", None)
    if module is None:
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError, AttributeError):
            return None
        origin = spec.origin if spec is not None else None
    path = Path(origin) if origin else None
    return path if path is not None and path.is_file() else None


def user_file_of(target: Any) -> Path | None:
    """The user's file that a class or function is defined in; None when a library defines it."""
    path = file_of_module(target.__module__) if getattr(target, "__module__", None) else None
    return path if path is not None and is_user_file(path) else None


def is_library(target: Any) -> bool:
    """Whether a class or function comes from Python, an installed package or Weft."""
    module = getattr(target, "__module__", None) or "builtins"
    if module == "__main__" or "<locals>" in getattr(target, "__qualname__", ""):
        path = file_of_module(module)
        return path is not None and not is_user_file(path)
    return user_file_of(target) is None


def definition_digest(target: Any) -> str:
    """Digest of the source of a user's class or function and of all that it uses of the user's files."""
    path = user_file_of(target)
    if path is not None and path.suffix != ".py":
        return hashlib.sha256(path.read_bytes()).hexdigest()
    file = SourceFile.read(path) if path is not None else None
    name = target.__qualname__.partition(".")[0]
    if file is not None and path is not None and "<" not in target.__qualname__ and name in file.bindings:
        return _digest(_texts(file, file.needed([name]), target.__module__, {path.resolve()}))
    own = _source_of_object(target)
    if file is None or path is None:
        return _digest([normalised(own)])
    statements = file.needed({name for statement in ast.parse(own).body for name in _names_used(statement)})
    return _digest([normalised(own), *_texts(file, statements, target.__module__, {path.resolve()})])


def effects_digest(path: Path) -> str | None:
    """Digest of what a user's file does besides defining things; None when it only defines."""
    file = SourceFile.read(path)
    if not file.effects:
        return None
    used = {name for statement in file.effects for name in _names_used(statement)}
    return _digest(_texts(file, [*file.effects, *file.needed(used)], "", {path.resolve()}))


def _texts(file: SourceFile, statements: list[ast.stmt], module: str, seen: set[Path]) -> list[str]:
    """Normalised statements, and the whole of each user's file that they import from."""
    texts = [normalised(file.segment(statement)) for statement in statements]
    for statement in statements:
        for imported in sorted(_modules_imported(statement, module)):
            path = file_of_module(imported)
            if path is None or path.suffix != ".py" or not is_user_file(path) or path.resolve() in seen:
                continue
            seen.add(path.resolve())
            other = SourceFile.read(path)
            body = [statement for bound in other.bindings.values() for statement in bound]
            texts += [normalised(other.text), *_texts(other, body, imported, seen)]
    return texts


def _modules_imported(statement: ast.stmt, module: str) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(statement):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = module.rsplit(".", node.level)[0] if node.level else ""
            base = ".".join(part for part in (package, node.module) if part)
            found.add(base)
            found.update(f"{base}.{alias.name}" for alias in node.names)
    return found


def _source_of_object(target: Any) -> str:
    """Source of something that is not at the top level of a file: defined in a function or a notebook."""
    if getattr(target, "__name__", "") == "<lambda>":
        raise ConfigError("a lambda has no name, so its source cannot be told", "write a function with def")
    try:
        found = _source_of_class(target) if isinstance(target, type) else None
        return textwrap.dedent(found if found is not None else inspect.getsource(target))
    except (OSError, TypeError, SyntaxError) as error:
        raise ConfigError(
            f"the source of {target.__qualname__} cannot be read: {error}", "define it in a file and import it"
        ) from error


def _source_of_class(target: type) -> str | None:
    """Source of a class, found by one of its methods: its name may mean another class of the same file or notebook."""
    own = [value for value in vars(target).values() if inspect.isfunction(value)]
    own = [function for function in own if function.__qualname__.startswith(f"{target.__qualname__}.")]
    if not own:
        return None
    code = own[0].__code__
    lines = linecache.getlines(code.co_filename)
    for node in ast.walk(ast.parse("".join(lines))):
        if isinstance(node, ast.ClassDef) and node.name == target.__name__:
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            if first <= code.co_firstlineno <= (node.end_lineno or 0):
                return "".join(lines[first - 1 : node.end_lineno])
    return None


def _digest(texts: list[str]) -> str:
    return hashlib.sha256("\n".join(sorted(set(texts))).encode()).hexdigest()
