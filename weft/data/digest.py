"""Digests of the data's content, made once for each state of a file."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from weft.config import DatasetConfig, Namespace
from weft.data.parts import Part
from weft.data.sources import read_parts
from weft.errors import DataError

KnownDigest = Callable[[Path], str | None]


@dataclass(frozen=True, slots=True)
class FileDigest:
    """Content of one file.

    Args:
        path: relative to the experiment's folder where it lies below it.
        size: in bytes.
        sha256: hexadecimal.
    """

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What the data consist of.

    Args:
        digest: sha256 over everything, hexadecimal; it depends on content and not on where files lie. None where the
            data are not digested.
        files: every file, by path.
        undigested: why there is no digest; empty when there is one.
    """

    digest: str | None
    files: list[FileDigest] = field(default_factory=list)
    undigested: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        files = [{"path": file.path, "size": file.size, "sha256": file.sha256} for file in self.files]
        return {"digest": self.digest, "files": files, "undigested": self.undigested}


def digest_data(
    dataset: DatasetConfig,
    base: Path,
    cache: Path | None,
    *,
    namespace: Namespace | None = None,
    only_cached: bool = False,
) -> Manifest:
    """Digest the data of an experiment.

    Args:
        dataset: the section `dataset` of the experiment.
        base: folder that relative paths are relative to.
        cache: JSON file that remembers digests by path, size and time of change; None to digest everything anew.
        namespace: looks up components; needed for arrays that a component returns.
        only_cached: read no file to digest it and call no component; without a known digest the data are undigested.

    Returns:
        The manifest. Items of torch datasets are not digested: loading all of them may take hours.

    Raises:
        DataError: a file is missing or cannot be read.
    """
    if dataset.class_ is not None:
        return Manifest(None, undigested="a torch dataset's content is known to its own code only")
    names = namespace or Namespace()
    if only_cached and dataset.source() == "arrays" and not _is_files(dataset.arrays):
        return Manifest(None, undigested="the arrays of a component are digested when they are loaded")
    parts = read_parts(dataset, names, base)
    files = list(dict.fromkeys(file for name in sorted(parts) for file in parts[name].files))
    if not files:
        return Manifest(_digest_arrays(parts))
    known = _DigestCache(cache)
    try:
        digests = [known.digest(file, only_cached) for file in files]
    finally:
        known.save()
    missing = digests.count(None)
    if missing:
        return Manifest(None, undigested=f"{missing} of {len(files)} files were not digested yet")
    found = [
        FileDigest(_relative(file, base), file.stat().st_size, digest)
        for file, digest in zip(files, digests, strict=True)
        if digest is not None
    ]
    return Manifest(_digest_files(parts, dict(zip(files, found, strict=True))), found)


def known_digests(cache: Path) -> KnownDigest:
    """Tells the sha256 of files that were digested before and have not changed since; None for all others.

    Args:
        cache: as for `digest_data`.
    """
    known = _DigestCache(cache)
    return lambda file: known.digest(file, only_cached=True)


def _is_files(arrays: Any) -> bool:
    return hasattr(arrays, "inputs") or isinstance(arrays, dict)


def _relative(file: Path, base: Path) -> str:
    try:
        return file.resolve().relative_to(base.resolve()).as_posix()
    except ValueError:
        return str(file)


def _digest_files(parts: dict[str, Part], digests: dict[Path, FileDigest]) -> str:
    """Over names of parts, names of cases and contents: the same wherever the folder lies."""
    total = hashlib.sha256()
    for name in sorted(parts):
        total.update(f"part {name} {len(parts[name])}\n".encode())
        for file in parts[name].files:
            total.update(f"{file.name} {digests[file].sha256}\n".encode())
    return total.hexdigest()


def _digest_arrays(parts: dict[str, Part]) -> str:
    total = hashlib.sha256()
    for name in sorted(parts):
        for column in parts[name].columns:
            values = column.values.numpy() if isinstance(column.values, Tensor) else column.values
            total.update(f"{name} {column.name} {column.role} {values.dtype} {values.shape}\n".encode())
            total.update(_content(values))
    return total.hexdigest()


def _content(values: Any) -> bytes:
    if values.dtype.kind in "OUS":
        return json.dumps([str(value) for value in values.ravel()]).encode()
    return bytes(values.astype(values.dtype.newbyteorder("<")).tobytes())


class _DigestCache:
    """Digests by path; one counts as long as size and time of change are the same."""

    def __init__(self, file: Path | None) -> None:
        self.file = file
        self.entries: dict[str, Any] = {}
        self.changed = False
        if file is not None and file.is_file():
            try:
                content = json.loads(file.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                content = {}  # made anew: it only saves time
            self.entries = content if isinstance(content, dict) else {}

    def digest(self, file: Path, only_cached: bool) -> str | None:
        """The sha256 of a file (of a folder: of all files in it); None when it is not known and must not be read."""
        try:
            size, time = _size_and_time(file)
            key = str(file.resolve())
            entry = self.entries.get(key)
            if isinstance(entry, list) and len(entry) == 3 and entry[:2] == [size, time]:
                return str(entry[2])
            if only_cached:
                return None
            digest = digest_file(file)
        except OSError as error:
            raise DataError(f"{file} cannot be read: {error}", "check that it exists and may be read") from error
        self.entries[key] = [size, time, digest]
        self.changed = True
        return digest

    def save(self) -> None:
        """Write the cache whole or not at all; a folder that cannot be written to costs time only."""
        if self.file is None or not self.changed:
            return
        temporary: str | None = None
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=self.file.parent, prefix=f".{self.file.name}.")
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                json.dump(self.entries, stream)
            os.replace(temporary, self.file)
        except OSError:
            if temporary is not None:
                Path(temporary).unlink(missing_ok=True)


def _members(path: Path) -> Sequence[Path]:
    return sorted(entry for entry in path.rglob("*") if entry.is_file()) if path.is_dir() else [path]


def _size_and_time(path: Path) -> tuple[int, int]:
    """Of a folder (a DICOM series), the sum of sizes and the latest time."""
    stats = [member.stat() for member in _members(path)]
    return sum(stat.st_size for stat in stats), max((stat.st_mtime_ns for stat in stats), default=0)


def digest_file(path: Path) -> str:
    """The sha256 of a file's content, hexadecimal; of a folder, of all files in it with their names."""
    total = hashlib.sha256()
    for member in _members(path):
        if path.is_dir():
            total.update(f"{member.relative_to(path).as_posix()}\n".encode())
        for block in _blocks(member):
            total.update(block)
    return total.hexdigest()


def _blocks(file: Path) -> Iterator[bytes]:
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            yield block
