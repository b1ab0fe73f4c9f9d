"""Checks that an image and its label map lie on the same grid: size and, where the files tell, voxel size and place."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weft.actions.checking.findings import Findings, count, listed, number
from weft.actions.checking.raw import path_columns
from weft.data.items import PICTURES
from weft.data.parts import Part

_NIFTI = (".nii", ".nii.gz", ".hdr", ".img")
_TOLERANCE = 1e-3  # of the entries of an affine matrix, in mm: rounding of other programs lies below


@dataclass(frozen=True, slots=True)
class Grid:
    """Where the voxels of a file lie.

    Args:
        shape: sizes of its spatial axes.
        affine: from voxel to world coordinates in mm `[4, 4]`; None where the file does not tell.
    """

    shape: tuple[int, ...]
    affine: NDArray[np.float64] | None = None


def check_geometry(parts: Mapping[str, Part], findings: Findings, seconds: float, *, transformed: bool) -> None:
    """Compare images with their label maps, by the headers of the files alone.

    Args:
        parts: the raw part of each split.
        findings: goes in here.
        seconds: how long to go on.
        transformed: whether transforms follow, which may bring both to one grid.
    """
    end = time.monotonic() + seconds
    for split, part in parts.items():
        columns = list(path_columns(part))
        images = [column for column in columns if column.role == "input"]
        labels = [column for column in columns if column.role == "target"]
        misfits: dict[str, str] = {}
        for row, case in enumerate(part.cases):
            if not images or not labels or time.monotonic() > end:
                break
            words = difference(grid_of(Path(images[0].values[row])), grid_of(Path(labels[0].values[row])))
            if words:
                misfits[case] = words
        if misfits:
            _report(split, len(part), misfits, findings, transformed=transformed)


def _report(split: str, items: int, misfits: Mapping[str, str], findings: Findings, *, transformed: bool) -> None:
    case, words = next(iter(misfits.items()))
    findings.report(
        "warning" if transformed else "error",
        "geometry",
        split,
        f"image and label map differ in {count(len(misfits), 'case')} of {items} ({listed(misfits, 3)}); "
        f"{case}: {words}",
        "resample the label maps onto their images (mode nearest; MONAI: ResampleToMatchd), or export them again",
        cases=dict(list(misfits.items())[:20]),
    )


def difference(image: Grid | None, label: Grid | None) -> str:
    """How two grids differ, in words; empty where they do not, or where one of them is unknown."""
    if image is None or label is None:
        return ""
    axes = min(len(image.shape), len(label.shape))
    if image.shape[-axes:] != label.shape[-axes:]:
        return f"size {_sizes(image.shape)} against {_sizes(label.shape)}"
    if image.affine is None or label.affine is None or np.allclose(image.affine, label.affine, atol=_TOLERANCE):
        return ""
    first, second = (np.linalg.norm(grid.affine[:3, :3], axis=0) for grid in (image, label))  # type: ignore[index]
    if not np.allclose(first, second, atol=_TOLERANCE):
        return f"voxel size {_millimetres(first)} against {_millimetres(second)}"
    shift = float(np.abs(image.affine - label.affine).max())
    return f"orientation or origin differ, by up to {number(shift)} (entries of the affine matrix)"


def _sizes(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))


def _millimetres(sizes: Any) -> str:
    return "×".join(f"{size:.4g}" for size in sizes) + " mm"


def grid_of(file: Path) -> Grid | None:
    """The grid of a picture, a NumPy array or a NIfTI file, from its header; None for other files and bad ones.

    What cannot be read is told of where items are loaded.
    """
    name = file.name.lower()
    try:
        if name.endswith(PICTURES):
            from PIL import Image

            with Image.open(file) as picture:
                return Grid((picture.height, picture.width))
        if name.endswith(".npy"):
            shape = np.load(file, mmap_mode="r", allow_pickle=False).shape
            return Grid(shape[1:] if len(shape) > 2 and shape[0] < 8 else shape)  # channels come first
        if name.endswith(_NIFTI):
            return _nifti(file)
    except (OSError, ValueError, EOFError):
        return None
    return None


def _nifti(file: Path) -> Grid | None:
    try:
        import nibabel
    except ImportError:  # without it nothing here reads such files
        return None
    try:
        header: Any = nibabel.load(file)
    except nibabel.filebasedimages.ImageFileError:
        return None
    return Grid(tuple(header.shape[:3]), np.asarray(header.affine, np.float64))
