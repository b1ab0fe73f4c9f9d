"""What a kept item was made from and by: items of equal keys are equal, so one stands for the other."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from weft import __version__
from weft.config import Component, Namespace, components_digest
from weft.data import packing
from weft.data.parts import Column

# Packages that read images or calculate in transforms; whoever made a transform is added to them.
_LIBRARIES = (
    "torch", "numpy", "scipy", "monai", "nibabel", "pydicom", "pynrrd", "pillow", "itk", "SimpleITK", "scikit-image",
)  # fmt: skip
# Images in two files, of which a table names one.
_COMPANIONS = {
    ".hdr": (".img",),
    ".img": (".hdr",),
    ".mhd": (".raw", ".zraw"),
    ".nhdr": (".raw", ".raw.gz"),
}


def recipe(components: Sequence[Component], namespace: Namespace, known: Mapping[str, Any], base: Path) -> str:
    """Everything but the source that an item after the base transforms depends on, as JSON.

    Args:
        components: the base transforms.
        namespace: looks up names.
        known: what transforms are supplied with (`weft.config.supplied`).
        base: folder that relative paths are relative to; files that arguments name count by size and time.

    Raises:
        ConfigError: the state or source of a transform cannot be told.
    """
    packages = {getattr(namespace.find(component, "transform"), "__module__", "") for component in components}
    names = sorted({*_LIBRARIES, *(package.partition(".")[0] for package in packages if package)})
    parts = {
        "weft": __version__,
        "format": packing.FORMAT,
        "transforms": [component.name for component in components],
        "digest": components_digest(components, "transform", namespace),
        "supplied": dict(known),
        "files": [stamp(file) for component in components for file in _files_in(component.arguments, base)],
        "versions": {name: version for name in names if (version := _version(name)) is not None},
        "machine": [platform.machine(), torch.backends.cpu.get_cpu_capability()],  # rounding differs between them
    }
    return json.dumps(parts, sort_keys=True, indent=1)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return None


def _files_in(value: Any, base: Path) -> Iterator[Path]:
    """Files that arguments name: an atlas, a template."""
    if isinstance(value, Component):
        value = value.arguments
    if isinstance(value, str | Path):
        yield from dict.fromkeys(file for file in (base / value, Path(value)) if _is_file(file))
    elif isinstance(value, Mapping):
        for child in value.values():
            yield from _files_in(child, base)
    elif isinstance(value, list | tuple):
        for child in value:
            yield from _files_in(child, base)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # too long for a name: some other text
        return False


class ItemKeys:
    """Names items by what they are made of: files by path, size and time of change, other values by content.

    Args:
        columns: inputs and targets of the items.
    """

    def __init__(self, columns: Sequence[Column]) -> None:
        self.columns = list(columns)
        self._known: dict[int, str] = {}

    def __call__(self, row: int) -> str:
        """The key of a row (sha256, hexadecimal).

        Raises:
            FileNotFoundError: a file is not there.
        """
        if row not in self._known:
            sources = [[column.name, column.role, _source(column, row)] for column in self.columns]
            self._known[row] = hashlib.sha256(json.dumps(sources).encode()).hexdigest()
        return self._known[row]


def _source(column: Column, row: int) -> list[Any]:
    value = column.values[row]
    if column.is_path:
        return stamp(Path(value))
    value = value.contiguous().numpy() if isinstance(value, Tensor) else np.asarray(value)
    return [str(value.dtype), list(value.shape), hashlib.sha256(value.tobytes()).hexdigest()]


def stamp(path: Path) -> list[Any]:
    """Path, size and time of change (ns) of a file and those that belong to it, or of all in a folder (a series)."""
    files = [path]
    if path.is_dir():
        files = sorted(entry for entry in path.rglob("*") if entry.is_file())
    for ending in _COMPANIONS.get(path.suffix.lower(), ()):
        companion = path.with_suffix(ending)
        files += [companion] if companion.is_file() else []
    stats = [(file, file.stat()) for file in files]
    return [[str(file.resolve()), stat.st_size, stat.st_mtime_ns] for file, stat in stats]
