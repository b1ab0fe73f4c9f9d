"""The course of a run in its log.txt, between the messages that Weft's loggers write there."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from datetime import datetime
from pathlib import Path

from weft.engine.events import Epoch, Observer, RunResult, Start
from weft.errors import Stopped, UsageError, WeftError
from weft.monitor.words import duration, epoch_words
from weft.runs import RunDirectory
from weft.runs.files import explained


class LogFile(Observer):
    """Writes a line with the time for start, epochs, checkpoints and end to the run's `log.txt`."""

    def __init__(self) -> None:
        self._descriptor: int | None = None
        self._monitor = "loss"

    def on_start(self, start: Start) -> None:
        if start.run_path is None:
            raise UsageError("LogFile has no file: this run has no directory", "leave this observer out")
        path = RunDirectory(start.run_path).log_file
        with explained(path, kept="the run itself, which does not need this file"):
            self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        self._monitor = start.monitor
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
        self._close()  # who catches the error says so

    def _write(self, message: str) -> None:
        if self._descriptor is not None:
            now = datetime.now().isoformat(sep=" ", timespec="milliseconds").replace(".", ",")  # as logging writes it
            os.write(self._descriptor, f"{now} INFO {message}\n".encode())

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class _Kept(logging.FileHandler):
    """Writes to a file until that is refused: a message that is not kept is no reason to lose a run, or its error."""

    refused = False

    def emit(self, record: logging.LogRecord) -> None:
        if not self.refused:
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
            return
        self.refused = True
        logging.getLogger("weft").warning(
            "cannot write %s: %s; messages are no longer kept there", self.baseFilename, error.strerror
        )

    def close(self) -> None:
        with suppress(OSError) if self.refused else nullcontext():  # what is still to be written is refused again
            super().close()


@contextmanager
def messages_kept(directory: RunDirectory) -> Iterator[None]:
    """While it is entered, what Weft logs also goes to the run's `log.txt`, and so does the error that ends it."""
    logger = logging.getLogger("weft")
    handler = _Kept(directory.log_file, encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger.addHandler(handler)
    try:
        yield
    except BaseException as error:
        level = logging.INFO if isinstance(error, Stopped | KeyboardInterrupt) else logging.ERROR
        handler.handle(logging.LogRecord(logger.name, level, __file__, 0, words_of(error), None, None))
        raise
    finally:
        logger.removeHandler(handler)
        handler.close()


def words_of(error: BaseException) -> str:
    """An error in one line, for records."""
    if isinstance(error, KeyboardInterrupt):
        return "ended at once by a second interrupt; what was saved before is kept"
    return error.message if isinstance(error, WeftError) else f"{type(error).__name__}: {error}"
