"""Checkpoints written beside the training: it waits only until the state is copied in memory.

A thread makes the file, digests it, writes and syncs it, for which Python's lock is free most of the time. There is
never more than one write under way: the next one waits for it. What is promised of a checkpoint (written whole or not
at all, the one before kept until it is proven) is kept by the folder that does the writing. What changes: that it is
saved is told later, and a run that is killed in between goes on from the checkpoint before.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from threading import Thread
from typing import Any

import torch
from torch import Tensor

from weft.engine.checkpoints import CheckpointFolder, Saved
from weft.engine.state import plain


class BackgroundCheckpoints:
    """A folder of checkpoints that is written by a thread.

    Args:
        folder: where they lie.
    """

    def __init__(self, folder: CheckpointFolder) -> None:
        self._folder = folder
        self._copies = HostCopies()
        self._writer: Thread | None = None
        self._error: Exception | None = None
        self._proven: list[Saved] = []

    def save_last(self, state: dict[str, Any], step: int, *, best: bool = False) -> list[Saved]:
        """Copy the state of a step boundary and begin to write it; waits for the write before.

        Returns:
            the files of the write before.

        Raises:
            CheckpointError, RunDirectoryError: the write before failed.
        """
        proven = self.settle(wait=True)
        copied = self._copies.take(state)
        self._begin(lambda: self._folder.save_last(copied, step, best=best))
        return proven

    def save_best(self, weights: dict[str, Tensor], step: int, wanted: Collection[int] = ()) -> list[Saved]:
        """Copy weights of one of the best epochs and begin to write them; waits for the write before."""
        proven = self.settle(wait=True)
        copied = self._copies.take(plain(weights, "best"))
        self._begin(lambda: self._folder.save_best(copied, step, wanted))
        return proven

    def load_last(self) -> dict[str, Any] | None:
        """The newest sound state, None when there is none."""
        self._join()
        return self._folder.load_last()

    def load_best(self, step: int) -> dict[str, Tensor]:
        """The weights saved as best at `step`."""
        self._join()
        return self._folder.load_best(step)

    def folder_of_shards(self) -> Path | None:
        """The folder, where processes write their parts themselves."""
        return self._folder.folder_of_shards()

    def newest(self) -> Path | None:
        """The file of the newest state that lies safely on the disk."""
        self._join()
        return self._folder.newest()

    def best_file(self, step: int) -> Path | None:
        """The file of the weights saved as best at `step`."""
        self._join()
        return self._folder.best_file(step)

    def settle(self, *, wait: bool) -> list[Saved]:
        """What became safe since the last time that was told.

        Args:
            wait: for the write that is under way.

        Raises:
            CheckpointError, RunDirectoryError: it failed; the checkpoint before is kept. Raised once.
        """
        if self._writer is not None and (wait or not self._writer.is_alive()):
            self._join()
        if self._writer is not None:
            return []
        error, self._error = self._error, None
        if error is not None:
            raise error
        proven, self._proven = self._proven, []
        return proven

    def _begin(self, write: Callable[[], list[Saved]]) -> None:
        self._writer = Thread(target=self._write, args=(write,), name="weft-checkpoint")  # a run's end waits for it
        self._writer.start()

    def _write(self, write: Callable[[], list[Saved]]) -> None:
        try:
            self._copies.arrived()
            self._proven = write()
        except Exception as error:  # the training raises it at its next look
            self._error = error

    def _join(self) -> None:
        if self._writer is not None:
            self._writer.join()
            self._writer = None


class HostCopies:
    """Copies of a state in host memory, in the same buffers each time: fresh memory costs more than the copying.

    Tensors that share memory share it in the copy too. From CUDA devices they go to pinned memory behind what is queued
    there, and the training does not wait for them.
    """

    def __init__(self) -> None:
        self._buffers: list[Tensor] = []
        self._queued: list[torch.cuda.Event] = []

    def take(self, content: Any) -> Any:
        """Copy what consists of tensors, numbers, strings, lists, tuples and dicts; valid until it is called again."""
        copying = _Copying(self._buffers)
        copied = copying.copied(content)
        self._buffers, self._queued = copying.used, []
        for device in copying.devices:
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record(torch.cuda.current_stream(device))
            self._queued.append(event)
        return copied

    def arrived(self) -> None:
        """Wait until all is in host memory."""
        for event in self._queued:
            event.synchronize()


class _Copying:
    """One copy of a state, into buffers of the one before where they fit."""

    def __init__(self, spare: list[Tensor]) -> None:
        self.spare, self.used = spare, list[Tensor]()
        self.devices: set[torch.device] = set()
        self._tensors: dict[int, Tensor] = {}  # copies by the `id` of the tensor
        self._known: dict[tuple[torch.device, int], Tensor] = {}  # buffers by the memory that they are copies of

    def copied(self, content: Any) -> Any:
        if isinstance(content, Tensor):
            if id(content) not in self._tensors:
                self._tensors[id(content)] = self._tensor(content.detach())
            return self._tensors[id(content)]
        if isinstance(content, dict):
            return {key: self.copied(value) for key, value in content.items()}
        if isinstance(content, list | tuple):
            return type(content)(self.copied(value) for value in content)
        return content

    def _tensor(self, tensor: Tensor) -> Tensor:
        plain_memory = type(tensor) is Tensor and tensor.layout == torch.strided
        if not plain_memory or not tensor.numel() or tensor.is_conj() or tensor.is_neg():
            return tensor.cpu().clone()
        memory = tensor.untyped_storage()
        key = tensor.device, memory.data_ptr()
        if key not in self._known:
            self._known[key] = self._buffer(memory, tensor.device)
        here = self._known[key].untyped_storage()
        return torch.empty(0, dtype=tensor.dtype).set_(here, tensor.storage_offset(), tensor.size(), tensor.stride())

    def _buffer(self, memory: torch.UntypedStorage, device: torch.device) -> Tensor:
        number, size, pinned = len(self.used), memory.nbytes(), device.type == "cuda"
        fits = number < len(self.spare) and len(self.spare[number]) == size and self.spare[number].is_pinned() == pinned
        buffer = self.spare[number] if fits else torch.empty(size, dtype=torch.uint8, pin_memory=pinned)
        buffer.copy_(torch.empty(0, dtype=torch.uint8, device=device).set_(memory), non_blocking=pinned)
        self.used.append(buffer)
        if pinned:
            self.devices.add(device)
        return buffer
