"""A storage of torch.distributed.checkpoint: one safetensors file of each process, in the form that torch's
`HuggingFaceStorageReader` reads.

Torch's own writer makes a file in memory first, and its `FileSystemWriter` pickles its metadata; this one writes a
tensor at a time and digests what it writes.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from pathlib import Path
from typing import Any, BinaryIO

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner, WriteItem
from torch.distributed.checkpoint.storage import StorageWriter, WriteResult
from torch.futures import Future

from weft.runs.files import explained

_KINDS = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
_PART = "DCP_SHARDING_INFO"  # key under which the reader looks for the offsets of the parts


class PartWriter(StorageWriter):
    """Writes the parts of this process.

    Args:
        folder: it is created.

    Attributes:
        digests: name of the file that was written to its sha256.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.digests: dict[str, str] = {}

    def reset(self, checkpoint_id: Any = None) -> None:
        """Nothing: a writer writes once."""

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        """Nothing to set up."""

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        """Make the folder; it is there before anybody writes."""
        with explained(self.folder, kept="the checkpoint before"):
            self.folder.mkdir(parents=True, exist_ok=True)
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        """Each process's plan as it is."""
        return plans

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """Write all items of the plan into one file and sync it."""
        results: list[WriteResult] = []
        if plan.items:
            path = self.folder / f"part-{dist.get_rank():05d}.safetensors"
            with explained(path, kept="the checkpoint before"), path.open("wb") as file:
                self.digests[path.name] = _write(plan.items, planner, file)
                file.flush()
                os.fsync(file.fileno())
            results = [WriteResult(item.index, 0, path.name) for item in plan.items]
        done: Future[list[WriteResult]] = Future()
        done.set_result(results)
        return done

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Nothing: the state that names the files is what counts."""

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: Any) -> bool:
        """Folders are given to the writer itself."""
        return False


def _write(items: list[WriteItem], planner: SavePlanner, file: BinaryIO) -> str:
    """Write a safetensors file, a tensor at a time; returns its sha256."""
    header: dict[str, Any] = {}
    offsets, position = {}, 0
    for item in items:
        assert item.tensor_data is not None
        kind, sizes = item.tensor_data.properties.dtype, item.tensor_data.chunk.sizes
        end = position + sizes.numel() * kind.itemsize
        header[item.index.fqn] = {"dtype": _KINDS[kind], "shape": list(sizes), "data_offsets": [position, end]}
        offsets[item.index.fqn] = {"saved_offsets": list(item.tensor_data.chunk.offsets)}
        position = end
    words = json.dumps({"__metadata__": {_PART: json.dumps(offsets), "format": "pt"}, **header}).encode()
    words += b" " * (-len(words) % 8)
    digest = hashlib.sha256()

    def put(data: Any) -> None:
        digest.update(data)
        file.write(data)

    put(struct.pack("<Q", len(words)))
    put(words)
    for item in items:
        tensor = planner.resolve_data(item)
        assert isinstance(tensor, Tensor)
        put(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
