"""Overlap scores of segmentations from a confusion matrix per case.

A case in which a class occurs neither in the truth nor in the prediction says nothing about that class and is left out
of its mean; predicted where there is none, or missed, it counts 0 (the convention of nnU-Net). The score is the mean
over foreground classes of the means over cases.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy
import torch
from torch import Tensor

from weft.metrics.formulas import PER_CLASS, Array, Counts, accuracy, mean_of_defined, ratio
from weft.metrics.values import Accumulator, BatchView, out_of_range

OVERLAPS: dict[str, Callable[[Counts], Array]] = {"dice": PER_CLASS["f1"], "iou": PER_CLASS["jaccard"]}


class VoxelScores(Accumulator):
    """Confusion matrix of all voxels [C, C], and per class the sums over cases of Dice and IoU with the number of
    cases."""

    def reset(self) -> None:
        classes = self.setting.classes
        self._matrix: Array = numpy.zeros((classes, classes), numpy.int64)
        self._sums: Array = numpy.zeros((len(OVERLAPS), classes))
        self._cases: Array = numpy.zeros(classes, numpy.int64)
        self._kept: list[Array] = []

    def update(self, batch: BatchView) -> None:
        for matrix in case_matrices(batch):
            counts = Counts.of_matrix(matrix)
            values = numpy.stack([overlap(counts) for overlap in OVERLAPS.values()])
            self._matrix += matrix
            self._cases += ~numpy.isnan(values[0])
            self._sums += numpy.nan_to_num(values)
            if batch.cases is not None:
                self._kept.append(matrix)

    def states(self) -> list[Tensor]:
        return [torch.from_numpy(part.copy()) for part in (self._matrix, self._sums, self._cases)]

    def restore(self, snapshot: Sequence[Tensor]) -> None:
        self.reset()
        self._matrix, self._sums, self._cases = (part.numpy().copy() for part in snapshot)

    def values(self, states: Sequence[Array]) -> dict[str, float]:
        matrix, sums, cases = states
        counts = Counts.of_matrix(matrix)
        means = dict(zip(OVERLAPS, ratio(sums, cases[None]), strict=True))
        table = {name: mean_of_defined(column[1:]) for name, column in means.items()}
        table |= {"pooled_dice": mean_of_defined(OVERLAPS["dice"](counts)[1:]), "accuracy": float(accuracy(counts))}
        return {request.key: table[request.name] for request in self.requests}

    def details(self, states: Sequence[Array]) -> dict[str, Any]:
        matrix, sums, cases = states
        counts = Counts.of_matrix(matrix)
        columns = dict(zip(OVERLAPS, ratio(sums, cases[None]), strict=True))
        columns |= {"pooled_dice": OVERLAPS["dice"](counts), "cases": cases, "voxels": matrix.sum(1)}
        columns |= {name: PER_CLASS[name](counts) for name in ("precision", "recall")}
        names = self.setting.class_names
        return {
            "confusion_matrix": {"labels": list(names), "counts": matrix},
            "per_class": {
                label: {name: column[index] for name, column in columns.items()} for index, label in enumerate(names)
            },
            "overlap_definition": "per case and foreground class; absent in truth and prediction: left out",
        }

    def case_columns(self) -> dict[str, list[Any]]:
        table: dict[str, list[Any]] = {}
        if not self._kept:
            return table
        counts = [Counts.of_matrix(matrix) for matrix in self._kept]
        for name, overlap in OVERLAPS.items():
            values = numpy.stack([overlap(part) for part in counts])
            table[name] = [mean_of_defined(row[1:]) for row in values]
            for index, label in enumerate(self.setting.class_names[1:], start=1):
                table[f"{name}_{label}"] = values[:, index].tolist()
        for index, label in enumerate(self.setting.class_names[1:], start=1):
            table[f"voxels_{label}"] = [int(matrix[index].sum()) for matrix in self._kept]
            table[f"predicted_voxels_{label}"] = [int(matrix[:, index].sum()) for matrix in self._kept]
        return table


def case_matrices(batch: BatchView) -> Array:
    """Confusion matrix of every case, int64 [n, C, C]."""
    classes, labels = batch.setting.classes, batch.labels
    cells = classes * classes
    if not labels.numel():
        return numpy.zeros((0, classes, classes), numpy.int64)
    least, most = torch.aminmax(labels)
    if int(least) < 0 or int(most) >= classes:
        raise out_of_range(labels, classes)
    narrow = torch.uint8 if cells <= 256 else torch.int32  # less memory to walk through: counting is bound by it
    index = torch.add(batch.predicted.to(narrow), labels.to(narrow), alpha=classes).reshape(batch.size, -1)
    if batch.size <= 8:
        counts = torch.stack([torch.bincount(case, minlength=cells) for case in index])
    else:
        shifted = index.long() + cells * torch.arange(batch.size, device=index.device).unsqueeze(1)
        counts = torch.bincount(shifted.reshape(-1), minlength=cells * batch.size)
    matrices: Array = counts.cpu().numpy().reshape(batch.size, classes, classes)
    return matrices
