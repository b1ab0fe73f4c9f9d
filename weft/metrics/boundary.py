"""Surface scores of segmentations (hd, hd95, assd, nsd) as sums over cases and classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy
import torch
from torch import Tensor

from weft.errors import UsageError
from weft.metrics.formulas import Array, mean_of_defined, ratio
from weft.metrics.surface import SurfaceDistances, boxes_of, check_spacing, distances_in_region, union
from weft.metrics.values import Accumulator, BatchView, Request, Setting, out_of_range

DEFINITION = (
    "distances between surface voxels (faces) in units of the spacing; hd95: the larger directed 95th percentile; "
    "assd: mean of both directions together"
)
MISSING = ("leave_out", "penalise")

SCORES: dict[str, Callable[[SurfaceDistances, Request], float]] = {
    "hd": lambda distances, request: distances.hausdorff(),
    "hd95": lambda distances, request: distances.hausdorff(95),
    "assd": lambda distances, request: distances.average(),
    "nsd": lambda distances, request: distances.within(request.arguments["tolerance"]),
}


class SurfaceScores(Accumulator):
    """Per score and class the sum over cases and their number; per class the misses and false alarms.

    A distance to a structure that is missing on one side is undefined. With `missing: leave_out` the case is left out
    of the mean (a model that misses hard cases then looks better, so misses and false alarms are counted in the
    details); with `missing: penalise` it counts the diagonal of the image. The surface Dice (nsd) is 0 there. Missing
    on both sides: left out.
    """

    def __init__(self, setting: Setting, requests: Sequence[Request]) -> None:
        for request in requests:
            if request.arguments.get("missing", MISSING[0]) not in MISSING:
                raise UsageError(
                    f"metric '{request.name}': missing is {request.arguments['missing']!r}",
                    f"it can be {' or '.join(MISSING)}",
                )
            tolerance = request.arguments.get("tolerance", 0)
            if isinstance(tolerance, bool) or not isinstance(tolerance, (int, float)) or not tolerance >= 0:
                raise UsageError(f"metric 'nsd': tolerance is {tolerance!r}", "it is a distance >= 0, e.g. 1.0 (mm)")
        super().__init__(setting, requests)

    def reset(self) -> None:
        classes, scores = self.setting.classes, len(self.requests)
        self._sums: Array = numpy.zeros((scores, classes))
        self._cases: Array = numpy.zeros((scores, classes), numpy.int64)
        self._missing: Array = numpy.zeros((2, classes), numpy.int64)  # misses, false alarms
        self._kept: list[Array] = []

    def update(self, batch: BatchView) -> None:
        labels, classes = batch.labels, self.setting.classes
        if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
            raise out_of_range(labels, classes)
        narrow = torch.uint8 if classes <= 256 else torch.int32
        predictions, truths = (part.to(narrow).cpu().numpy() for part in (batch.predicted, labels))
        steps = _spacings(batch.spacing, batch.size, truths.ndim - 1)
        for prediction, truth, spacing in zip(predictions, truths, steps, strict=True):
            values = self._case(prediction, truth, spacing)
            self._sums += numpy.nan_to_num(values)
            self._cases += ~numpy.isnan(values)
            if batch.cases is not None:
                self._kept.append(values)

    def _case(self, prediction: Array, truth: Array, spacing: Array) -> Array:
        classes = self.setting.classes
        values: Array = numpy.full((len(self.requests), classes), numpy.nan)
        ours, theirs = boxes_of(prediction, classes), boxes_of(truth, classes)
        diagonal = float(numpy.linalg.norm(numpy.array(truth.shape) * spacing))
        for label in range(1, classes):
            mine, true = ours[label], theirs[label]
            if mine is None and true is None:
                continue
            if mine is None or true is None:
                self._missing[0 if mine is None else 1, label] += 1
                values[:, label] = [_one_missing(request, diagonal) for request in self.requests]
                continue
            region = union(mine, true)
            distances = distances_in_region(prediction[region] == label, truth[region] == label, spacing)
            values[:, label] = [SCORES[request.name](distances, request) for request in self.requests]
        return values

    def states(self) -> list[Tensor]:
        return [torch.from_numpy(part.copy()) for part in (self._sums, self._cases, self._missing)]

    def restore(self, snapshot: Sequence[Tensor]) -> None:
        self.reset()
        self._sums, self._cases, self._missing = (part.numpy().copy() for part in snapshot)

    def values(self, states: Sequence[Array]) -> dict[str, float]:
        means = ratio(states[0], states[1])
        return {request.key: mean_of_defined(row[1:]) for request, row in zip(self.requests, means, strict=True)}

    def details(self, states: Sequence[Array]) -> dict[str, Any]:
        sums, cases, missing = states
        means = ratio(sums, cases)
        per_class: dict[str, dict[str, Any]] = {}
        for label, name in enumerate(self.setting.class_names[1:], start=1):
            row = {request.key: means[index, label] for index, request in enumerate(self.requests)}
            row |= {f"{request.key}_cases": cases[index, label] for index, request in enumerate(self.requests)}
            per_class[name] = {**row, "missed": missing[0, label], "false_alarms": missing[1, label]}
        return {
            "per_class": per_class,
            "surface_definition": DEFINITION,
            "surface_missing": {request.key: request.arguments.get("missing", "zero") for request in self.requests},
        }

    def case_columns(self) -> dict[str, list[Any]]:
        if not self._kept:
            return {}
        values = numpy.stack(self._kept)
        table: dict[str, list[Any]] = {}
        for index, request in enumerate(self.requests):
            table[request.key] = [mean_of_defined(case[index, 1:]) for case in values]
            for label, name in enumerate(self.setting.class_names[1:], start=1):
                table[f"{request.key}_{name}"] = values[:, index, label].tolist()
        return table


def _one_missing(request: Request, diagonal: float) -> float:
    if request.name == "nsd":
        return 0.0
    return diagonal if request.arguments["missing"] == "penalise" else float("nan")


def _spacings(spacing: Any, cases: int, dimensions: int) -> list[Array]:
    """The spacing of every case from none, one for all, or a row per case."""
    if spacing is None:
        return [check_spacing(None, dimensions)] * cases
    rows = numpy.asarray(torch.as_tensor(spacing).cpu() if isinstance(spacing, Tensor) else spacing, numpy.float64)
    if rows.ndim == 2 and len(rows) == cases:
        return [check_spacing(row, dimensions) for row in rows]
    return [check_spacing(rows, dimensions)] * cases
