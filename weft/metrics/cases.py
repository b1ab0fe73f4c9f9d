"""Per-case rows of an evaluation: what each sample was, what the model said, how sure it was."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from weft.metrics.values import BatchView, Setting


class CaseRecorder:
    """Keeps what the rows need, as tensors; the rows are made only when they are asked for."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.reset()

    def reset(self) -> None:
        """Forget all cases."""
        self.names: list[str] = []
        self._outputs: list[Tensor] = []
        self._targets: list[Tensor] = []
        self._losses: list[Tensor] = []

    def update(self, batch: BatchView, loss: Tensor | None) -> None:
        """Keep a batch whose cases have names; `loss` with one value per sample makes a column."""
        self.names.extend(batch.cases or ())
        if self.setting.kind != "segmentation":
            self._outputs.append(batch.logits.clone())  # the model may reuse its output buffers
            self._targets.append(batch.labels)
        if loss is not None and loss.dim() == 1 and loss.shape[0] == batch.size:
            self._losses.append(loss.detach())

    def rows(self, columns: dict[str, list[Any]]) -> list[dict[str, Any]]:
        """One row per case; `columns` are further per-case values."""
        if not self.names:
            return []
        table: dict[str, list[Any]] = {"case": self.names}
        if self._outputs:
            outputs = torch.cat([part.cpu() for part in self._outputs])
            targets = torch.cat([part.cpu() for part in self._targets])
            table |= _COLUMNS[self.setting.kind](self.setting, outputs, targets)
        losses = [value for part in self._losses for value in part.cpu().tolist()]
        if len(losses) == len(self.names):
            table["loss"] = losses
        table |= columns
        return [dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True)]


def _single_label(setting: Setting, outputs: Tensor, targets: Tensor) -> dict[str, list[Any]]:
    if setting.kind == "binary":
        if outputs.dim() == 2 and outputs.shape[1] == 2:
            outputs = outputs[:, 1] - outputs[:, 0]
        odds = outputs.double().reshape(-1)
        probabilities = torch.stack((torch.sigmoid(-odds), torch.sigmoid(odds)), 1)  # 1 - p would lose small ones
        predicted = (outputs.reshape(-1) > 0).long()
    else:
        probabilities, predicted = torch.softmax(outputs.double(), 1), outputs.argmax(1)
    names = setting.class_names
    table: dict[str, list[Any]] = {
        "target": [names[label] for label in targets.tolist()],
        "prediction": [names[label] for label in predicted.tolist()],
        "probability": probabilities.gather(1, predicted[:, None])[:, 0].tolist(),
    }
    for index, name in enumerate(names if len(names) <= 32 else ()):
        table[f"probability_{name}"] = probabilities[:, index].tolist()
    return table


def _many_labels(setting: Setting, outputs: Tensor, targets: Tensor) -> dict[str, list[Any]]:
    table: dict[str, list[Any]] = {}
    probabilities = torch.sigmoid(outputs.double())
    for index, name in enumerate(setting.class_names):
        table[f"target_{name}"] = targets[:, index].tolist()
        table[f"prediction_{name}"] = (outputs[:, index] > 0).long().tolist()
        table[f"probability_{name}"] = probabilities[:, index].tolist()
    return table


def _numbers(setting: Setting, outputs: Tensor, targets: Tensor) -> dict[str, list[Any]]:
    width = outputs.shape[1]
    names: Sequence[str] = [""] if width == 1 else [f"_{name}" for name in output_names(setting, width)]
    table: dict[str, list[Any]] = {}
    for index, name in enumerate(names[:64]):  # images as outputs have predictions of their own, not columns
        table[f"target{name}"] = targets[:, index].tolist()
        table[f"prediction{name}"] = outputs[:, index].tolist()
    return table


def output_names(setting: Setting, width: int) -> Sequence[str]:
    """Names of regression outputs: those given, or numbers."""
    return setting.class_names if len(setting.class_names) == width else [str(index) for index in range(width)]


_COLUMNS = {
    "binary": _single_label,
    "multiclass": _single_label,
    "multilabel": _many_labels,
    "regression": _numbers,
}
