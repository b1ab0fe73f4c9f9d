"""The score book: all scores of one evaluation, as sums over batches that pool exactly among participants."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy
import torch
from torch import Tensor

from weft.errors import ProtocolError, UsageError
from weft.metrics.cases import CaseRecorder
from weft.metrics.confusion import LabelCounts, LabelTables
from weft.metrics.names import KNOWN, Kind, Mode, check_arguments, check_kind, find_metric
from weft.metrics.values import Accumulator, Array, BatchView, Request, Setting

FACTORIES: dict[tuple[str, Kind], Callable[[Setting, Sequence[Request]], Accumulator]] = {
    ("confusion", "binary"): LabelCounts,
    ("confusion", "multiclass"): LabelCounts,
    ("confusion", "multilabel"): LabelTables,
}


class ScoreBook:
    """Scores of one evaluation.

    Args:
        setting: kind of task and classes.
        accumulators: the sums, in the fixed order of `states`.
        modes: for each score the direction that is better.
    """

    def __init__(self, setting: Setting, accumulators: Sequence[Accumulator], modes: Mapping[str, Mode]) -> None:
        self.setting = setting
        self._accumulators = list(accumulators)
        self._modes = {"loss": "min", **modes}
        self._cases = CaseRecorder(setting)
        self.reset()

    def reset(self) -> None:
        """Forget everything: a new evaluation begins."""
        self._loss = torch.zeros((), dtype=torch.float64)
        self._weight = 0.0
        self._pooled: list[Array] | None = None
        self._cases.reset()
        for accumulator in self._accumulators:
            accumulator.reset()

    def update(
        self,
        outputs: Tensor,
        targets: Tensor,
        *,
        loss: Tensor | None = None,
        weight: float | None = None,
        cases: Sequence[str] | None = None,
        spacing: Any = None,
    ) -> None:
        """Add a batch.

        Args:
            outputs: logits or regression outputs, first dimension samples.
            targets: labels or values.
            loss: mean loss of the batch, or one value per sample; None leaves the loss out.
            weight: what the loss weighs, by default the number of samples.
            cases: names of the samples; with them `case_rows` has a row per sample.
            spacing: voxel size per axis (for all samples, or a row per sample); segmentation only, default 1.
        """
        batch = BatchView(self.setting, outputs, targets, cases, spacing)
        if loss is not None:
            self.add_loss(loss.mean() if loss.dim() else loss, batch.size if weight is None else weight)
        if cases is not None:
            self._cases.update(batch, loss)
        for accumulator in self._accumulators:
            accumulator.update(batch)

    def add_loss(self, loss: Tensor, weight: float) -> None:
        """Add a mean loss with its weight, and nothing else."""
        if self._loss.device != loss.device and loss.device.type != "mps":
            self._loss = self._loss.to(loss.device)
        self._loss.add_(loss.detach().to(self._loss.device), alpha=weight)
        self._weight += weight

    def states(self) -> list[Tensor]:
        """All sums of this participant, on the CPU, in fixed order and shape; add them up among participants."""
        loss = torch.stack((self._loss.detach().cpu(), torch.tensor(self._weight, dtype=torch.float64)))
        return [loss, *(state for accumulator in self._accumulators for state in accumulator.states())]

    def load_states(self, states: Sequence[Tensor]) -> None:
        """Take the pooled sums: from now on, until `reset`, the scores are those of all participants together."""
        own = self.states()
        shapes = [tuple(state.shape) for state in states]
        if shapes != [tuple(state.shape) for state in own]:
            raise ProtocolError(
                f"pooled scores have shapes {shapes}, this participant's {[tuple(state.shape) for state in own]}",
                "all participants need the same metrics and the same number of classes",
            )
        self._pooled = [state.detach().cpu().numpy().copy() for state in states]

    def _parts(self) -> tuple[Array, list[tuple[Accumulator, list[Array]]]]:
        states = self._pooled if self._pooled is not None else [state.numpy() for state in self.states()]
        parts, at = [], 1
        for accumulator in self._accumulators:
            count = accumulator.state_count()
            parts.append((accumulator, states[at : at + count]))
            at += count
        return states[0], parts

    def compute(self) -> dict[str, float]:
        """The scores by name; nan where there is nothing to judge."""
        loss, parts = self._parts()
        values = {"loss": float(loss[0] / loss[1]) if loss[1] else float("nan")}
        for accumulator, states in parts:
            values.update(accumulator.values(states))
        return {name: values[name] for name in self._modes}

    def details(self) -> dict[str, Any]:
        """What a report shows beyond the scores (confusion matrix, per class, curves), JSON-able; undefined is None."""
        merged: dict[str, Any] = {}
        for accumulator, states in self._parts()[1]:
            merged.update(accumulator.details(states))
        plain: dict[str, Any] = jsonable(merged)
        return plain

    def case_rows(self) -> list[dict[str, Any]]:
        """A row per named case of this participant: target, prediction, probability or scores; undefined is None."""
        columns: dict[str, list[Any]] = {}
        for accumulator in self._accumulators:
            columns |= accumulator.case_columns()
        return [jsonable(row) for row in self._cases.rows(columns)]

    @property
    def names(self) -> list[str]:
        """Names of the scores that `compute` returns."""
        return list(self._modes)

    def mode(self, name: str) -> Mode:
        """Which direction of a score is better: "min" or "max"."""
        if name not in self._modes:
            raise UsageError(f"there is no score '{name}'", f"scores of this task: {', '.join(self._modes)}")
        return self._modes[name]


def build_scores(
    metrics: Sequence[Any],
    *,
    kind: str,
    classes: int,
    class_names: Sequence[str] | None = None,
    gather: bool = True,
) -> ScoreBook:
    """Make the score book of a task.

    Args:
        metrics: names of `KNOWN`, `(name, arguments)` pairs, metric objects (update/compute/reset), or functions
            `(outputs, targets) -> one value per sample`.
        kind: binary, multiclass, multilabel, regression or segmentation.
        classes: number of classes (segmentation: with background), labels or regression outputs.
        class_names: names for reports; None numbers them.
        gather: whether predictions may leave a participant (exact AUROC), or sums only.

    Raises:
        UsageError: unknown name or argument, or a score that does not fit the kind of task.
    """
    setting = make_setting(check_kind(kind), classes, class_names, gather)
    families: dict[str, list[Request]] = {} if kind == "regression" else {"confusion": []}
    modes: dict[str, Mode] = {}
    for metric in metrics:
        request = make_request(metric, setting.kind)
        if request.name == "loss":
            continue
        if request.key in modes:
            raise UsageError(f"metric '{request.key}' is asked for twice", "leave one out")
        modes[request.key] = KNOWN[request.name].mode
        families.setdefault(KNOWN[request.name].family, []).append(request)
    accumulators = [FACTORIES[family, setting.kind](setting, requests) for family, requests in families.items()]
    return ScoreBook(setting, accumulators, modes)


def make_setting(kind: Kind, classes: int, class_names: Sequence[str] | None, gather: bool) -> Setting:
    """Check the number of classes and their names."""
    if kind == "binary":
        classes = 2
    least = {"multiclass": 2, "segmentation": 2}.get(kind, 1)
    if kind != "regression" and classes < least:
        raise UsageError(f"{kind} scores need classes >= {least}, got {classes}", "count the background as a class")
    names = tuple(str(name) for name in class_names) if class_names else tuple(str(i) for i in range(classes))
    if kind != "regression" and len(names) != classes:
        raise UsageError(f"{classes} classes, but {len(names)} class names: {', '.join(names)}")
    return Setting(kind, classes, names, gather)


def make_request(metric: Any, kind: Kind) -> Request:
    """A requested score from a name or a pair (name, arguments)."""
    name, given = (metric, {}) if isinstance(metric, str) else metric
    info = find_metric(name, kind)
    check_arguments(name, given)
    arguments = {**info.arguments, **given}
    key = name
    if arguments.get("average", "auto") != "auto":
        key = f"{name}_{arguments['average']}"
    if "k" in arguments:
        key = name.replace("_k_", f"_{arguments['k']}_")
    return Request(name, key, arguments)


def jsonable(value: Any) -> Any:
    """The value with plain Python types; nan and infinite numbers become None."""
    if isinstance(value, Mapping):
        return {str(key): jsonable(part) for key, part in value.items()}
    if isinstance(value, numpy.ndarray):
        return jsonable(value.tolist())
    if isinstance(value, (list, tuple)):
        return [jsonable(part) for part in value]
    if isinstance(value, (float, numpy.floating)):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, numpy.integer):
        return int(value)
    return value
