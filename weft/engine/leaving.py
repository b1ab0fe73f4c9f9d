"""How a process ends whose connections to others cannot be closed before the interpreter ends."""

from __future__ import annotations

import atexit
import os
import sys

_kept: set[str] = set()


def keep_group(who: str) -> None:
    """Something holds on to the group of processes to the end of the interpreter, and with it threads that may call
    into Python when there is none left, which takes the process down with a code that means nothing.

    Args:
        who: what holds it.
    """
    _kept.add(who)


def leave_at_once(code: int) -> None:
    """Where a group is kept, do all that is done at an exit, and end without taking the interpreter apart."""
    if not _kept:
        return
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
