"""What participants tell one another besides sums, packed into a gather."""

from __future__ import annotations

import io
from collections.abc import Generator
from typing import Any

import torch
from torch import Tensor

from weft.engine.collectives import Answer, Collective, Gather


def everybodys(tag: str, content: dict[str, Any]) -> Generator[Collective, Answer, list[dict[str, Any]]]:
    """Every participant's `content`, in order; tensors, numbers, strings, lists and dicts only."""
    packed = _packed(content)
    data, lengths = yield Gather(tag, [packed, torch.tensor([len(packed)])])
    return [_unpacked(part) for part in torch.split(data, lengths.tolist())]


def _packed(content: dict[str, Any]) -> Tensor:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8)


def _unpacked(data: Tensor) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(io.BytesIO(data.numpy().tobytes()), map_location="cpu", weights_only=True)
    return content
