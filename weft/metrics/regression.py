"""Scores of regression from sums of targets, outputs, their squares and products."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy
import torch
from torch import Tensor

from weft.errors import UsageError
from weft.metrics.cases import output_names
from weft.metrics.exact import from_limbs, root, summable, to_limbs, zeros
from weft.metrics.formulas import Array, mean_of_defined
from weft.metrics.values import Accumulator, BatchView, added, host

SUMS = 7  # t, o, t*t, o*o, t*o (about the shift), (o-t)**2, |o-t|
MOST = 256  # outputs judged one by one; more of them (images) are judged as one variable


class RegressionSums(Accumulator):
    """Sums of every output about the mean of the first batch's targets, which keeps small variances of large numbers.

    The states are exact (see `weft.metrics.exact`): number of samples, numbers that are not finite, and limbs of the
    sums.
    """

    def reset(self) -> None:
        self._count = 0
        self._shift: Tensor | None = None
        self._sums: Tensor | None = None

    def update(self, batch: BatchView) -> None:
        if not batch.size:
            return
        outputs, targets = batch.logits.double(), batch.labels.double()
        if outputs.shape[1] > MOST:
            outputs, targets = outputs.reshape(-1, 1), targets.reshape(-1, 1)
        if self._shift is None or self._sums is None:
            self._check_width(outputs.shape[1])
            self._shift = torch.nan_to_num(targets.mean(0))
            self._sums = torch.zeros(SUMS, outputs.shape[1], dtype=torch.float64, device=outputs.device)
        if outputs.shape[1] != self._sums.shape[1]:
            raise UsageError(f"regression scores: {outputs.shape[1]} outputs after {self._sums.shape[1]} before")
        shift = self._shift.to(outputs.device)
        true, said, error = targets - shift, outputs - shift, outputs - targets
        parts = torch.stack((true, said, true * true, said * said, true * said, error * error, error.abs()))
        self._sums = added(self._sums, parts.sum(1))
        self._count += outputs.shape[0]

    def _check_width(self, width: int) -> None:
        declared = self._width()
        if declared > 1 and width != declared:
            raise UsageError(
                f"regression scores: {width} outputs per sample, but classes={declared}",
                "`classes` is the number of outputs in regression",
            )

    def _width(self) -> int:
        if self._sums is not None:
            return int(self._sums.shape[1])
        return self.setting.classes if 1 <= self.setting.classes <= MOST else 1

    def states(self) -> list[Tensor]:
        width = self._width()
        limbs, broken = zeros(width, SUMS), numpy.zeros(width, numpy.int64)
        if self._sums is not None and self._shift is not None:
            for column, (sums, shift) in enumerate(zip(self._sums.T.tolist(), self._shift.tolist(), strict=True)):
                if all(map(summable, sums)):
                    limbs[column] = [to_limbs(number) for number in _unshifted(self._count, shift, sums)]
                else:
                    broken[column] = 1
        return [torch.tensor(self._count), torch.from_numpy(broken), torch.from_numpy(limbs)]

    def snapshot(self) -> list[Tensor]:
        if self._sums is None or self._shift is None:
            return [torch.tensor(0)]
        return [torch.tensor(self._count), host(self._shift), host(self._sums)]

    def restore(self, snapshot: Sequence[Tensor]) -> None:
        self.reset()
        self._count = int(snapshot[0])
        if self._count:
            self._shift, self._sums = snapshot[1].clone(), snapshot[2].clone()

    def _columns(self, states: Sequence[Array]) -> list[dict[str, float]]:
        count, broken, limbs = int(states[0]), states[1], states[2]
        undefined = dict.fromkeys(_SCORES, float("nan"))
        columns = []
        for column, bad in zip(limbs, broken, strict=True):
            if bad or not count:
                columns.append(undefined)
                continue
            sums = [from_limbs(part) for part in column]
            columns.append({name: score(count, sums) for name, score in _SCORES.items()})
        return columns

    def values(self, states: Sequence[Array]) -> dict[str, float]:
        columns = self._columns(states)
        result = {}
        for request in self.requests:
            name = "mse" if request.name == "rmse" else request.name
            parts = numpy.array([column[name] for column in columns])
            value = mean_of_defined(parts) if request.name in ("r2", "pearson") else float(parts.mean())
            result[request.key] = float(numpy.sqrt(value)) if request.name == "rmse" else value
        return result

    def details(self, states: Sequence[Array]) -> dict[str, Any]:
        columns = self._columns(states)
        return {"per_output": dict(zip(output_names(self.setting, len(columns)), columns, strict=True))}


def _unshifted(count: int, shift: float, sums: Sequence[float]) -> list[Fraction]:
    s, n = Fraction(shift), count
    true, said, true2, said2, both, squared, absolute = map(Fraction, sums)
    return [
        true + n * s,
        said + n * s,
        true2 + 2 * s * true + n * s * s,
        said2 + 2 * s * said + n * s * s,
        both + s * (true + said) + n * s * s,
        squared,
        absolute,
    ]


def _r2(count: int, sums: Sequence[Fraction]) -> float:
    spread = sums[2] - sums[0] ** 2 / count
    return float(1 - sums[5] / spread) if spread > 0 else float("nan")


def _pearson(count: int, sums: Sequence[Fraction]) -> float:
    true, said = sums[2] - sums[0] ** 2 / count, sums[3] - sums[1] ** 2 / count
    if true <= 0 or said <= 0:
        return float("nan")
    return float(sums[4] - sums[0] * sums[1] / count) / root(true) / root(said)


_SCORES: dict[str, Callable[[int, Sequence[Fraction]], float]] = {
    "mse": lambda count, sums: float(sums[5] / count),
    "mae": lambda count, sums: float(sums[6] / count),
    "r2": _r2,
    "pearson": _pearson,
}
