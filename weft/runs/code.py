"""The code of a run as it was: Weft itself and the user's files, kept in `code/`."""

from __future__ import annotations

import functools
import hashlib
import io
import os
import zipfile
from collections.abc import Iterable
from pathlib import Path

import weft
from weft.config.patches import imported_beside
from weft.errors import RunDirectoryError
from weft.runs.directory import RunDirectory
from weft.runs.files import explained, write_atomically
from weft.runs.moments import looked_at_once

_LEAVE_OUT = {"__pycache__", ".mypy_cache", ".ruff_cache"}
_COMPILED = {".pyc", ".pyo", ".so", ".pyd"}
Stamps = tuple[tuple[str, int, int], ...]
_NO_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip knows: the same code gives the same bytes


def code_digest() -> str:
    """Digest of Weft's own source (sha256, hex): whether two runs used the same code, whatever its version says."""
    return _digest_of(_stamps(_package()))


@functools.lru_cache(maxsize=1)
def _digest_of(stamps: Stamps) -> str:
    digest = hashlib.sha256()
    for name, _, _ in stamps:
        content = (_package() / name).read_bytes()
        digest.update(f"{len(name)}:{name}:{len(content)}:".encode())
        digest.update(content)
    return digest.hexdigest()


def snapshot_code(run: RunDirectory, patches: Iterable[Path] = ()) -> dict[str, str]:
    """Keep the code of a run: `code/weft.zip` and `code/patches/`, with the modules that patches imported from beside
    them.

    Args:
        run: the run.
        patches: the user's files, or folders of them (without caches and compiled files).

    Returns:
        where each patch was put, relative to the run, by the path it was given as.

    Raises:
        RunDirectoryError: a patch does not exist, or the disk refuses.
    """
    target = run.code / "patches"
    stored: dict[str, str] = {}
    taken: set[str] = set()
    with explained(run.code, kept="everything written before"):
        run.code.mkdir(exist_ok=True)
        write_atomically(run.code / "weft.zip", _zip_of(_stamps(_package())))
        for patch in patches:
            if not patch.exists():
                raise RunDirectoryError(f"the patch {patch} does not exist", "correct its path under `patches:`")
            name = _free_name(patch, taken)
            _copy(patch, target / name)
            stored[str(patch)] = (target / name).relative_to(run.path).as_posix()
        for name in filter(os.path.isfile, stored):
            for relative, module in imported_beside(name).items():
                if relative not in taken:
                    taken.add(relative)
                    _copy(module, target / relative)
    return stored


def _package() -> Path:
    return Path(weft.__file__).parent


def _source_files(root: Path) -> list[Path]:
    """The files of a package in a fixed order, without what Python and tools leave between them."""

    found = []
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in _LEAVE_OUT]
        found += [Path(folder, name) for name in names if not name.startswith(".")]
    files = [file for file in found if file.suffix not in _COMPILED and file.is_file()]
    return sorted(files, key=lambda file: file.relative_to(root).as_posix())


@looked_at_once
def _stamps(root: Path) -> Stamps:
    """Name, time of change and size of each file: while these are the same, so is what is made of the files."""
    files = [(file.relative_to(root).as_posix(), file.stat()) for file in _source_files(root)]
    return tuple((name, status.st_mtime_ns, status.st_size) for name, status in files)


@functools.lru_cache(maxsize=1)
def _zip_of(stamps: Stamps) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, _, _ in stamps:
            entry = zipfile.ZipInfo(f"weft/{name}", date_time=_NO_DATE)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3  # Unix, wherever it is written
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, (_package() / name).read_bytes())
    return buffer.getvalue()


def _free_name(patch: Path, taken: set[str]) -> str:
    """The patch's own name, numbered where two folders hold one of the same name."""
    name, number = patch.name, 1
    while name in taken:
        number += 1
        name = f"{patch.stem}-{number}{patch.suffix}"
    taken.add(name)
    return name


def _copy(source: Path, target: Path) -> None:
    files = [(source, target)]
    if source.is_dir():
        files = [(file, target / file.relative_to(source)) for file in _source_files(source)]
    for original, copy in files:
        copy.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(copy, original.read_bytes())
