"""How many loader workers a split deserves on this machine."""

from __future__ import annotations

import os
import time
from pathlib import Path

from weft.data.batches import map_tensors
from weft.data.fetch import BatchKey, Fetcher
from weft.data.memory import available_memory
from weft.data.split_data import SplitData

_MOST = 8  # beyond that the training process itself is what unpacks too slowly
_WORTH_SECONDS = 0.002  # loading a batch in less is over before a worker could hand it over
_WORKER_BYTES = 300 * 2**20  # what a process needs beside its data
_AHEAD = 2  # batches that each worker keeps ready
_FILES_PER_WORKER = 32  # pipes, locks, and handles of tensors on their way


def auto_workers(split: SplitData, batch_size: int = 1, processes: int = 1) -> int:
    """A sensible number of loader workers, for `run.num_workers: auto`. It changes the speed only, never the result.

    Args:
        split: the data; those in memory need none.
        batch_size: samples of a batch.
        processes: training processes that share this machine.

    Returns:
        0 where loading a batch takes next to no time, or where memory or the limit of open files is too low.
    """
    if split.arrays is not None and split.augmented is None:
        return 0
    cores = available_cores() // max(processes, 1)
    if cores < 2 or len(split) <= batch_size:
        return 0
    seconds, size = _cost(split)
    if seconds * batch_size < _WORTH_SECONDS:
        return 0
    by_memory = available_memory() // 2 // max(processes, 1) // (_WORKER_BYTES + _AHEAD * batch_size * size)
    by_files = (open_file_limit() - 128) // 2 // _FILES_PER_WORKER
    batches = -(-len(split) // batch_size)
    return max(0, min(_MOST, cores - 1 if cores > 2 else cores, by_memory, by_files, batches))


def _cost(split: SplitData) -> tuple[float, int]:
    """Seconds that an item takes and bytes that it has; the first item is not timed, it may load libraries."""
    dataset = split.dataset if split.augmented is None else split.augmented
    fetcher = Fetcher(dataset, 0, keys=split.keys, where=split.where, skip_bad=True)
    batch = fetcher.fetch(BatchKey(0, [0]))
    begin = time.perf_counter()
    batch = fetcher.fetch(BatchKey(0, [min(1, len(split) - 1)]))
    seconds = time.perf_counter() - begin
    sizes: list[int] = []
    map_tensors((batch.inputs, batch.targets), lambda value: sizes.append(value.numel() * value.element_size()))
    return seconds, sum(sizes)


def available_cores() -> int:
    """CPU cores that this process may use: its affinity, and the share that a container is given."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))


def open_file_limit() -> int:
    """How many files this process may have open."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return 8192
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 1 << 20 if soft == resource.RLIM_INFINITY else soft
