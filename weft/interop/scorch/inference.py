"""Applying a trained Network to items of any mode, with or without targets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from weft.data import make_loader
from weft.data.batches import map_tensors
from weft.data.split_data import SplitData
from weft.engine import pick_device
from weft.engine.seeding import participant_seed, seed_everything
from weft.errors import UsageError
from weft.interop.scorch.checkpoints import write_content
from weft.interop.scorch.contract import called
from weft.interop.scorch.experiment import Flags, read_files
from weft.interop.scorch.items import ScorchItems
from weft.interop.scorch.model import ScorchModel, list_of_outputs
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
    model_file, dataset_file = read_files(flags)
    device = pick_device("cuda" if flags.use_cuda else "cpu")
    items = ScorchItems(
        dataset_file.DataSet, flags.dataset_path, mode, getattr(dataset_file, "DataSetIndex", None),
        flags.dataset_args, flags.seed,
    )  # fmt: skip
    seed_everything(participant_seed(flags.seed, 0))
    model = ScorchModel(
        model_file.Network, model_file.Socket, flags.model_args, str(flags.checkpoint), cuda=flags.use_cuda
    )
    model = model.to(device).eval()
    parts = _parts(flags, items, model, device)
    outputs, targets = together(parts)
    rows = torch.cat([part["rows"] for part in parts]).sort().values
    scores = measure(model.socket, outputs, targets) if targets else {}
    if out is not None:
        write_content(out, {"rows": rows, "outputs": outputs, "targets": targets})
    return Inferred(rows, outputs, targets, scores)


def _parts(flags: Flags, items: ScorchItems, model: ScorchModel, device: torch.device) -> list[dict[str, Any]]:
    split = SplitData(items.mode, items, [str(row) for row in range(len(items))], source="item")
    loader = make_loader(split, batch_size=flags.batch_size, seed=flags.seed, shuffle=False, num_workers=flags.workers)
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
