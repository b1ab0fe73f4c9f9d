"""Loader workers: processes that load batches ahead, and what becomes of an error or a death among them."""

from __future__ import annotations

import errno
import multiprocessing.connection
import multiprocessing.queues
import os
import signal
import threading
import traceback
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.utils.data import DataLoader

from weft.data.batches import Batch, map_tensors
from weft.data.fetch import BatchKey, Fetcher
from weft.errors import UsageError, WeftError, WorkerError


@dataclass(slots=True)
class Parcel:
    """What a worker sends back: a batch, or why there is none.

    Args:
        batch: the batch, None after an error.
        skipped: reasons by row of the items left out of it.
        error: what was raised instead.
        trace: the traceback of the error as text; tracebacks cannot cross the border between processes.
    """

    batch: Batch | None
    skipped: dict[int, str]
    error: WeftError | None = None
    trace: str = ""

    def pin_memory(self) -> Parcel:
        """The parcel with its batch in page-locked memory; called by the DataLoader."""
        return self if self.batch is None else replace(self, batch=self.batch.pin_memory())


class WorkerTraceback(Exception):
    """The traceback of an error in a loader worker, as text."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


class _WorkerDataset:
    """What workers run: a key in, a parcel out."""

    def __init__(self, fetcher: Fetcher) -> None:
        self.fetcher = fetcher

    def __len__(self) -> int:
        return len(self.fetcher.dataset)

    def __getitem__(self, key: BatchKey) -> Parcel:
        return self.__getitems__(key)

    def __getitems__(self, key: BatchKey) -> Parcel:
        self.fetcher.skipped = {}
        try:
            batch = self.fetcher.fetch(key)
            # Moved to shared memory here, where failing raises: in the queue's own thread the batch would be lost.
            map_tensors((batch.inputs, batch.targets, batch.index, batch.spacing), torch.Tensor.share_memory_)
            return Parcel(batch, self.fetcher.skipped)
        except WeftError as error:
            return Parcel(None, self.fetcher.skipped, error, traceback.format_exc())
        except (RuntimeError, OSError, MemoryError) as error:
            known = as_worker_error(error)
            if known is None:
                raise
            return Parcel(None, self.fetcher.skipped, known, traceback.format_exc())


class _Keys:
    """The batch sampler: keys of the batches that are to come."""

    def __init__(self) -> None:
        self.keys: list[BatchKey] = []

    def __iter__(self) -> Iterator[BatchKey]:
        return iter(self.keys)

    def __len__(self) -> int:
        return len(self.keys)


def _as_it_is(parcel: Parcel) -> Parcel:
    return parcel


def _start_worker(worker: int) -> None:
    """Signals are for the training process; a batch that cannot be sent ends the worker instead of being lost."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    multiprocessing.queues.Queue._on_queue_feeder_error = staticmethod(_end_worker)  # type: ignore[attr-defined]


def _end_worker(error: Exception, parcel: object) -> None:
    traceback.print_exception(error)
    os._exit(errno.EMFILE if isinstance(error, OSError) and error.errno == errno.EMFILE else 1)


class Workers:
    """Worker processes that last over epochs.

    Args:
        fetcher: loads a batch; copied to every worker.
        count: number of processes, at least 1.
        pin_memory: put batches into page-locked memory.
    """

    def __init__(self, fetcher: Fetcher, count: int, pin_memory: bool) -> None:
        self._keys = _Keys()
        self._loader: DataLoader[Any] = DataLoader(
            _WorkerDataset(fetcher),  # type: ignore[arg-type]
            batch_sampler=self._keys,  # type: ignore[arg-type]
            num_workers=count,
            collate_fn=_as_it_is,  # type: ignore[arg-type]  # called with what __getitems__ returns
            pin_memory=pin_memory,
            worker_init_fn=_start_worker,
            persistent_workers=True,
            generator=torch.Generator(),  # the DataLoader draws a seed, which must not come from the global generator
        )
        self._iterator: Any = None
        self._finalizer: Any = None
        self._count = count
        self._epoch = 0

    def parcels(self, keys: list[BatchKey]) -> Iterator[Parcel]:
        """The batches of the keys, in their order. Beginning another epoch gives up the one before.

        Raises:
            WorkerError: a worker died.
        """
        self._epoch += 1
        return self._run(keys, self._epoch)

    def _run(self, keys: list[BatchKey], epoch: int) -> Iterator[Parcel]:
        self._require_latest(epoch)
        with self._waiting():
            self._start(keys)
        for _ in keys:
            self._require_latest(epoch)
            with self._waiting():
                parcel = next(self._iterator)
            yield parcel

    def _start(self, keys: list[BatchKey]) -> None:
        self._keys.keys = keys
        self._iterator = iter(self._loader)
        _tame_child_signal()
        if self._finalizer is None:
            self._finalizer = weakref.finalize(self, _end, self._iterator, os.getpid())

    def _require_latest(self, epoch: int) -> None:
        if epoch != self._epoch:
            raise UsageError("this epoch was given up when another one was begun or the loader was closed")

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        """While a worker is waited for, the death of one interrupts; it comes out as WorkerError."""
        try:
            with _children.awaited():
                yield
        except (RuntimeError, OSError, MemoryError, EOFError) as error:
            known = as_worker_error(error, self._count, self._deaths(error))
            if known is None:
                raise
            self.close()
            raise known from error

    def _deaths(self, error: BaseException) -> list[int]:
        """Exit codes of the workers that ended."""
        workers = getattr(self._iterator, "_workers", [])
        if isinstance(error, ConnectionError | EOFError | FileNotFoundError):
            # The connections of a dying worker close a moment before its death can be seen.
            ending = multiprocessing.connection.wait([worker.sentinel for worker in workers], timeout=5)
            for worker in workers:
                if worker.sentinel in ending:
                    worker.join(timeout=5)
        return [worker.exitcode for worker in workers if not worker.is_alive()]

    def close(self) -> None:
        """End the processes; another epoch starts new ones."""
        self._epoch += 1
        finalizer, self._finalizer = self._finalizer, None
        self._iterator = self._loader._iterator = None
        if finalizer is not None:
            finalizer()


def _end(iterator: Any, owner: int) -> None:
    """Ask the workers to end; one that does not within the DataLoader's time is killed, since they ignore SIGTERM."""
    if os.getpid() != owner:  # a forked child inherits the object, but the workers are not its own
        return
    processes = list(iterator._workers)
    iterator._shutdown_workers()
    for process in processes:
        if process.is_alive():
            process.kill()
            process.join()


class _Children:
    """When the death of a child process is told. torch's handler of SIGCHLD raises wherever the program happens to be,
    in the middle of an optimizer's step for instance; here it is put off until a loader waits."""

    def __init__(self) -> None:
        self.waiting = 0
        self.pending = False
        self.handler: Any = None

    def on_signal(self, number: int, frame: Any) -> None:
        """The handler of SIGCHLD."""
        if self.waiting:
            self.handler(number, frame)
        else:
            self.pending = True

    @contextmanager
    def awaited(self) -> Iterator[None]:
        """Inside, a death is told at once, one that was put off as well."""
        self.waiting += 1
        try:
            if self.pending:
                self.pending = False
                self.handler(signal.SIGCHLD, None)
            yield
        finally:
            self.waiting -= 1


_children = _Children()


def _tame_child_signal() -> None:
    """Put our handler before the one that torch installed with its first worker."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGCHLD"):
        return
    handler = signal.getsignal(signal.SIGCHLD)
    if callable(handler) and handler != _children.on_signal:
        _children.handler = handler
        signal.signal(signal.SIGCHLD, _children.on_signal)


@dataclass(frozen=True, slots=True)
class _Trouble:
    marks: tuple[str, ...]  # in the message of the error
    codes: tuple[int, ...]  # exit codes of the worker; minus a number stands for a signal
    cause: str
    remedy: str


_TROUBLES = (
    _Trouble(
        ("Too many open files", "received 0 items of ancdata"),
        (errno.EMFILE,),
        "the limit of open files is reached",
        "raise it with `ulimit -n 65536` in the shell, or use fewer workers (run.num_workers: 0 needs none)",
    ),
    _Trouble(
        ("bus error", "Bus error", "No space left on device", "shared memory", "unable to mmap"),
        (-getattr(signal, "SIGBUS", 7),),
        "there is not enough shared memory",
        "give a container more (docker run --shm-size=8g), or use fewer workers (run.num_workers: 0 needs none)",
    ),
    _Trouble(
        ("killed by signal: Killed", "Cannot allocate memory", "can't allocate memory"),
        (-getattr(signal, "SIGKILL", 9),),
        "it was killed, most likely because the machine ran out of memory",
        "use fewer workers (run.num_workers: 0 loads in the training process itself) or smaller batches",
    ),
)
_CRASH = (
    "it crashed, perhaps in a library that loads the data",
    "run with run.num_workers: 0 to see the error itself; if it was memory, fewer workers help",
)


def as_worker_error(error: BaseException, count: int = 0, exit_codes: Sequence[int] = ()) -> WorkerError | None:
    """The error for a worker's death or want of memory or file handles; None when the error is of another kind.

    Args:
        error: what was raised while a batch was loaded or waited for.
        count: number of workers, 0 when a worker itself asks.
        exit_codes: of the workers that ended.
    """
    if isinstance(error, WeftError):
        return None
    text = "Cannot allocate memory" if isinstance(error, MemoryError) else str(error)
    whose = f"one of {count} loader workers" if count else "a loader worker"
    for trouble in _TROUBLES:
        if any(code in trouble.codes for code in exit_codes) or any(mark in text for mark in trouble.marks):
            return WorkerError(f"{whose} failed: {trouble.cause} ({_first_line(text)})", trouble.remedy)
    lost = isinstance(error, ConnectionError | EOFError)
    if exit_codes or lost or "DataLoader worker" in text or "Pin memory thread exited" in text:
        return WorkerError(f"{whose} ended: {_CRASH[0]} ({_first_line(text)})", _CRASH[1])
    return None


def _first_line(text: str) -> str:
    return text.splitlines()[0] if text else "no message"
