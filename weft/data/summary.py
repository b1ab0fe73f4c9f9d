"""What is in the data, in numbers for a report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from weft.data.fetch import BatchKey, Fetcher
from weft.data.split_data import SplitData

if TYPE_CHECKING:
    from weft.data.sources import Data


def summarize(data: Data) -> dict[str, Any]:
    """Per split: items, shapes and types, class counts or range of the targets; and the inputs that are constant."""
    result: dict[str, Any] = {
        "classes": data.classes,
        "fold": data.fold,
        "folds": data.fold_count,
        "splits": {name: _split(split, data.classes) for name, split in data.splits.items()},
    }
    constant = [scale["constant"] for scale in data.statistics.get("standardize", [])]
    if any(constant):
        result["constant_inputs"] = constant
    return result


def _split(split: SplitData, classes: list[str] | None) -> dict[str, Any]:
    summary: dict[str, Any] = {"items": len(split)}
    if split.groups is not None:
        summary["groups"] = len(set(split.groups))
    if split.arrays is None:
        # One item tells shapes and types; loading all of them may take hours.
        fetcher = Fetcher(split.dataset, 0, keys=split.keys, where=split.where, skip_bad=split.skip_bad)
        batch = fetcher.fetch(BatchKey(0, [0]))
        inputs, targets = batch.inputs, batch.targets
    else:
        inputs, targets = split.arrays
        summary.update(_targets(targets, classes))
    summary["inputs"] = _forms(inputs)
    summary["targets"] = _forms(targets)
    return summary


def _forms(value: Any) -> Any:
    if isinstance(value, Tensor):
        return {"shape": list(value.shape[1:]), "dtype": str(value.dtype).removeprefix("torch.")}
    if isinstance(value, tuple | list):
        return [_forms(part) for part in value]
    if isinstance(value, dict):
        return {name: _forms(part) for name, part in value.items()}
    return None


def _targets(targets: Any, classes: list[str] | None) -> dict[str, Any]:
    if not isinstance(targets, Tensor) or targets.numel() == 0:
        return {}
    if classes is not None and targets.dim() == 1:
        counts = torch.bincount(targets, minlength=len(classes)).tolist()
        return {"class_counts": dict(zip(classes, counts))}
    if classes is not None:
        return {"class_counts": dict(zip(classes, targets.sum(dim=0).to(torch.int64).tolist()))}
    values = targets.to(torch.float64)
    return {"target_range": [values.min().item(), values.max().item()], "target_mean": values.mean().item()}
