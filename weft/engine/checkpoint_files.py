"""Single files of checkpoints: their names, what stands in them, and whether it is sound."""

from __future__ import annotations

import hashlib
import io
import re
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch
from torch import Tensor

NAME = re.compile(r"(?P<kind>last|best)-(?P<step>\d{9})-(?P<digest>[0-9a-f]{16})\.pt")
# Epoch, batch and step of a state, and 1 where the epoch's steps were all taken: a run that is stopped in validation
# may have saved after its last step before.
Boundary = tuple[int, int, int, int]


def read_checkpoint(file: Path) -> dict[str, Any] | str:
    """The content of a checkpoint file, or in words why it is not sound."""
    match = NAME.fullmatch(file.name)
    try:
        data = file.read_bytes()
    except OSError as error:
        return error.strerror or "cannot be read"
    if match is not None and hashlib.sha256(data).hexdigest()[:16] != match["digest"]:
        return f"its {len(data)} bytes are not those that were written"
    content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    return content if isinstance(content, dict) else "it does not hold a state"


def scored_weights_of(content: dict[str, Any]) -> dict[str, Tensor]:
    """The weights that scores are taken from, of a state or of best weights: the moving average where there is one."""
    weights: dict[str, Tensor] = content["model"] if content.get("average") is None else content["average"]
    return weights


def best_steps(state: dict[str, Any]) -> set[int]:
    """The steps whose best weights a state refers to."""
    best = state["best"]
    return {step for step in (best["step"], *(step for _, _, step in best.get("kept", ()))) if step is not None}


def size_of(content: Any) -> int:
    """Bytes of the tensors in it, those that are there twice counted twice."""
    if isinstance(content, Tensor):
        return content.nbytes
    parts = content.values() if isinstance(content, dict) else content if isinstance(content, list | tuple) else ()
    return sum(size_of(part) for part in parts)


def write_checkpoint(content: dict[str, Any], file: BinaryIO) -> str:
    """Write a checkpoint's content into an open file; returns the digest of its bytes."""
    digesting = _Digesting(file)
    try:
        torch.save(content, cast(BinaryIO, digesting))
    except Exception:
        if digesting.refused is not None:  # torch, whose words they hide behind, knows only that writing failed
            raise digesting.refused from None
        raise
    return digesting.digest.hexdigest()


class _Digesting:
    """A file whose bytes are digested on their way into it."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.digest = file, hashlib.sha256()
        self.refused: OSError | None = None

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        try:
            return self.file.write(data)
        except OSError as error:
            self.refused = error
            raise

    def flush(self) -> None:
        """What is written goes on at once."""


def boundary_of(state: dict[str, Any]) -> Boundary:
    """Where a state lies in its run."""
    position = state["position"]
    return position["epoch"], position["batch"], position["step"], int(state["sums"]["buffers_averaged"])


def step_of(file: Path) -> int:
    """The step in a checkpoint's name; -1 for another file."""
    match = NAME.fullmatch(file.name)
    return int(match["step"]) if match else -1
