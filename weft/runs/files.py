"""Files that are written whole or not at all.

A file is written under a temporary name in its own folder, synced, and renamed over the old one; then the folder is
synced. Whoever dies in between (a kill, a full disk, a power cut) leaves the old file as it was and at most a stray
`.<name>.<pid>.tmp`. The temporary file must stay in the same folder: a rename between file systems is a copy, and a
copy can be cut short.
"""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from weft.errors import RunDirectoryError

_TEMPORARY = re.compile(r"^\..+\.(?P<pid>\d+)\.tmp$")
_ABANDONED_AFTER = 3600.0  # seconds; a temporary file this old belongs to nobody, even where its number is in use again

_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)  # says a file system without

_REMEDIES = {
    errno.ENOSPC: "the disk is full: free some space or choose another folder, then resume",
    errno.EDQUOT: "your disk quota is used up: free some space or choose another folder, then resume",
    errno.EFBIG: "files may not be so large here: raise the limit (ulimit -f) or choose another folder, then resume",
    errno.EROFS: "the file system is read-only: choose a folder that can be written to (run.output or --out)",
    errno.EACCES: "the folder may not be written to: change its permissions or choose another (run.output or --out)",
    errno.EPERM: "the folder may not be written to: change its permissions or choose another (run.output or --out)",
    errno.EIO: "the disk reported an error: check it, and copy the run to a healthy one before you resume",
    errno.ENAMETOOLONG: "the name is too long for this file system: choose a shorter one",
    errno.ENOTDIR: "a part of this path is a file, not a folder: choose another folder",
    errno.EEXIST: "a file has this name: move it away, or choose another folder",
    errno.EISDIR: "a folder has this name: move it away",
    errno.ENOENT: "the folder does not exist (any more): create it or choose another",
}


def write_atomically(path: Path, data: bytes | Callable[[BinaryIO], Path | None], also: Path | None = None) -> Path:
    """Write a file so that its name always holds either the old content or the new one, whole.

    Args:
        path: the file; its folder must exist.
        data: the content, or a function that writes it into the open binary file it is given; where the name is
            known only then, it returns the path in the same folder that is to be used in place of `path`.
        also: a second name for it in the same folder, there before the first one; a file of its own where the file
            system has no links.

    Returns:
        the path of the file.

    Raises:
        RunDirectoryError: the disk is full, read-only or failing. The old file is untouched, the temporary one gone.
    """
    final = path
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with explained(path, kept=f"{path.name} as it was before" if path.exists() else f"no half-written {path.name}"):
        try:
            with temporary.open("wb") as file:
                if callable(data):
                    final = data(file) or path
                else:
                    file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if also is not None:
                _link(temporary, also)
            temporary.replace(final)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)
    return final


def _link(file: Path, name: Path) -> None:
    name.unlink(missing_ok=True)
    try:
        os.link(file, name)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        write_atomically(name, file.read_bytes())


def sync_folder(folder: Path) -> None:
    """Make a rename inside `folder` survive a power cut: names are the folder's content, cached apart from the file."""
    if os.name == "nt":  # Windows cannot open folders; its renames are journaled
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems cannot sync folders at all
            raise
    finally:
        os.close(descriptor)


def sweep(folder: Path) -> list[Path]:
    """Remove temporary files that killed processes left in `folder`, not below it. Hold the run's lock meanwhile.

    Returns:
        the files removed. Fresh ones of another live process of this machine are left alone.
    """
    removed: list[Path] = []
    if not folder.is_dir():
        return removed
    for entry in sorted(folder.iterdir()):
        match = _TEMPORARY.match(entry.name)
        if match is None or _still_written(entry, int(match["pid"])):
            continue
        entry.unlink(missing_ok=True)
        removed.append(entry)
    return removed


def _still_written(file: Path, pid: int) -> bool:
    if pid == os.getpid() or not process_exists(pid):
        return False
    try:
        return time.time() - file.stat().st_mtime < _ABANDONED_AFTER
    except FileNotFoundError:  # its process has just renamed it
        return True


def process_exists(pid: int) -> bool:
    """Whether a process with this number runs on this machine."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


@contextmanager
def explained(path: Path, kept: str) -> Iterator[None]:
    """Turn a refused write into a RunDirectoryError that names the path, what was kept, and the remedy.

    Args:
        path: what was being written.
        kept: what is safe all the same, in words that fit after "kept: ".
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _REMEDIES:
            raise
        reason = os.strerror(error.errno)
        raise RunDirectoryError(f"cannot write {path}: {reason}; kept: {kept}", _REMEDIES[error.errno]) from error
