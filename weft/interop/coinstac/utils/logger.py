"""Lines on the screen, as code for coinstac-dinunet writes them. They go to Weft's log."""

from __future__ import annotations

import logging
import math

_logger = logging.getLogger("weft")


def error(msg: object, debug: bool = True) -> None:
    """Tell what went wrong."""
    if debug:
        _logger.error("%s", msg)


def warn(msg: object, debug: bool = True) -> None:
    """Tell what may be wrong."""
    if debug:
        _logger.warning("%s", msg)


def info(msg: object, debug: bool = True) -> None:
    """Tell what happens."""
    if debug:
        _logger.info("%s", msg)


def success(msg: object, debug: bool = True) -> None:
    """Tell what went well."""
    info(msg, debug)


def lazy_debug(x: int, add: float = 1) -> bool:
    """Whether it is time for a line: more and more seldom."""
    return x % max(int(math.log(x + 1) + add), 1) == 0
