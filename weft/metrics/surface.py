"""Distances between the surfaces of two segmentations, in physical units.

The surface of a structure is its voxels that touch another structure or the border of the image by a face (an edge in
2D). The distance of a surface voxel is that to the nearest surface voxel of the other structure. All scores follow from
the two lists of distances: hd is the larger maximum, hd95 the larger of the two 95th percentiles (linear
interpolation), assd the mean of both lists together, nsd the share of both lists within a tolerance. These are the
definitions of MONAI's metrics. SciPy is imported where it is used: it costs more to import than the rest of the
package.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from math import prod
from typing import Any

import numpy

from weft.errors import UsageError
from weft.metrics.formulas import Array

TREE_COST = 8.0  # a surface voxel in the tree costs about as much as this many voxels of a distance transform
ALWAYS_TREE = 20_000


@dataclass(frozen=True, slots=True)
class SurfaceDistances:
    """Distances between the surfaces of a prediction and of the truth, in the units of the spacing.

    Args:
        to_truth: of each surface voxel of the prediction to the truth's surface, float64 [n].
        to_prediction: of each surface voxel of the truth to the prediction's surface, float64 [m].
    """

    to_truth: Array
    to_prediction: Array

    def hausdorff(self, percentile: float = 100.0) -> float:
        """Larger of the two directed percentiles; nan when a structure is missing.

        Args:
            percentile: from 0 to 100, which gives the Hausdorff distance.
        """
        if not self.defined:
            return float("nan")
        return float(max(numpy.percentile(part, percentile) for part in (self.to_truth, self.to_prediction)))

    def average(self) -> float:
        """Average symmetric surface distance; nan when a structure is missing."""
        if not self.defined:
            return float("nan")
        return float((self.to_truth.sum() + self.to_prediction.sum()) / (self.to_truth.size + self.to_prediction.size))

    def within(self, tolerance: float) -> float:
        """Normalised surface Dice (Nikolov et al. 2018, arXiv:1809.04430, counted in voxels): share of surface voxels
        within the tolerance; 0 when one structure is missing, nan when both are.

        Args:
            tolerance: from 0, in the units of the spacing.
        """
        total = self.to_truth.size + self.to_prediction.size
        if not total:
            return float("nan")
        return float(((self.to_truth <= tolerance).sum() + (self.to_prediction <= tolerance).sum()) / total)

    @property
    def defined(self) -> bool:
        """Whether both structures are there."""
        return bool(self.to_truth.size and self.to_prediction.size and numpy.isfinite(self.to_truth[0]))


def surface_distances(prediction: Array, truth: Array, spacing: Sequence[float] | None = None) -> SurfaceDistances:
    """Distances between the surfaces of two structures, both directions.

    Args:
        prediction: bool array of 2 or 3 dimensions.
        truth: bool array of the same shape.
        spacing: size of a voxel along each axis; None is 1.

    Raises:
        UsageError: the shapes differ, or the spacing does not fit.
    """
    prediction, truth = numpy.asarray(prediction, bool), numpy.asarray(truth, bool)
    if prediction.shape != truth.shape:
        raise UsageError(f"surface distances: prediction {prediction.shape} and truth {truth.shape} differ in shape")
    steps = check_spacing(spacing, prediction.ndim)
    boxes = [_box(mask) for mask in (prediction, truth)]
    if boxes[0] is None or boxes[1] is None:
        return _one_sided(prediction, truth)
    region = union(boxes[0], boxes[1])
    return distances_in_region(prediction[region], truth[region], steps)


def distances_in_region(prediction: Array, truth: Array, spacing: Array) -> SurfaceDistances:
    """As `surface_distances`, for masks cut to the box that holds both; both structures are there."""
    ours, theirs = surface(prediction), surface(truth)
    size = int(ours.sum()) + int(theirs.sum())
    tree = size <= ALWAYS_TREE or size * TREE_COST < prod(ours.shape)
    nearest = _by_tree if tree else _by_transform
    return SurfaceDistances(nearest(ours, theirs, spacing), nearest(theirs, ours, spacing))


def surface(mask: Array) -> Array:
    """Voxels of the mask with a face to something else or to the border; bool."""
    inner = mask.copy()
    for axis in range(mask.ndim):
        here, there = [slice(None)] * mask.ndim, [slice(None)] * mask.ndim
        here[axis], there[axis] = slice(1, None), slice(None, -1)
        inner[tuple(here)] &= mask[tuple(there)]
        inner[tuple(there)] &= mask[tuple(here)]
        for end in (0, -1):
            here[axis] = slice(0, 1) if end == 0 else slice(-1, None)
            inner[tuple(here)] = False
    result: Array = mask & ~inner
    return result


def _by_tree(ours: Array, theirs: Array, spacing: Array) -> Array:
    """Distances by a k-d tree; where both surfaces coincide the distance is 0 and needs no search."""
    from scipy.spatial import cKDTree

    apart = ours & ~theirs
    distances: Array = numpy.zeros(int(ours.sum()))
    points = _points(apart, spacing)
    if len(points):
        tree = cKDTree(_points(theirs, spacing), balanced_tree=False, compact_nodes=False)
        distances[: len(points)] = tree.query(points)[0]
    return distances


def _points(mask: Array, spacing: Array) -> Array:
    where = numpy.unravel_index(numpy.flatnonzero(mask), mask.shape)
    return numpy.stack(where, 1) * spacing


def _by_transform(ours: Array, theirs: Array, spacing: Array) -> Array:
    """Distances by a distance transform of the whole region: better when surfaces are everywhere."""
    result: Array = _transform()(~theirs, spacing)[ours].astype(numpy.float64)
    return result


@cache
def _transform() -> Callable[[Array, Array], Array]:
    """Euclidean distance transform: of the `edt` package where it is installed (twice as fast, float32), else
    SciPy's."""
    from scipy import ndimage

    if find_spec("edt") is None:
        return lambda far, spacing: numpy.asarray(ndimage.distance_transform_edt(far, sampling=spacing))
    package = import_module("edt")
    return lambda far, spacing: numpy.asarray(
        package.edt(numpy.ascontiguousarray(far), anisotropy=tuple(spacing.tolist()), black_border=False, parallel=1)
    )


def boxes_of(labels: Array, classes: int) -> list[tuple[slice, ...] | None]:
    """For every class number the box that holds it, None where it is absent (class 0, the background, always)."""
    from scipy import ndimage

    found: list[tuple[slice, ...] | None] = [None, *ndimage.find_objects(labels, max_label=classes - 1)]
    return found


def union(first: tuple[slice, ...], second: tuple[slice, ...]) -> tuple[slice, ...]:
    """The box that holds both."""
    return tuple(slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(first, second, strict=True))


def check_spacing(spacing: Sequence[float] | Array | None, dimensions: int) -> Array:
    """One positive size per axis, float64."""
    steps = numpy.ones(dimensions) if spacing is None else numpy.asarray(spacing, numpy.float64).reshape(-1)
    if steps.shape != (dimensions,) or not (numpy.isfinite(steps) & (steps > 0)).all():
        raise UsageError(
            f"surface scores: spacing is {steps.tolist()}", f"give {dimensions} positive numbers, one per axis"
        )
    return steps


def _box(mask: Array) -> tuple[slice, ...] | None:
    from scipy import ndimage

    found: Any = ndimage.find_objects(mask.view(numpy.uint8), max_label=1)
    box: tuple[slice, ...] | None = found[0]
    return box


def _one_sided(prediction: Array, truth: Array) -> SurfaceDistances:
    sizes = (int(surface(mask).sum()) if mask.any() else 0 for mask in (prediction, truth))
    return SurfaceDistances(*(numpy.full(size, numpy.inf) for size in sizes))
