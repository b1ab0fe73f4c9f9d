"""Scores of probabilities: calibration error, Brier score, log loss; and of the k highest logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy
import torch
from torch import Tensor
from torch.nn import functional

from weft.errors import UsageError
from weft.metrics.formulas import Array, calibration_error, ratio
from weft.metrics.values import Accumulator, BatchView, Request, Setting, added, host

DEFAULT_BINS = 15


class ProbabilityScores(Accumulator):
    """Sums over bins of probability, of squared errors and of log-probabilities.

    Calibration compares in each bin the mean probability with the share of hits (Naeini et al. 2015; Guo et al. 2017,
    arXiv:1706.04599): of the positive class (binary, multilabel over all labels), of the predicted class (multiclass).
    """

    def __init__(self, setting: Setting, requests: Sequence[Request]) -> None:
        given = [request.arguments["bins"] for request in requests if "bins" in request.arguments]
        self.bins = given[0] if given else DEFAULT_BINS
        if isinstance(self.bins, bool) or not isinstance(self.bins, int) or self.bins < 1:
            raise UsageError(f"metric 'calibration_error': bins is {self.bins!r}", "it must be a whole number >= 1")
        super().__init__(setting, requests)

    def reset(self) -> None:
        self._counts = torch.zeros(2 * self.bins, dtype=torch.int64)  # misses of each bin, then hits
        self._confidence = torch.zeros(self.bins, dtype=torch.float64)
        self._sums = torch.zeros(2, dtype=torch.float64)  # squared error, negative log-probability
        self._samples = 0

    def update(self, batch: BatchView) -> None:
        if self.setting.kind == "multiclass":
            confidence, hit, sums = _of_classes(batch)
        else:
            confidence, hit, sums = _of_labels(batch)
        place = (confidence * self.bins).long().clamp_(0, self.bins - 1)
        self._counts = added(self._counts, torch.bincount(place + self.bins * hit, minlength=2 * self.bins))
        self._confidence = self._confidence.to(place.device).index_add_(0, place, confidence)
        self._sums = added(self._sums, sums)
        self._samples += batch.size

    def states(self) -> list[Tensor]:
        counts, confidence, sums, samples = self.snapshot()
        if self.setting.minimum_cells > 1:  # sums over a bin of one item are that item's
            counts, confidence = torch.zeros_like(counts), torch.zeros_like(confidence)
        return [counts, confidence, sums, samples]

    def snapshot(self) -> list[Tensor]:
        counts = host(self._counts).view(2, self.bins)
        return [counts, host(self._confidence), host(self._sums), torch.tensor(self._samples)]

    def restore(self, snapshot: Sequence[Tensor]) -> None:
        self._counts = snapshot[0].reshape(-1).clone()
        self._confidence, self._sums = snapshot[1].clone(), snapshot[2].clone()
        self._samples = int(snapshot[3])

    def values(self, states: Sequence[Array]) -> dict[str, float]:
        counts, confidence, sums, samples = states
        error = float(calibration_error(confidence, counts[1], counts.sum()))
        hidden = self.setting.minimum_cells > 1
        table = {
            "calibration_error": float("nan") if hidden or numpy.isnan(sums).any() else error,
            "brier": float(ratio(sums[0], samples)),
            "log_loss": float(ratio(sums[1], samples)),
        }
        return {request.key: table[request.name] for request in self.requests}

    def details(self, states: Sequence[Array]) -> dict[str, Any]:
        if self.setting.minimum_cells > 1:
            return {}
        total = states[0].sum(0)
        return {
            "calibration": {
                "edges": numpy.linspace(0, 1, self.bins + 1),
                "confidence": ratio(states[1], total),
                "frequency": ratio(states[0][1], total),
                "count": total,
            }
        }


def _of_classes(batch: BatchView) -> tuple[Tensor, Tensor, Tensor]:
    logs = functional.log_softmax(batch.logits.double(), 1)
    probabilities = logs.exp()
    confidence = torch.nan_to_num(probabilities.gather(1, batch.predicted.unsqueeze(1)).squeeze(1), nan=0.0)
    true = batch.labels.unsqueeze(1)
    of_true = probabilities.gather(1, true)
    squared = (probabilities * probabilities).sum() - 2 * of_true.sum() + batch.size
    return confidence, (batch.predicted == batch.labels).long(), torch.stack((squared, -logs.gather(1, true).sum()))


def _of_labels(batch: BatchView) -> tuple[Tensor, Tensor, Tensor]:
    odds = batch.log_odds
    labels = batch.labels.reshape(odds.shape)
    error = torch.sigmoid(odds) - labels
    logs = functional.softplus(torch.where(labels == 1, -odds, odds))
    confidence = torch.nan_to_num(torch.sigmoid(odds).reshape(-1), nan=0.0)
    sums = torch.stack(((error * error).sum(), logs.sum())) / odds.shape[1]
    return confidence, labels.reshape(-1), sums


class TopK(Accumulator):
    """Samples whose class is among the k highest logits, for every k asked for."""

    def __init__(self, setting: Setting, requests: Sequence[Request]) -> None:
        for request in requests:
            k = request.arguments["k"]
            if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= setting.classes:
                raise UsageError(
                    f"metric 'top_k_accuracy': k is {k!r}",
                    f"it must lie in 1..{setting.classes}, the number of classes",
                )
        self._most = max(request.arguments["k"] for request in requests)
        super().__init__(setting, requests)

    def reset(self) -> None:
        self._hits = torch.zeros(self._most, dtype=torch.int64)  # true class at this rank
        self._samples = 0

    def update(self, batch: BatchView) -> None:
        ranks = batch.logits.topk(self._most, dim=1).indices == batch.labels.unsqueeze(1)
        self._hits = added(self._hits, ranks.sum(0))
        self._samples += batch.size

    def states(self) -> list[Tensor]:
        return [host(self._hits), torch.tensor(self._samples)]

    def restore(self, snapshot: Sequence[Tensor]) -> None:
        self._hits, self._samples = snapshot[0].clone(), int(snapshot[1])

    def values(self, states: Sequence[Array]) -> dict[str, float]:
        found = states[0].cumsum()
        return {request.key: float(ratio(found[request.arguments["k"] - 1], states[1])) for request in self.requests}
