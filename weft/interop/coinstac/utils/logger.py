"""Lines on the screen, as code for coinstac-dinunet writes them: on standard error, since standard output may be the
answer of a process.
"""

from __future__ import annotations

import math
import sys


def error(msg: object, debug: bool = True) -> None:
    """Tell what went wrong."""
    info(f"error: {msg}", debug)


def warn(msg: object, debug: bool = True) -> None:
    """Tell what may be wrong."""
    info(f"warning: {msg}", debug)


def info(msg: object, debug: bool = True) -> None:
    """Tell what happens."""
    if debug:
        print(msg, file=sys.stderr, flush=True)


def success(msg: object, debug: bool = True) -> None:
    """Tell what went well."""
    info(msg, debug)


def lazy_debug(x: int, add: float = 1) -> bool:
    """Whether it is time for a line: more and more seldom."""
    return x % max(int(math.log(x + 1) + add), 1) == 0
