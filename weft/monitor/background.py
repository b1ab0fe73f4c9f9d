"""Work of observers that may take long or fail: done in a thread of its own, so that the run never waits for it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue

from weft.runs import mask

logger = logging.getLogger("weft")

_MOST_WAITING = 1000  # pieces of work: where none gets through for long, later ones are left out


class Background:
    """Does what it is handed, one after the other, in a thread that dies with the process. What fails is told in the
    log, the first time, and is never an error of the run.

    Args:
        what: what the work is, for the log: "a notification".
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=f"weft: {what}", daemon=True)
        self._told = False
        self._thread.start()

    def do(self, work: Callable[[], None]) -> None:
        """Do this when its turn comes."""
        if self._work.qsize() < _MOST_WAITING:
            self._work.put(work)

    def close(self, timeout: float) -> bool:
        """Wait until everything is done, at most `timeout` seconds; whether it is."""
        self._work.put(None)
        self._thread.join(timeout)
        if self._thread.is_alive():
            logger.warning("%s is still on its way after %g s and is left alone", self._what, timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            try:
                work()
            except Exception as error:  # of libraries and networks: anything
                self._tell(error)

    def _tell(self, error: Exception) -> None:
        if not self._told:
            self._told = True
            logger.warning("%s failed: %s; the run goes on, later failures are not told", self._what, _words(error))


def _words(error: Exception) -> str:
    first = str(error).strip().splitlines()[:1]
    return mask(f"{type(error).__name__}: {first[0]}" if first else type(error).__name__)[:300]
