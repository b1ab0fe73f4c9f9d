"""How the C library keeps memory that was freed (glibc; nothing elsewhere, nor where the environment decides)."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# mallopt(3). The largest threshold that glibc takes is 32 MiB.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGE_PIECE, _LARGEST_THRESHOLD, _KEPT = 4 * 2**20, 32 * 2**20, 2**30


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Inside, up to 1 GiB of freed memory stays with the process.

    Every step of training frees and asks for the same tensors. By itself glibc gives much of it back to the system in
    between and gets it anew, page by page: some percent of a U-Net's step on a CPU. What it would have set by itself
    cannot be asked; afterwards the thresholds are the highest that it sets.
    """
    if _environment_decides():
        yield
        return
    _set(_MMAP_THRESHOLD, _LARGEST_THRESHOLD)
    _set(_TRIM_THRESHOLD, _KEPT)
    try:
        yield
    finally:
        _set(_MMAP_THRESHOLD, _LARGEST_THRESHOLD)
        _set(_TRIM_THRESHOLD, 2 * _LARGEST_THRESHOLD)


def give_back_large_pieces() -> None:
    """From here on, memory of large tensors goes back to the system when they are gone (for tensors in main memory). By
    itself it keeps pieces of up to 32 MiB once some were freed, and those of unlike sizes add up.
    """
    if not _environment_decides():
        _set(_MMAP_THRESHOLD, _LARGE_PIECE)


def give_back_free_pages() -> None:
    """Freed memory goes back to the system now, so that what is needed next shows as growth."""
    trim = getattr(_library(), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _library() -> Any:
    return ctypes.CDLL(None) if sys.platform == "linux" else None


def _set(option: int, value: int) -> None:
    mallopt = getattr(_library(), "mallopt", None)
    if mallopt is not None:
        mallopt(option, value)


def _environment_decides() -> bool:
    return any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)
