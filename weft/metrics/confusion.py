"""The confusion matrix of labels and every score that follows from it (see `formulas`). Rows are the truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from weft.errors import UsageError
from weft.metrics.formulas import PER_CLASS, Array, Counts, costs, kappa, label_score, ratio
from weft.metrics.values import Accumulator, BatchView, Request, Setting, added, host, out_of_range

SMALL = 1 << 14  # up to so many cells a bincount per batch costs less than scattered additions


class ConfusionScores(Accumulator):
    """Scores of label counts; what is shared by the matrix of single labels and the tables of many."""

    def __init__(self, setting: Setting, requests: Sequence[Request]) -> None:
        super().__init__(setting, requests)
        for request in self.requests:
            _check(request.name, request.arguments)

    def counts(self, states: Sequence[Array]) -> Counts:
        """Per-class counts of pooled states."""
        raise NotImplementedError

    def values(self, states: Sequence[Array]) -> dict[str, float]:
        counts = self.counts(states)
        return {request.key: self._value(request.name, request.arguments, counts, states) for request in self.requests}

    def _value(self, name: str, arguments: Mapping[str, Any], counts: Counts, states: Sequence[Array]) -> float:
        if name == "exact_match":
            return float(ratio(states[1][0], states[1][1]))
        if name == "kappa":
            matrix, weights = states[0], arguments["weights"]
            disagreement = (costs(len(matrix), weights) * matrix).sum()
            return float(kappa(disagreement, matrix.sum(1), matrix.sum(0), weights))
        average = arguments.get("average", "auto")
        if average == "auto":
            average = "positive" if self.setting.kind == "binary" else "macro"
        return float(label_score(name, counts, average))

    def per_class(self, counts: Counts) -> dict[str, dict[str, float]]:
        """Every per-class score and the support, by class name."""
        columns = {name: function(counts) for name, function in PER_CLASS.items() if name != "sensitivity"}
        columns["support"] = counts.tp + counts.fn
        return {
            label: {name: float(column[index]) for name, column in columns.items()}
            for index, label in enumerate(self.setting.class_names)
        }


class LabelCounts(ConfusionScores):
    """Confusion matrix [C, C] of binary and multiclass labels."""

    def reset(self) -> None:
        classes = self.setting.classes
        self._matrix = torch.zeros(classes * classes, dtype=torch.int64)

    def update(self, batch: BatchView) -> None:
        classes, cells = self.setting.classes, self._matrix.shape[0]
        labels = batch.labels
        index = torch.add(batch.predicted, labels, alpha=classes)
        if cells <= SMALL:
            try:
                part = torch.bincount(index, minlength=cells)
            except RuntimeError as error:  # bincount refuses negative numbers: the check costs nothing on good data
                raise out_of_range(labels, classes) from error
            if part.shape[0] != cells:
                raise out_of_range(labels, classes)
            self._matrix = added(self._matrix, part)
            return
        if bool(((labels < 0) | (labels >= classes)).any()):
            raise out_of_range(labels, classes)
        self._matrix = self._matrix.to(index.device).index_add_(0, index, torch.ones_like(index))

    def states(self) -> list[Tensor]:
        return [host(self._matrix).view(self.setting.classes, self.setting.classes)]

    def restore(self, snapshot: Sequence[Tensor]) -> None:
        self._matrix = snapshot[0].reshape(-1).clone()

    def counts(self, states: Sequence[Array]) -> Counts:
        return Counts.of_matrix(states[0])

    def details(self, states: Sequence[Array]) -> dict[str, Any]:
        counts = self.counts(states)
        matrix = {"labels": list(self.setting.class_names), "counts": states[0].tolist()}
        return {"confusion_matrix": matrix, "per_class": self.per_class(counts)}


class LabelTables(ConfusionScores):
    """A 2 x 2 table for each label [C, 2, 2], and the samples with every label right."""

    def reset(self) -> None:
        self._sums = torch.zeros(3, self.setting.classes, dtype=torch.int64)  # true positives, predicted, true
        self._exact = torch.zeros((), dtype=torch.int64)
        self._samples = 0

    def update(self, batch: BatchView) -> None:
        labels, predicted = batch.labels, batch.predicted
        true = labels.bool()
        if bool((labels != true).any()):
            raise out_of_range(labels, 2, "multilabel")
        self._sums = added(self._sums, torch.stack(((true & predicted).sum(0), predicted.sum(0), true.sum(0))))
        self._exact = added(self._exact, (true == predicted).all(1).sum())
        self._samples += batch.size

    def states(self) -> list[Tensor]:
        both, predicted, true = host(self._sums)
        none = self._samples - predicted - true + both
        tables = torch.stack((none, predicted - both, true - both, both), 1).view(-1, 2, 2)
        return [tables, torch.stack((host(self._exact), torch.tensor(self._samples)))]

    def restore(self, snapshot: Sequence[Tensor]) -> None:
        tables, self._samples = snapshot[0], int(snapshot[1][1])
        self._sums = torch.stack((tables[:, 1, 1], tables[:, :, 1].sum(1), tables[:, 1].sum(1)))
        self._exact = snapshot[1][0].clone()

    def counts(self, states: Sequence[Array]) -> Counts:
        return Counts.of_labels(states[0])

    def details(self, states: Sequence[Array]) -> dict[str, Any]:
        return {"per_class": self.per_class(self.counts(states)), "label_tables": states[0].tolist()}


_CHOICES = {"average": ("auto", "macro", "micro", "weighted"), "weights": ("none", "linear", "quadratic")}


def _check(name: str, arguments: Mapping[str, Any]) -> None:
    for argument, value in arguments.items():
        if argument in _CHOICES and value not in _CHOICES[argument]:
            raise UsageError(f"metric '{name}': {argument} is {value!r}", f"it can be {', '.join(_CHOICES[argument])}")
