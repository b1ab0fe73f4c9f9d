"""Numeric precision of a run: autocast around the forward pass, loss scaling for float16."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Precision:
    """Autocast and gradient scaling for `fp32`, `bf16` or `fp16` on a device.

    Args:
        name: "fp32", "bf16" or "fp16".
        device: where the model lives.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        self.name = name
        self.device_type = device.type
        self.lowered = name in _AUTOCAST
        self.scaler = torch.amp.GradScaler(device.type) if name == "fp16" else None

    def autocast(self) -> AbstractContextManager[object]:
        """Context of a forward pass. Never yield a collective inside it."""
        if not self.lowered:
            return nullcontext()
        return torch.autocast(self.device_type, dtype=_AUTOCAST[self.name])
