"""Signals only set a flag; the loop looks at it at step boundaries and inside validation."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType


class Interruption:
    """Catches SIGINT and SIGTERM while it is entered (in the main thread; elsewhere it catches nothing).

    What a program that Python is embedded in has set for a signal stays, as Python could not put it back afterwards.

    The first signal asks the run to finish its step, save and stop. A second SIGINT raises KeyboardInterrupt at once.
    """

    def __init__(self) -> None:
        self.received: str | None = None
        self._previous: dict[int, object] = {}
        self._process = os.getpid()

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) is not None:  # else it was set in C
                    self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._previous.clear()

    def request(self, reason: str) -> None:
        """Ask the run to stop as a signal would."""
        self.received = reason

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a forked loader worker that kept our handler: its parent decides
            return
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = signal.Signals(number).name
