"""log.txt of a run: what happened when, and every warning of Weft while it ran."""

from __future__ import annotations

import logging
from pathlib import Path

from weft.engine.events import Epoch, Observer, RunResult, Start
from weft.errors import UsageError
from weft.monitor.progress import epoch_words
from weft.monitor.words import duration
from weft.runs import RunDirectory

_FORMAT = "%(asctime)s %(levelname)s %(message)s"


class LogFile(Observer):
    """Writes a line per event to the run's `log.txt`, and what Weft's loggers say in between.

    Args:
        level: least level of the loggers' messages that is written.
    """

    def __init__(self, level: int = logging.INFO) -> None:
        self._level = level
        self._handler: logging.Handler | None = None
        self._monitor = "loss"

    def on_start(self, start: Start) -> None:
        if start.run_path is None:
            raise UsageError("LogFile has no file: this run has no directory", "leave this observer out")
        handler = logging.FileHandler(RunDirectory(start.run_path).log_file, encoding="utf-8", delay=True)
        handler.setFormatter(logging.Formatter(_FORMAT))
        handler.setLevel(self._level)
        logging.getLogger("weft").addHandler(handler)
        self._handler, self._monitor = handler, start.monitor
        verb = "resumed" if start.resumed else "started"
        self._write(f"{verb} {start.name} at step {start.step} on {start.device}, {start.parameters:,} parameters")

    def on_epoch(self, epoch: Epoch) -> None:
        self._write(f"epoch {epoch.epoch + 1}, step {epoch.step}: {epoch_words(epoch, self._monitor)}")

    def on_checkpoint(self, path: Path, kind: str) -> None:
        self._write(f"saved the {kind} checkpoint: {path.name}")

    def on_end(self, result: RunResult) -> None:
        self._write(f"{result.status} after {result.steps} steps in {duration(result.seconds)}")
        self._close()

    def on_error(self, error: BaseException) -> None:
        self._write(f"ended by {type(error).__name__}: {error}", logging.ERROR)
        self._close()

    def _write(self, message: str, level: int = logging.INFO) -> None:
        if self._handler is not None:
            # straight to this file: another run in the same process has a log of its own
            self._handler.handle(logging.LogRecord("weft", level, "", 0, message, None, None))

    def _close(self) -> None:
        if self._handler is not None:
            logging.getLogger("weft").removeHandler(self._handler)
            self._handler.close()
            self._handler = None
