"""What all classes of scores have in common, and how labels are read."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from weft.errors import ConfigError, DataError
from weft.interop.coinstac.config import metrics_eps, metrics_num_precision


class COINNMetrics:
    """Base class of scores: `add` a batch, `accumulate` another object, `get` the list of scores.

    Args:
        device: kept for classes of users that compute on one.

    Attributes:
        score_names: names of the scores that `get` gives, for a log that nobody headed.
    """

    score_names: tuple[str, ...] = ()

    def __init__(self, device: Any = "cpu", **kw: Any) -> None:
        self.device = device

    def add(self, *args: Any, **kw: Any) -> None:
        """Add the predictions and answers of a batch."""
        raise NotImplementedError(f"{type(self).__name__} has no method add")

    def accumulate(self, other: Any) -> None:
        """Add all that another object of this class holds."""

    def reset(self) -> None:
        """Forget everything."""

    def get(self, *args: Any, **kw: Any) -> list[float]:
        """The scores, in the order of the log's header."""
        return [0.0]

    @property
    def eps(self) -> float:
        """A small number to divide by."""
        return metrics_eps

    @property
    def num_precision(self) -> int:
        """Digits that scores are rounded to."""
        return metrics_num_precision

    @property
    def time(self) -> float:
        """Seconds since 1970."""
        return time.time()

    def extract(self, name: str) -> float:
        """A score by its name, for example the one that is monitored.

        Raises:
            ConfigError: this class has no such score.
        """
        score = getattr(self, name.lower(), None)
        if score is None:
            raise ConfigError(
                f"monitor_metric is {name!r}, which {type(self).__name__} does not measure",
                f"name a property or method of {type(self).__name__}, for example one of its scores",
            )
        return float(score() if callable(score) else score)

    def serialize(self) -> Any:
        """The state as numbers and lists, for JSON."""
        raise NotImplementedError(f"{type(self).__name__} has no method serialize")

    def reduce_sites(self, scores: Sequence[Any]) -> None:
        """Take what `serialize` gave at several sites."""
        raise NotImplementedError(f"{type(self).__name__} has no method reduce_sites")


def labels_of_classes(values: Any, classes: int, what: str, *, binary: bool = False) -> Tensor:
    labels = torch.as_tensor(values).detach().flatten().long().cpu()
    if binary:
        labels = torch.where(labels == 255, 1, labels)  # masks in pictures
    if labels.numel() and not bool(((labels >= 0) & (labels < classes)).all()):
        raise DataError(
            f"{what} are from {int(labels.min())} to {int(labels.max())}, but there are {classes} classes",
            "classes are numbered from 0; num_class in the inputspec says how many there are",
        )
    return labels


def require_equal(pred: Tensor, true: Tensor) -> None:
    if len(pred) != len(true):
        raise DataError(f"{len(pred)} predictions for {len(true)} labels", "give one of each for every item")
