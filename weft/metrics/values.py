"""One batch as the scores see it: shapes checked once, derived tensors computed once and shared by all accumulators."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from weft.errors import DataError, UsageError
from weft.metrics.formulas import Array
from weft.metrics.names import Kind


@dataclass(frozen=True, slots=True)
class Setting:
    """What all accumulators of a book know: the kind of task, its classes (for regression: outputs), whether
    predictions may be gathered, and how many items a bin of predictions has at least whose count leaves a
    participant."""

    kind: Kind
    classes: int
    class_names: tuple[str, ...]
    gather: bool = True
    minimum_cells: int = 0


@dataclass(frozen=True, slots=True)
class Request:
    """A score that was asked for: its name, its arguments with defaults filled in, and the name of its result."""

    name: str
    key: str
    arguments: Mapping[str, Any]


class Accumulator(ABC):
    """Sums over batches from which scores follow.

    `states` has a fixed order and shape, so states of participants can be added; `values` and `details` are functions
    of such states alone, wherever they came from.
    """

    def __init__(self, setting: Setting, requests: Sequence[Request]) -> None:
        self.setting = setting
        self.requests = tuple(requests)
        self.reset()

    @abstractmethod
    def reset(self) -> None:
        """Forget everything."""

    @abstractmethod
    def update(self, batch: BatchView) -> None:
        """Add a batch."""

    @abstractmethod
    def states(self) -> list[Tensor]:
        """The sums, on the CPU, int64 or float64."""

    @abstractmethod
    def values(self, states: Sequence[Array]) -> dict[str, float]:
        """The requested scores that follow from (pooled) states."""

    def details(self, states: Sequence[Array]) -> dict[str, Any]:
        """What a report shows beyond the scores."""
        return {}

    def snapshot(self) -> list[Tensor]:
        """What `restore` needs to go on inside an epoch; by default the sums."""
        return self.states()

    @abstractmethod
    def restore(self, snapshot: Sequence[Tensor]) -> None:
        """Go on from a snapshot."""

    def gatherable(self) -> list[Tensor]:
        """Per-sample tensors (first dimension samples) that the scores need beyond sums; usually none."""
        return []

    def load_gathered(self, gathered: Sequence[Tensor]) -> None:
        """Take the tensors of all participants, concatenated."""
        return None

    def case_columns(self) -> dict[str, list[Any]]:
        """Per-case values of the batches that named their cases, in the order of updates."""
        return {}


def added(total: Tensor, part: Tensor) -> Tensor:
    """`total += part`, where the total follows the data to their device."""
    if total.device != part.device:
        total = total.to(part.device)
    return total.add_(part)


class BatchView:
    """Model outputs (logits) and targets of one batch, in the canonical shapes of the kind of task.

    Args:
        setting: kind and classes.
        outputs: logits or regression outputs, first dimension samples.
        targets: labels or values.
        cases: names of the samples; None when nobody asked for rows.
        spacing: voxel size per axis, for all samples or one row per sample; segmentation only.
    """

    def __init__(
        self,
        setting: Setting,
        outputs: Tensor,
        targets: Tensor,
        cases: Sequence[str] | None = None,
        spacing: Any = None,
    ) -> None:
        if type(outputs) is not Tensor:  # MONAI's MetaTensor: every operation on it costs a multiple
            outputs = outputs.as_subclass(Tensor)
        if type(targets) is not Tensor:
            targets = targets.as_subclass(Tensor)
        if outputs.device.type == "mps":  # has neither float64 nor fast int64 counting
            outputs, targets = outputs.cpu(), targets.cpu()
        self.setting = setting
        self.raw_outputs = outputs.detach()
        self.raw_targets = targets
        self.cases = cases
        self.spacing = spacing
        self.size = outputs.shape[0] if outputs.dim() else 0
        if not outputs.dim() or not targets.dim() or targets.shape[0] != self.size:
            raise self._mismatch("outputs and targets must have one row per sample")
        _SHAPES[setting.kind](self)

    def _mismatch(self, what: str, hint: str = "") -> UsageError:
        return UsageError(
            f"{self.setting.kind} scores: {what}; outputs are {list(self.raw_outputs.shape)}, "
            f"targets are {list(self.raw_targets.shape)}",
            hint,
        )

    def _binary(self) -> None:
        shape = self.raw_outputs.shape
        if len(shape) > 2 or (len(shape) == 2 and shape[1] not in (1, 2)):
            raise self._mismatch(
                "outputs must be [n], [n, 1] or [n, 2]", "for more classes the kind is multiclass or multilabel"
            )
        self.logits = self.raw_outputs
        self.labels = self._integers(self.raw_targets)
        if self.labels.dim() != 1:
            if self.labels.numel() != self.size:
                raise self._mismatch("targets must be [n] or [n, 1]", "one label 0 or 1 per sample")
            self.labels = self.labels.reshape(-1)

    def _multiclass(self) -> None:
        shape, classes = self.raw_outputs.shape, self.setting.classes
        if len(shape) != 2 or shape[1] != classes:
            raise self._mismatch(
                f"outputs must be [n, {classes}]", f"does the last layer of the model have {classes} outputs?"
            )
        self.logits = self.raw_outputs
        targets = self.raw_targets
        if targets.dim() == 2 and targets.shape[1] == classes and classes > 1:  # one-hot or soft labels
            targets = targets.argmax(1)
        elif targets.dim() != 1:
            if targets.numel() != self.size:
                raise self._mismatch("targets must be [n], [n, 1] or one-hot", "one class number per sample")
            targets = targets.reshape(-1)
        self.labels = self._integers(targets)

    def _multilabel(self) -> None:
        if self.raw_outputs.shape != self.raw_targets.shape or self.raw_outputs.shape[1:] != (self.setting.classes,):
            raise self._mismatch(
                f"outputs and targets must both be [n, {self.setting.classes}]", "targets hold a 0 or 1 for every label"
            )
        self.logits = self.raw_outputs
        self.labels = self._integers(self.raw_targets)

    def _regression(self) -> None:
        self.logits = self.raw_outputs.reshape(self.size, -1) if self.size else self.raw_outputs.reshape(0, 1)
        self.labels = self.raw_targets.reshape(self.size, -1) if self.size else self.raw_targets.reshape(0, 1)
        if self.logits.shape != self.labels.shape:
            raise self._mismatch(
                "outputs and targets must hold the same numbers per sample", "does the last layer fit the targets?"
            )

    def _segmentation(self) -> None:
        shape, classes = self.raw_outputs.shape, self.setting.classes
        if len(shape) < 3 or (shape[1] != classes and not (shape[1] == 1 and classes == 2)):
            raise self._mismatch(
                f"outputs must be [n, {classes}, ...spatial]", f"does the model have out_channels={classes}?"
            )
        targets = self.raw_targets
        if targets.dim() == len(shape) and targets.shape[1] == 1:
            targets = targets[:, 0]
        if targets.shape[1:] != shape[2:]:
            raise self._mismatch(
                "targets must be [n, 1, ...spatial] or [n, ...spatial] with the spatial size of the outputs",
                "one-hot targets become class numbers by targets.argmax(1, keepdim=True)",
            )
        self.logits = self.raw_outputs
        self.labels = self._integers(targets)

    @staticmethod
    def _integers(targets: Tensor) -> Tensor:
        if targets.dtype == torch.int64:
            return targets
        if targets.is_floating_point():  # 0.0/1.0 for losses that want floats; smoothed labels go to the nearest class
            return targets.round().long()
        return targets.long()

    @cached_property
    def predicted(self) -> Tensor:
        """Predicted labels: int64 [n] (binary, multiclass), bool [n, C] (multilabel), [n, ...] (segmentation; bool when
        there are two classes)."""
        logits, kind = self.logits, self.setting.kind
        if kind == "multilabel":
            return logits > 0
        if logits.dim() == 1:
            return (logits > 0).long()
        if logits.shape[1] == 1:
            return (logits[:, 0] > 0).long()
        if kind != "segmentation":
            return logits.argmax(1)
        if logits.shape[1] == 2:
            return logits[:, 1] > logits[:, 0]
        return logits.max(1).indices  # the same as argmax, which is ten times slower on a strided dimension

    @cached_property
    def log_odds(self) -> Tensor:
        """Log-odds of each class against the rest, float64: [n, 1] (binary: the positive class) or [n, C]."""
        logits = self.logits.double()
        if self.setting.kind == "binary":
            if logits.dim() == 2 and logits.shape[1] == 2:
                return (logits[:, 1] - logits[:, 0]).unsqueeze(1)
            return logits.reshape(-1, 1)
        if self.setting.kind == "multilabel":
            return logits
        return class_log_odds(logits)


_SHAPES = {
    "binary": BatchView._binary,
    "multiclass": BatchView._multiclass,
    "multilabel": BatchView._multilabel,
    "regression": BatchView._regression,
    "segmentation": BatchView._segmentation,
}


def class_log_odds(logits: Tensor) -> Tensor:
    """log(p / (1 - p)) of softmax probabilities for every class, without the saturation that p itself has.

    Args:
        logits: float64 [n, C].
    """
    if logits.shape[1] == 1:
        return torch.full_like(logits, torch.inf)
    total = torch.logsumexp(logits, 1, keepdim=True)
    rest = total + torch.log1p(-torch.exp(logits - total))  # exact enough while p <= 1/2 ...
    top = logits.argmax(1, keepdim=True)  # ... and the largest class is computed without cancellation
    others = torch.logsumexp(logits.scatter(1, top, -torch.inf), 1, keepdim=True)
    return logits - rest.scatter(1, top, others)


def out_of_range(labels: Tensor, classes: int, what: str = "class") -> DataError:
    """The error for labels outside 0..classes-1, with the offending values."""
    wrong = torch.unique(labels[(labels < 0) | (labels >= classes)])[:5].tolist()
    return DataError(
        f"{what} labels must lie in 0..{classes - 1}; found {', '.join(str(value) for value in wrong)}",
        "check the target column or mask (a mask stored as 0/255 needs dividing), and the number of classes",
    )


def host(tensor: Tensor) -> Tensor:
    """The tensor on the CPU, never sharing memory with the accumulator."""
    return tensor.detach().cpu().clone() if tensor.device.type == "cpu" else tensor.detach().cpu()
