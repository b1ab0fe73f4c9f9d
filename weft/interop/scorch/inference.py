"""Applying a trained Network to items of any mode, with or without targets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from weft.data.batches import map_tensors
from weft.errors import UsageError
from weft.interop.scorch.checkpoints import write_content
from weft.interop.scorch.contract import called
from weft.interop.scorch.experiment import Flags
from weft.interop.scorch.items import ScorchItems
from weft.interop.scorch.model import ScorchModel, list_of_outputs
from weft.interop.scorch.opening import open_batches, open_items, open_model
from weft.interop.scorch.scores import measure, together


@dataclass(frozen=True, slots=True)
class Inferred:
    """What a Network said about items.

    Args:
        rows: number of each item in its DataSet, int64 [n].
        outputs: the outputs [n, ...], in the order of rows.
        targets: the targets likewise; empty where items have none.
        scores: the Socket's scores; empty without targets.
    """

    rows: Tensor
    outputs: list[Any]
    targets: list[Any]
    scores: dict[str, float]


@torch.no_grad()
def infer(flags: Flags, mode: str = "test", out: Path | None = None) -> Inferred:
    """Apply the Network of a checkpoint to the items of a mode.

    A Network with a method `inference` is asked by that; else by `forward`.

    Args:
        flags: model, dataset and checkpoint; what concerns training is not used.
        mode: what DataSet is asked for: test, inference, valid or train.
        out: file for rows, outputs and targets, in torch's form.

    Raises:
        ConfigError, DataError, UsageError: files or flags are wrong.
        CheckpointError: the checkpoint cannot be read, or does not fit.
    """
    if flags.checkpoint is None:
        raise UsageError("no checkpoint is named", "give one: --checkpoint checkpoint_best.pth.tar")
    items, model = open_items(flags, mode), open_model(flags).eval()
    parts = _parts(flags, items, model)
    outputs, targets = together(parts)
    rows = torch.cat([part["rows"] for part in parts]).sort().values
    scores = measure(model.socket, outputs, targets) if targets else {}
    if out is not None:
        write_content(out, {"rows": rows, "outputs": outputs, "targets": targets})
    return Inferred(rows, outputs, targets, scores)


def _parts(flags: Flags, items: ScorchItems, model: ScorchModel) -> list[dict[str, Any]]:
    loader, device = open_batches(flags, items), next(model.parameters()).device
    own = getattr(model.network, "inference", None)
    parts = []
    try:
        for batch in loader.epoch(0):
            if not batch.size:
                continue
            inputs = list(batch.to(device).inputs)
            if own is None:
                outputs = model(inputs)
            else:
                outputs = list_of_outputs(
                    model.network, "inference", called(model.network, "Network.inference", own, inputs)
                )
            outputs = map_tensors(outputs, Tensor.cpu)
            parts.append({"rows": batch.index, "outputs": outputs, "targets": list(batch.targets or ())})
    finally:
        loader.close()
    return parts
