"""Averages and scores as coinstac-dinunet has them: what a batch adds, and what follows from all that was added.

Every state here is a count or a sum, so scores over several sites are those of all items together. A class of a user's
own is pooled alike where its states are sums too (see `weft.interop.coinstac.scores`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from weft.errors import ConfigError
from weft.interop.coinstac.auc import AUCROCMetrics
from weft.interop.coinstac.measuring import COINNMetrics, labels_of_classes, require_equal

__all__ = ["AUCROCMetrics", "COINNAverages", "COINNMetrics", "ConfusionMatrix", "Prf1a", "SerializableMetrics"]

SerializableMetrics = COINNMetrics  # as releases up to 2.2 call what classes of scores derive from


class COINNAverages(COINNMetrics):
    """Averages, each weighted by the items that it comes from.

    Args:
        num_averages: how many are kept, for example one for each loss.
    """

    def __init__(self, num_averages: int = 1, **kw: Any) -> None:
        super().__init__(**kw)
        self.num_averages = num_averages
        self.values = np.zeros(num_averages)
        self.counts = np.zeros(num_averages)

    def add(self, val: float = 0.0, n: float = 1, index: int = 0) -> None:
        """Add the mean `val` of `n` items to the average number `index`."""
        self.values[index] += float(val) * n
        self.counts[index] += n

    def accumulate(self, other: Any) -> None:
        """Add another object's sums."""
        self.values = self.values + other.values
        self.counts = self.counts + other.counts

    def reset(self) -> None:
        """Forget everything."""
        self.values, self.counts = np.zeros(self.num_averages), np.zeros(self.num_averages)

    def get(self, *args: Any, **kw: Any) -> list[float]:
        """The averages; 0 for one without items."""
        means = self.values / np.where(self.counts == 0, np.inf, self.counts)
        return [round(float(mean), self.num_precision) for mean in means]

    def average(self, reduce_mean: bool = True) -> Any:
        """The mean of the averages, or all of them."""
        return round(sum(self.get()) / self.num_averages, self.num_precision) if reduce_mean else self.get()

    def serialize(self) -> Any:
        """Sums and counts."""
        return [self.values.tolist(), self.counts.tolist()]

    def reduce_sites(self, scores: Sequence[Any]) -> None:
        """Add up the sums and counts of sites."""
        self.values, self.counts = np.asarray(scores, dtype=np.float64).sum(0)


class Prf1a(COINNMetrics):
    """Accuracy, F1, precision and recall of two classes, and the overlap (intersection over union) of the positive one.

    Counts are summed over batches and sites, so the scores are those of all items. Answers and predictions are 0 and 1;
    255 counts as 1.
    """

    score_names = ("Accuracy", "F1", "Precision", "Recall")

    def __init__(self, **kw: Any) -> None:
        super().__init__(**kw)
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.tn = self.fp = self.fn = self.tp = 0

    def add(self, pred: Tensor, true: Tensor) -> None:
        """Count a batch.

        Args:
            pred, true: predicted and true classes, of equal number.

        Raises:
            DataError: their numbers differ, or there are other classes.
        """
        guess, answer = (
            labels_of_classes(pred, 2, "predictions", binary=True),
            labels_of_classes(true, 2, "labels", binary=True),
        )
        require_equal(guess, answer)
        counts = torch.bincount(2 * answer + guess, minlength=4).tolist()
        self.tn, self.fp, self.fn, self.tp = (
            had + more for had, more in zip((self.tn, self.fp, self.fn, self.tp), counts, strict=True)
        )

    def accumulate(self, other: Any) -> None:
        """Add another object's counts."""
        self.tn, self.fp = self.tn + other.tn, self.fp + other.fp
        self.fn, self.tp = self.fn + other.fn, self.tp + other.tp

    def _ratio(self, part: float, whole: float) -> float:
        return round(part / max(whole, self.eps), self.num_precision)

    @property
    def precision(self) -> float:
        """Share of true ones among those predicted."""
        return self._ratio(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> float:
        """Share of found ones among the true ones."""
        return self._ratio(self.tp, self.tp + self.fn)

    @property
    def accuracy(self) -> float:
        """Share of right predictions."""
        return self._ratio(self.tp + self.tn, self.tp + self.fp + self.fn + self.tn)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        return self.f_beta(1)

    def f_beta(self, beta: float = 1) -> float:
        """Weighted harmonic mean of precision and recall; recall counts `beta` times as much."""
        hits = (1 + beta**2) * self.tp
        return self._ratio(hits, hits + beta**2 * self.fn + self.fp)

    @property
    def overlap(self) -> float:
        """Intersection over union of the positive class."""
        return self._ratio(self.tp, self.tp + self.fp + self.fn)

    def get(self, *args: Any, **kw: Any) -> list[float]:
        """Accuracy, F1, precision, recall."""
        return [self.accuracy, self.f1, self.precision, self.recall]

    def serialize(self) -> Any:
        """The counts: true negatives, false positives, false negatives, true positives."""
        return [self.tn, self.fp, self.fn, self.tp]

    def reduce_sites(self, scores: Sequence[Any]) -> None:
        """Add up the counts of sites."""
        self.tn, self.fp, self.fn, self.tp = (int(count) for count in np.asarray(scores, dtype=np.int64).sum(0))


class ConfusionMatrix(COINNMetrics):
    """Accuracy of several classes, and means over classes of precision, recall and F1.

    Args:
        num_classes: how many there are.

    Attributes:
        matrix: int64 [num_classes, num_classes], number of items by true class (row) and prediction (column).
    """

    score_names = ("Accuracy", "F1", "Precision", "Recall")

    def __init__(self, num_classes: int | None = None, device: Any = "cpu", **kw: Any) -> None:
        super().__init__(device, **kw)
        if num_classes is None or num_classes < 2:
            raise ConfigError(f"ConfusionMatrix has num_classes {num_classes!r}", "give the number of classes, from 2")
        self.num_classes = num_classes
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.matrix = torch.zeros(self.num_classes, self.num_classes, dtype=torch.int64)

    def add(self, pred: Tensor, true: Tensor) -> None:
        """Count a batch of predicted and true classes.

        Raises:
            DataError: their numbers differ, or a class is out of range.
        """
        guess = labels_of_classes(pred, self.num_classes, "predictions")
        answer = labels_of_classes(true, self.num_classes, "labels")
        require_equal(guess, answer)
        cells = torch.bincount(answer * self.num_classes + guess, minlength=self.num_classes**2)
        self.matrix = self.matrix + cells.reshape(self.matrix.shape)

    def accumulate(self, other: Any) -> None:
        """Add another object's counts."""
        self.matrix = self.matrix + other.matrix

    def _share(self, totals: Tensor, average: bool) -> Any:
        """Of right predictions among `totals`; where there is none, 0, and the class is left out of the mean."""
        shares = self.matrix.diagonal() / totals.clamp(min=1)
        seen = (self.matrix.sum(0) + self.matrix.sum(1)) > 0
        return _mean(shares, seen) if average else shares.tolist()

    def precision(self, average: bool = True) -> Any:
        """Mean over classes, or a list with one for each."""
        return self._share(self.matrix.sum(0), average)

    def recall(self, average: bool = True) -> Any:
        """Mean over classes, or a list with one for each."""
        return self._share(self.matrix.sum(1), average)

    def f1(self, average: bool = True) -> Any:
        """F1 of mean precision and mean recall, or a list with one for each class."""
        if average:
            precision, recall = self.precision(), self.recall()
            return 2 * precision * recall / max(precision + recall, self.eps)
        return [2 * p * r / max(p + r, self.eps) for p, r in zip(self.precision(False), self.recall(False))]

    def accuracy(self) -> float:
        """Share of right predictions."""
        return float(self.matrix.trace()) / max(float(self.matrix.sum()), 1.0)

    def get(self, *args: Any, **kw: Any) -> list[float]:
        """Accuracy, F1, precision, recall."""
        found = self.accuracy(), self.f1(), self.precision(), self.recall()
        return [round(float(score), self.num_precision) for score in found]

    def serialize(self) -> Any:
        """The counts, row by row."""
        return self.matrix.tolist()

    def reduce_sites(self, scores: Sequence[Any]) -> None:
        """Add up the counts of sites."""
        self.matrix = torch.tensor(scores, dtype=torch.int64).sum(0)


def _mean(shares: Tensor, seen: Tensor) -> float:
    return float(shares[seen].double().mean()) if bool(seen.any()) else 0.0
