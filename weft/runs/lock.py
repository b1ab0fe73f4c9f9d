"""One writer per run: an advisory lock that dies with its process."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from weft.errors import RunDirectoryError
from weft.runs.files import explained, process_exists

NO_LOCK_VARIABLE = "WEFT_NO_LOCK"


class RunLock:
    """An exclusive lock on a folder, held until `release` or the end of the process, also by a kill.

    Args:
        path: the lock file. It stays after the release: removing it would let two processes lock two files of one name.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    @property
    def held(self) -> bool:
        return self._descriptor is not None

    @property
    def descriptor(self) -> int:
        """The open file, for processes that are to hold the lock as well: it is free when the last one has ended."""
        assert self._descriptor is not None
        return self._descriptor

    def acquire(self) -> None:
        """Take the lock; taking it twice is harmless.

        Raises:
            RunDirectoryError: another process holds it (named), or the file system has no locks.
        """
        if self.held:
            return
        with explained(self.path, kept="everything in the run, untouched"):
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _flock(descriptor, self.path, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with explained(self.path, kept="everything in the run, untouched"):
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, _about_this_process(), 0)
        except BlockingIOError as error:
            message, hint = _explain_holder(self.path)
            os.close(descriptor)
            raise RunDirectoryError(message, hint) from error
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        _held.add(self)

    def release(self) -> None:
        """Give the lock back; without effect where it is not held."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
            _held.discard(self)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path`, waiting for others as long as it takes (they hold it for milliseconds)."""
    with explained(path, kept="everything, untouched"):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        _flock(descriptor, path, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _flock(descriptor: int, path: Path, operation: int) -> None:
    if os.environ.get(NO_LOCK_VARIABLE) == "1":
        return
    try:
        fcntl.flock(descriptor, operation)
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK):
            raise
        raise RunDirectoryError(
            f"the file system of {path} has no file locks, so two processes could write there at once",
            "choose a folder on another file system (run.output or --out), or mount this one with locks; if you are "
            f"sure that only one process writes there, set {NO_LOCK_VARIABLE}=1",
        ) from error


def _about_this_process() -> bytes:
    since = datetime.now().astimezone().isoformat(timespec="seconds")
    return json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since}).encode()


def _explain_holder(path: Path) -> tuple[str, str]:
    try:
        holder = json.loads(path.read_bytes())
        pid, host, since = int(holder["pid"]), str(holder["host"]), str(holder["since"])
    except (OSError, ValueError, KeyError, TypeError):  # taken this very moment: its owner has not written its name yet
        return f"another process is writing in {path.parent}", "wait for it to end, or choose another folder"
    message = f"{path.parent} is in use: process {pid} on {host} writes there since {since}"
    if host == socket.gethostname() and not process_exists(pid):
        return message, f"process {pid} has ended, but one that it started still holds the lock: end that one"
    return message, "wait for it to end, stop it (it saves its state), or choose another folder with --out"


_held: set[RunLock] = set()  # not weak: a forgotten RunLock object still holds its lock


def _forget_in_child() -> None:
    """A forked loader worker must not keep the lock of a parent that was killed; closing a copy does not unlock."""
    for lock in list(_held):
        lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
