"""Settings of the process that decide about bits: threads and deterministic kernels. Put back when the run is over."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch

from weft.engine.allocator import freed_memory_kept
from weft.engine.seeding import outer_randomness_kept

# Below so many numbers in a batch of inputs, threads cost more than they bring: their barriers spin, and on a busy
# machine an epoch becomes ten times slower and more.
SMALL_BATCH = 65_536


def choose_threads(batch_numbers: int) -> int:
    """How many threads an operation uses under `run.threads: auto`: one for small batches, else what torch chose.

    Args:
        batch_numbers: how many numbers a batch of inputs holds.
    """
    return 1 if batch_numbers < SMALL_BATCH else torch.get_num_threads()


@contextmanager
def reproducible(*, threads: int, deterministic: bool, device: torch.device) -> Iterator[None]:
    """Settings under which a run is the same again; the process gets its own back at the end.

    Args:
        threads: threads of an operation on the CPU. Their number decides in which parts sums are taken, so about bits.
        deterministic: refuse kernels that are not deterministic. On the CPU all that matter are, so nothing is
            changed there.
        device: where the run computes.
    """
    threads_before = torch.get_num_threads()
    deterministic_before = torch.are_deterministic_algorithms_enabled()
    settings: Any = torch.utils.deterministic  # its one attribute is made at run time
    fill_before = settings.fill_uninitialized_memory
    benchmark_before = torch.backends.cudnn.benchmark
    with outer_randomness_kept(), freed_memory_kept() if device.type == "cpu" else nullcontext():
        try:
            torch.set_num_threads(threads)
            if device.type == "cuda" and deterministic:
                os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
                torch.use_deterministic_algorithms(True)
                settings.fill_uninitialized_memory = False  # a debugging aid that costs time
                torch.backends.cudnn.benchmark = False
            elif device.type == "cuda":
                torch.backends.cudnn.benchmark = True
            yield
        finally:
            torch.set_num_threads(threads_before)
            if torch.are_deterministic_algorithms_enabled() != deterministic_before:  # it imports torch's compiler
                torch.use_deterministic_algorithms(deterministic_before)
            settings.fill_uninitialized_memory = fill_before
            torch.backends.cudnn.benchmark = benchmark_before
