"""What a site tells whoever watches it: warnings, and with `verbose` how it gets on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from weft.interop.coinstac.utils.logger import info

logger = logging.getLogger("weft")


class Screen:
    """Lines on standard error: standard output is the answer's where a process is started for each call.

    Args:
        site: its name.
        verbose: whether it tells how it gets on.

    Attributes:
        repeating: whether this process only does again what an earlier one did and told.
    """

    def __init__(self, site: str, *, verbose: bool) -> None:
        self.site, self.verbose = site, verbose
        self.repeating: Callable[[], bool] = lambda: False

    def warn(self, text: str) -> None:
        """Tell what may be wrong."""
        if not self.repeating():
            logger.warning("site %s: %s", self.site, text)

    def show(self, text: str) -> None:
        """Tell how it gets on, where that is asked for."""
        if self.verbose and not self.repeating():
            info(text)


def scores_in_words(labels: Sequence[str], line: Sequence[float]) -> str:
    """A line of a log with the names of its columns."""
    return ", ".join(f"{label} {float(value):.5g}" for label, value in zip(labels, line, strict=False))
