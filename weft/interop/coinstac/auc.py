"""The area under the ROC curve over sites, from counts in bins of log-odds."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from weft.errors import DataError
from weft.interop.coinstac.measuring import COINNMetrics, labels_of_classes, require_equal
from weft.metrics.cells import Spread, cells_of
from weft.metrics.ranking import BINS, REACH
from weft.metrics.ranks import Ranked

_OF_ITEMS = ("probabilities", "labels", "fpr", "tpr", "thresholds")  # the original's attributes


class AUCROCMetrics(COINNMetrics):
    """Area under the ROC curve of two classes.

    Positives and negatives are counted in 1024 bins of the log-odds over [-16, 16]. No item's probability leaves a
    site; but a bin with a single item nearly tells it. With a minimum (the argument `minimum_cells` of a computation)
    neighbouring bins are put together until they have so many items, before they leave a site.

    Attributes:
        positives, negatives: counts by bin, int64 [1024], from the lowest probability to the highest.
        cells: what came of them with a minimum: negatives and positives at the first bins of their cells, then at the
            last ones, int64 [4, 1024]; None without a minimum.
        left_out: how many further negatives and positives there may be, which were too few for a cell, int64 [2].
    """

    score_names = ("AUC",)

    def __init__(self, device: Any = "cpu", **kw: Any) -> None:
        super().__init__(device, **kw)
        self.minimum = 0
        self.cells: Any = None
        self.left_out: Any = None
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.positives, self.negatives = np.zeros(BINS, dtype=np.int64), np.zeros(BINS, dtype=np.int64)
        if self.cells is not None:
            self.keep_cells(self.minimum)

    def keep_cells(self, minimum: int) -> None:
        """From now on no bin with fewer items than `minimum` leaves a site."""
        self.minimum = minimum
        self.cells, self.left_out = np.zeros((4, BINS), dtype=np.int64), np.zeros(2, dtype=np.int64)

    def leaving(self) -> AUCROCMetrics:
        """What other sites may see of this object: itself, or with a minimum one that has cells in place of bins."""
        if self.cells is None:
            return self
        made = copy.copy(self)
        made.reset()
        for label, counts in enumerate((self.negatives, self.positives)):
            made.cells[label], made.cells[2 + label], few = cells_of(counts, self.minimum)
            made.left_out[label] = (self.minimum - 1) * few
        made.cells, made.left_out = made.cells + self.cells, made.left_out + self.left_out
        return made

    def add(self, pred: Tensor, true: Tensor) -> None:
        """Count a batch.

        Args:
            pred: probabilities of class 1, from 0 to 1.
            true: classes, 0 or 1.

        Raises:
            DataError: numbers of both differ, or values are out of range.
        """
        chances = torch.as_tensor(pred).detach().double().flatten().cpu()
        answer = labels_of_classes(true, 2, "labels", binary=True)
        require_equal(chances, answer)
        if not bool(((chances >= 0) & (chances <= 1)).all()):
            raise DataError(
                f"AUCROCMetrics was given values from {float(chances.min())} to {float(chances.max())}",
                "give probabilities of class 1, for example torch.softmax(out, 1)[:, 1]",
            )
        odds = torch.nan_to_num(torch.logit(chances), posinf=REACH, neginf=-REACH).clamp(-REACH, REACH)
        places = ((odds + REACH) * (BINS / (2 * REACH))).long().clamp(0, BINS - 1)
        counts = torch.bincount(places + BINS * answer, minlength=2 * BINS).numpy()
        self.negatives, self.positives = self.negatives + counts[:BINS], self.positives + counts[BINS:]

    def accumulate(self, other: Any) -> None:
        """Add another object's counts."""
        self.positives, self.negatives = self.positives + other.positives, self.negatives + other.negatives
        if self.cells is not None and other.cells is not None:
            self.cells, self.left_out = self.cells + other.cells, self.left_out + other.left_out

    def _area(self) -> tuple[float, float]:
        positives, negatives = _down(self.positives), _down(self.negatives)
        if self.cells is None or not (self.cells.any() or self.left_out.any()):
            return Ranked(positives, negatives).auroc()
        low_negatives, low_positives, high_negatives, high_positives = map(_down, self.cells)
        highest = Ranked(positives + high_positives, negatives + high_negatives)
        lowest = Ranked(positives + low_positives, negatives + low_negatives)
        left_out = float(self.left_out[1]), float(self.left_out[0])
        return Spread(highest, lowest, left_out).auroc()

    def auc(self) -> float:
        """The area; nan where there is one class only."""
        return self._area()[0]

    def bound(self) -> float:
        """How far bins, cells and what was left out may have moved the area."""
        return self._area()[1]

    def __getattr__(self, name: str) -> Any:
        hint = " no item's probability is kept: note them in save_predictions" if name in _OF_ITEMS else ""
        raise AttributeError(f"AUCROCMetrics has no {name}" + (f", since it counts in bins:{hint}" if hint else ""))

    def get(self, *args: Any, **kw: Any) -> list[float]:
        """The area."""
        return [round(self.auc(), self.num_precision)]

    def serialize(self) -> Any:
        """The counts by bin."""
        told = self.leaving()
        further = [] if told.cells is None else [*told.cells.tolist(), told.left_out.tolist()]
        return [told.positives.tolist(), told.negatives.tolist(), *further]

    def reduce_sites(self, scores: Sequence[Any]) -> None:
        """Add up the counts of sites."""
        columns = [np.asarray(column, dtype=np.int64).sum(0) for column in zip(*scores, strict=True)]
        self.positives, self.negatives = columns[:2]
        if len(columns) > 2:
            self.cells, self.left_out = np.stack(columns[2:6]), columns[6]


def _down(counts: Any) -> Any:
    """From the highest bin to the lowest, float64."""
    return counts[::-1].astype(np.float64)
