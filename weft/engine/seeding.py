"""Randomness of a run: one stream per participant, part of its state, never drawn from by the loaders."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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
def own_randomness(seed: int) -> Iterator[None]:
    """Inside, the global generators follow from `seed`; afterwards they are what they were before.

    Cheap enough for every epoch: `torch.manual_seed` looks for devices of all kinds, and takes milliseconds.
    """
    with outer_randomness_kept():
        torch.default_generator.manual_seed(seed)
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            torch.cuda.manual_seed_all(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        random.seed(seed)
        yield


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of all global generators as they have it: quickly taken and put back, but for this process only."""

    of_torch: torch.Tensor
    of_numpy: Any
    of_python: Any
    of_devices: list[torch.Tensor]


def snapshot(of_numpy: Any = None) -> Snapshot:
    """The state of all global generators, to be put back by `put_back` often.

    Args:
        of_numpy: NumPy's, where it is known: asking for it takes longer than all others together.
    """
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    told = np.random.get_state(legacy=False) if of_numpy is None else of_numpy  # noqa: NPY002
    return Snapshot(torch.get_rng_state(), told, random.getstate(), devices)


def put_back(kept: Snapshot, *, with_numpy: bool = True) -> None:
    """Put all global generators back to where `snapshot` found them, NumPy's too unless it is put back otherwise."""
    torch.set_rng_state(kept.of_torch)
    if with_numpy:
        np.random.set_state(kept.of_numpy)  # noqa: NPY002
    random.setstate(kept.of_python)
    if kept.of_devices:
        torch.cuda.set_rng_state_all(kept.of_devices)


@contextmanager
def outer_randomness_kept() -> Iterator[None]:
    """Whatever happens inside, the global generators are afterwards what they were before."""
    before = snapshot()
    try:
        yield
    finally:
        put_back(before)
