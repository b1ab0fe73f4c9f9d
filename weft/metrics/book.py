"""The score book: all scores of one evaluation, as sums over batches that pool exactly among participants."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy
import torch
from torch import Tensor

from weft.errors import ProtocolError, UsageError
from weft.metrics.cases import CaseRecorder
from weft.metrics.families import FACTORIES, curve_accumulators
from weft.metrics.foreign import adopt
from weft.metrics.formulas import Array
from weft.metrics.names import KNOWN, Kind, Mode, check_arguments, check_kind, find_metric, score_name
from weft.metrics.values import Accumulator, BatchView, Request, Setting


class ScoreBook:
    """Scores of one evaluation.

    Args:
        setting: kind of task and classes.
        accumulators: the sums, in the fixed order of `states`.
        modes: for each score the direction that is better; None where nobody said.
    """

    def __init__(self, setting: Setting, accumulators: Sequence[Accumulator], modes: Mapping[str, Mode | None]) -> None:
        self.setting = setting
        self._accumulators = list(accumulators)
        self._modes: dict[str, Mode | None] = {"loss": "min", **modes}
        self._cases = CaseRecorder(setting)
        self.reset()

    def reset(self) -> None:
        """Forget everything: a new evaluation begins."""
        self._loss = torch.zeros((), dtype=torch.float64)
        self._weight = 0.0
        self._pooled: list[Array] | None = None
        self._gathered: list[Tensor] | None = None
        self._cases.reset()
        for accumulator in self._accumulators:
            accumulator.reset()

    def add_curves(self) -> None:
        """From now on also collect what ROC, precision-recall and calibration curves are drawn from, whatever scores
        were asked for; `details` has them. For final scores: all participants call it before the evaluation begins.
        """
        self._accumulators += curve_accumulators(self.setting, self._accumulators)
        self.reset()

    def keep_cells(self, minimum: int) -> None:
        """From now on no bin of predictions with fewer items than `minimum` shows in `states`; what is collected so
        far is forgotten. Rank scores get wider bounds, and nothing is told of calibration.
        """
        self.setting = replace(self.setting, minimum_cells=minimum)
        for accumulator in self._accumulators:
            accumulator.setting = self.setting
        self.reset()

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

        Raises:
            UsageError: shapes do not fit the kind of task.
            DataError: labels are out of range.
        """
        batch = BatchView(self.setting, outputs, targets, cases, spacing)
        if cases is not None and len(cases) != batch.size:
            raise UsageError(f"{len(cases)} case names for {batch.size} samples", "give one name per sample")
        for accumulator in self._accumulators:
            accumulator.update(batch)
        if loss is not None:
            self.add_loss(loss.mean() if loss.dim() else loss, batch.size if weight is None else weight)
        if cases is not None:
            self._cases.update(batch, loss)

    def add_loss(self, loss: Tensor, weight: float) -> None:
        """Add a mean loss with its weight, and nothing else."""
        if self._loss.device != loss.device and loss.device.type != "mps":
            self._loss = self._loss.to(loss.device)
        self._loss.add_(loss.detach().to(self._loss.device), alpha=weight)
        self._weight += weight

    def states(self) -> list[Tensor]:
        """All sums of this participant, on the CPU, in fixed order and shape; add them up among participants."""
        loss = torch.stack((self._loss.cpu(), torch.tensor(self._weight, dtype=torch.float64)))
        return [loss, *(state for accumulator in self._accumulators for state in accumulator.states())]

    def load_states(self, states: Sequence[Tensor]) -> None:
        """Take the pooled sums: from now on, until `reset`, the scores are those of all participants together.

        Args:
            states: as `states` gives them, summed over the participants.

        Raises:
            ProtocolError: their shapes are not those of this participant's.
        """
        own = self.states()
        shapes = [tuple(state.shape) for state in states]
        if shapes != [tuple(state.shape) for state in own]:
            raise ProtocolError(
                f"pooled scores have shapes {shapes}, this participant's {[tuple(state.shape) for state in own]}",
                "all participants need the same metrics and the same number of classes",
            )
        self._pooled = [state.detach().cpu().numpy().copy() for state in states]

    def gatherable(self) -> list[Tensor] | None:
        """Per-sample tensors of this participant that exact rank scores need beyond sums; None when nothing does."""
        parts = [part for accumulator in self._accumulators for part in accumulator.gatherable()]
        return parts or None

    def load_gathered(self, gathered: Sequence[Tensor]) -> None:
        """Take the gatherable tensors of all participants.

        Args:
            gathered: as `gatherable` gives them, each concatenated along the first dimension.

        Raises:
            ProtocolError: there are more or fewer than this participant has.
        """
        self._gathered = [part.detach().cpu() for part in gathered]
        at = 0
        for accumulator in self._accumulators:
            count = len(accumulator.gatherable())
            if count:
                accumulator.load_gathered(gathered[at : at + count])
            at += count
        if at != len(gathered):
            raise ProtocolError(
                f"{len(gathered)} gathered tensors, expected {at}", "all participants need the same metrics"
            )

    def pooled_states(self) -> list[Tensor]:
        """The sums of all participants together where they were pooled, this one's where it is alone."""
        if self._pooled is None:
            return self.states()
        return [torch.from_numpy(state) for state in self._pooled]

    def pooled_gatherable(self) -> list[Tensor] | None:
        """The gatherable tensors of all participants where they were gathered, this one's where it is alone."""
        return self._gathered if self._gathered is not None else self.gatherable()

    def state_dict(self) -> dict[str, Any]:
        """Where this participant is inside an evaluation; case rows are not kept."""
        parts = [accumulator.snapshot() for accumulator in self._accumulators]
        return {"loss": self._loss.cpu().clone(), "weight": self._weight, "parts": parts}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.reset()
        self._loss, self._weight = state["loss"].clone(), float(state["weight"])
        for accumulator, snapshot in zip(self._accumulators, state["parts"], strict=True):
            accumulator.restore(snapshot)

    def _parts(self) -> tuple[Array, list[tuple[Accumulator, list[Array]]]]:
        pooled, at = self._pooled, 1
        parts = []
        for accumulator in self._accumulators:
            own = [state.numpy() for state in accumulator.states()]
            parts.append((accumulator, own if pooled is None else pooled[at : at + len(own)]))
            at += len(own)
        loss = numpy.array([float(self._loss), self._weight]) if pooled is None else pooled[0]
        return loss, parts

    def compute(self) -> dict[str, float]:
        """The scores by name; nan where there is nothing to judge."""
        loss, parts = self._parts()
        values = {"loss": float(loss[0] / loss[1]) if loss[1] else float("nan")}
        for accumulator, states in parts:
            values.update(accumulator.values(states))
        order = {name: values[name] for name in self._modes if name in values}
        return order | values  # objects of others may give several values, known only now

    @contextmanager
    def own(self) -> Iterator[None]:
        """Inside, `compute` and `details` are this participant's alone, also where sums were pooled."""
        pooled, self._pooled = self._pooled, None
        try:
            yield
        finally:
            self._pooled = pooled

    def details(self) -> dict[str, Any]:
        """What a report shows beyond the scores (confusion matrix, per class, curves), JSON-able; undefined is None."""
        merged: dict[str, Any] = {}
        for accumulator, states in self._parts()[1]:
            merge(merged, accumulator.details(states))
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
        """Names of the scores that were asked for, "loss" first."""
        return list(self._modes)

    def mode(self, name: str) -> Mode:
        """Which direction of a score is better: "min" or "max".

        Args:
            name: of the score, or of one of its values per class.

        Raises:
            UsageError: there is no such score, or it does not say.
        """
        known = [asked for asked in self._modes if name == asked or name.startswith(f"{asked}_")]
        if not known:
            raise UsageError(f"there is no score '{name}'", f"scores of this task: {', '.join(self._modes)}")
        mode = self._modes[max(known, key=len)]
        if mode is None:
            raise UsageError(
                f"score '{name}' does not say which direction is better",
                "set monitor: {mode: min} or {mode: max}, or give the metric an attribute higher_is_better",
            )
        return mode


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
        metrics: names of `KNOWN`, `(name, arguments)` pairs, metric objects (update/compute/reset), functions
            `(outputs, targets) -> one value per sample`, or mappings of own names to objects or functions.
        kind: binary, multiclass, multilabel, regression or segmentation.
        classes: number of classes (segmentation: with background), of labels, or of regression outputs (0 or 1: as many
            as the first batch has).
        class_names: names for reports; None numbers them.
        gather: whether predictions may leave a participant (exact AUROC), or sums only.

    Raises:
        UsageError: unknown name or argument, or a score that does not fit the kind of task.
    """
    setting = make_setting(check_kind(kind), classes, class_names, gather)
    families: dict[str, list[Request]] = {} if kind == "regression" else {"confusion": []}
    foreign: list[Accumulator] = []
    modes: dict[str, Mode | None] = {}
    for metric in metrics:
        if isinstance(metric, str) and metric == "loss":  # objects of others overload ==
            continue
        if isinstance(metric, str) or _named_pair(metric):
            request = make_request(metric, setting.kind)
            families.setdefault(KNOWN[request.name].family, []).append(request)
            found: list[tuple[str, Mode | None]] = [(request.key, KNOWN[request.name].mode)]
        else:
            adopted = adopt(metric, setting)
            foreign += [accumulator for _, accumulator, _ in adopted]
            found = [(name, mode) for name, _, mode in adopted]
        for name, mode in found:
            if name in modes or name == "loss":
                raise UsageError(
                    f"score '{name}' is asked for twice", "leave one out, or name it: {other_name: metric}"
                )
            modes[name] = mode
    ours = [FACTORIES[family, setting.kind, gather](setting, requests) for family, requests in families.items()]
    return ScoreBook(setting, [*ours, *foreign], modes)


def make_setting(kind: Kind, classes: int, class_names: Sequence[str] | None, gather: bool) -> Setting:
    """Check the number of classes and their names."""
    if kind == "binary":
        classes = 2
    least = {"multiclass": 2, "segmentation": 2, "multilabel": 1, "binary": 2, "regression": 0}[kind]
    if classes < least:
        raise UsageError(f"{kind} scores need classes >= {least}, got {classes}", "count the background as a class")
    names = tuple(str(name) for name in class_names) if class_names else tuple(str(i) for i in range(classes))
    if kind != "regression" and len(names) != classes:
        raise UsageError(f"{classes} classes, but {len(names)} class names: {', '.join(names)}")
    return Setting(kind, classes, names, gather)


def _named_pair(metric: Any) -> bool:
    return (
        isinstance(metric, (tuple, list))
        and len(metric) == 2
        and isinstance(metric[0], str)
        and isinstance(metric[1], Mapping)
    )


def make_request(metric: Any, kind: Kind) -> Request:
    """A requested score from a name or a pair (name, arguments)."""
    name, given = (metric, {}) if isinstance(metric, str) else metric
    info = find_metric(name, kind)
    check_arguments(name, given)
    arguments = {**info.arguments, **given}
    return Request(name, score_name(name, given), arguments)


def merge(into: dict[str, Any], more: Mapping[str, Any]) -> None:
    """Add entries; dictionaries under the same key are merged."""
    for key, value in more.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            merge(into[key], value)
        else:
            into[key] = dict(value) if isinstance(value, Mapping) else value


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
