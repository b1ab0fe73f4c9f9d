"""Scores of rank order: area under the ROC curve and average precision, exact or from bins of log-odds.

Where predictions may be gathered, the scores are exact (ties by midranks). Where only sums may leave a participant,
positives and negatives are counted in 1024 bins of the log-odds over [-16, 16]; what the bins hide is bounded, and the
bound is published beside the value (`auroc_bound`, `average_precision_bound` in the details). Bins of probability would
be useless for saturated models; bins of log-odds are not. Bins of few items nearly tell their scores: with a minimum,
neighbours are put together before they leave a participant (cells.py), and the bound grows accordingly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy
import torch
from torch import Tensor

from weft.errors import ProtocolError
from weft.metrics.cells import Spread, cells_of
from weft.metrics.formulas import Array, mean_of_defined
from weft.metrics.ranks import Ranked, ranked_scores
from weft.metrics.values import Accumulator, BatchView, Setting, added, class_log_odds, host

BINS = 1024
REACH = 16.0


class RankingScores(Accumulator):
    """What exact and binned ranking share: scores, bounds and curves from the ranked counts of each class."""

    exact: bool

    def groups(self) -> list[str]:
        """The classes that are ranked: the positive one (binary), or each against the rest."""
        names = list(self.setting.class_names)
        return names[1:] if self.setting.kind == "binary" else names

    def ranked(self, states: Sequence[Array]) -> Sequence[Ranked | Spread | None]:
        """Ranked counts of each group; None where a score is not a number."""
        raise NotImplementedError

    def values(self, states: Sequence[Array]) -> dict[str, float]:
        table = self._table(self.ranked(states))
        return {request.key: table[request.name][0] for request in self.requests}

    def _table(self, ranked: Sequence[Ranked | Spread | None]) -> dict[str, tuple[float, float, list[float]]]:
        table = {}
        for name in ("auroc", "average_precision"):
            pairs = [getattr(part, name)() if part else (float("nan"), float("nan")) for part in ranked]
            values, bounds = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
            broken = any(part is None or (isinstance(part, Spread) and part.unknown) for part in ranked)
            mean = float("nan") if broken else mean_of_defined(numpy.array(values))
            table[name] = mean, mean_of_defined(numpy.array(bounds)), values
        return table

    def details(self, states: Sequence[Array]) -> dict[str, Any]:
        ranked = self.ranked(states)
        table, groups = self._table(ranked), self.groups()
        per_class: dict[str, dict[str, float]] = {group: {} for group in groups}
        result: dict[str, Any] = {"per_class": per_class, "roc": {}, "pr": {}}
        for request in self.requests:
            for group, value in zip(groups, table[request.name][2], strict=True):
                per_class[group][request.key] = value
            if not self.exact:
                result[f"{request.key}_bound"] = table[request.name][1]
        for group, part in zip(groups, ranked, strict=True):
            if part is not None and part.judged:
                result["roc"][group], result["pr"][group] = part.curves()
        return result


class ExactRanking(RankingScores):
    """Keeps logits and labels of all samples; they have to be gathered among participants."""

    exact = True

    def reset(self) -> None:
        self._logits: list[Tensor] = []
        self._labels: list[Tensor] = []
        self._count = 0
        self._gathered: list[Tensor] | None = None

    def update(self, batch: BatchView) -> None:
        logits = batch.log_odds if self.setting.kind == "binary" else batch.logits
        self._logits.append(logits.clone())  # the model may reuse its output buffers
        self._labels.append(batch.labels)
        self._count += batch.size

    def states(self) -> list[Tensor]:
        return [torch.tensor(self._count)]

    def snapshot(self) -> list[Tensor]:
        return self.gatherable()

    def restore(self, snapshot: Sequence[Tensor]) -> None:
        self.reset()
        self._logits, self._labels, self._count = [snapshot[0]], [snapshot[1]], snapshot[0].shape[0]

    def gatherable(self) -> list[Tensor]:
        width = len(self.groups())
        empty = torch.zeros(0, width, dtype=torch.float64)
        labels = torch.zeros((0, width) if self.setting.kind == "multilabel" else 0, dtype=torch.int64)
        return [
            torch.cat([empty, *(part.double().cpu() for part in self._logits)]),
            torch.cat([labels, *(part.cpu() for part in self._labels)]),
        ]

    def load_gathered(self, gathered: Sequence[Tensor]) -> None:
        self._gathered = [part.detach().cpu() for part in gathered]

    def ranked(self, states: Sequence[Array]) -> list[Ranked | None]:
        logits, labels = self._gathered or self.gatherable()
        if logits.shape[0] != int(states[0]):
            raise ProtocolError(
                f"exact ranking has {logits.shape[0]} predictions of {int(states[0])} samples",
                "gather book.gatherable() and call book.load_gathered(), or build the scores with gather=False",
            )
        return [_ranked_or_none(*pair) for pair in split_groups(self.setting, logits, labels)]


class BinnedRanking(RankingScores):
    """Counts positives and negatives in bins of log-odds: sums only, with a bound."""

    exact = False

    def reset(self) -> None:
        width = len(self.groups())
        self._counts = torch.zeros(width * 2 * (BINS + 1), dtype=torch.int64)  # the last bin: not a number

    def update(self, batch: BatchView) -> None:
        scores = batch.log_odds
        position = ((scores + REACH) * (BINS / (2 * REACH))).floor().clamp(0, BINS - 1)
        position = torch.where(torch.isnan(position), float(BINS), position).long()
        width = scores.shape[1]
        group = torch.arange(width, device=scores.device)
        if self.setting.kind == "multiclass":
            positive = batch.labels.unsqueeze(1) == group
        else:
            positive = batch.labels.reshape(-1, width) == 1
        index = (2 * group + positive.long()) * (BINS + 1) + position
        self._counts = added(self._counts, torch.bincount(index.reshape(-1), minlength=self._counts.shape[0]))

    def states(self) -> list[Tensor]:
        counts = host(self._counts).view(-1, 2, BINS + 1)
        minimum = self.setting.minimum_cells
        if minimum <= 1:
            return [counts]
        # of each group: negatives and positives at the first bins of their cells, then at the last ones
        cells = torch.zeros(len(counts), 4, BINS + 1, dtype=torch.int64)
        left_out = torch.zeros(len(counts), 2, dtype=torch.int64)
        for group, both in enumerate(counts.numpy()):
            for label, histogram in enumerate(both):
                first, last, few = cells_of(histogram[:BINS], minimum)
                cells[group, label, :BINS], cells[group, 2 + label, :BINS] = map(torch.from_numpy, (first, last))
                cells[group, label, BINS] = minimum * bool(histogram[BINS])  # there are such, and not how many
                left_out[group, label] = few
        return [cells, left_out]

    def snapshot(self) -> list[Tensor]:
        return [host(self._counts).view(-1, 2, BINS + 1)]

    def restore(self, snapshot: Sequence[Tensor]) -> None:
        self._counts = snapshot[0].reshape(-1).clone()

    def ranked(self, states: Sequence[Array]) -> Sequence[Ranked | Spread | None]:
        if self.setting.minimum_cells > 1:
            return [self._spread(*group) for group in zip(*states, strict=True)]
        result: list[Ranked | None] = []
        for negatives, positives in states[0]:
            filled = (negatives[BINS - 1 :: -1] + positives[BINS - 1 :: -1]) > 0
            if negatives[BINS] or positives[BINS]:
                result.append(None)
            else:
                down = (positives[BINS - 1 :: -1][filled], negatives[BINS - 1 :: -1][filled])
                result.append(Ranked(*(part.astype(numpy.float64) for part in down)))
        return result

    def _spread(self, cells: Array, left_out: Array) -> Spread | None:
        if cells[:2, BINS].any():
            return None
        down = cells[:, BINS - 1 :: -1]
        low_negatives, low_positives, high_negatives, high_positives = down[:, down.any(0)].astype(numpy.float64)
        most = self.setting.minimum_cells - 1  # that each participant left out, where it left out any
        return Spread(
            Ranked(high_positives, high_negatives), Ranked(low_positives, low_negatives),
            (most * float(left_out[1]), most * float(left_out[0])),
        )  # fmt: skip


def split_groups(setting: Setting, logits: Tensor, labels: Tensor) -> list[tuple[Array, Array]]:
    """For each ranked class its scores and which samples are positive."""
    scores = (class_log_odds(logits) if setting.kind == "multiclass" else logits).numpy()
    truth = labels.numpy()
    if setting.kind == "multiclass":
        return [(scores[:, index], truth == index) for index in range(scores.shape[1])]
    truth = truth.reshape(-1, scores.shape[1])
    return [(scores[:, index], truth[:, index] == 1) for index in range(scores.shape[1])]


def _ranked_or_none(scores: Array, positive: Array) -> Ranked | None:
    return None if numpy.isnan(scores).any() else ranked_scores(scores, positive)
