"""Randomness of a run: one stream per participant, part of its state, never drawn from by the loaders."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def participant_seed(seed: int, participant: int) -> int:
    """Seed of a participant's stream; the first one has `seed` itself, so that it equals a tutorial loop's."""
    if participant == 0:
        return seed
    return int.from_bytes(hashlib.sha256(f"weft participant {seed} {participant}".encode()).digest()[:8]) >> 1


def seed_everything(seed: int) -> None:
    """Seed torch (all devices), NumPy and `random`."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - user code draws from the global generator
    random.seed(seed)


def random_state() -> dict[str, Any]:
    """The state of all global generators as tensors, numbers and strings (loads with `weights_only=True`)."""
    version, internal, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)  # noqa: NPY002
    state: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "numpy": [
            str(name),
            torch.from_numpy(np.asarray(keys).astype(np.int64)),
            int(position),
            int(has_gauss),
            float(cached),
        ],
        "random": [version, torch.tensor(internal, dtype=torch.int64), gauss],
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        state["cuda"] = [device_state.clone() for device_state in torch.cuda.get_rng_state_all()]
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """Put all global generators back into `state` (from `random_state`)."""
    torch.set_rng_state(state["torch"])
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))  # noqa: NPY002
    version, internal, gauss = state["random"]
    random.setstate((version, tuple(internal.tolist()), gauss))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])


@contextmanager
def outer_randomness_kept() -> Iterator[None]:
    """Whatever happens inside, the global generators are afterwards what they were before."""
    before = random_state()
    try:
        yield
    finally:
        set_random_state(before)
