"""Messages about a run by mail, chat or phone, through apprise. They never stop a run and never hold it up."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from weft.config import Experiment
from weft.engine.events import Epoch, Observer, RunResult, Start
from weft.errors import Stopped, UsageError, WeftError
from weft.monitor.background import Background
from weft.monitor.extras import require_extra
from weft.monitor.logfile import words_of
from weft.monitor.words import duration, epoch_words, number
from weft.runs import RunDirectory, mask

_LONGEST = 2000  # characters of a message


class Notifications(Observer):
    """Tells of start, improvement, end and failure of a run.

    Args:
        addresses: URLs as apprise reads them, e.g. `mailto://user:password@example.org` or `slack://…`.
        on: which events are told.
        improvement_minutes: least number of minutes between two messages about improvements.
        timeout: seconds that the end of the run waits for messages on their way.

    Raises:
        UsageError: apprise is not installed, or does not understand an address (whose secrets are not repeated).
    """

    def __init__(
        self,
        addresses: Sequence[str],
        on: Sequence[str] = ("start", "end", "failure"),
        improvement_minutes: float = 10.0,
        timeout: float = 10.0,
    ) -> None:
        require_extra("apprise", "notify", "run.notify")
        self._apprise = _understood(addresses)
        self._on = frozenset(on)
        self._pause, self._timeout = 60 * improvement_minutes, timeout
        self._background: Background | None = None
        self._name = self._monitor = self._folder = ""
        self._improvement_told = -float("inf")

    def on_start(self, start: Start) -> None:
        self._background = Background("a notification")
        self._name, self._monitor = start.name, start.monitor
        self._folder = str(start.run_path or "")
        if "start" in self._on:
            verb = f"goes on after {start.step:,} steps" if start.resumed else "has started"
            self._send("info", verb, f"{start.epochs} epochs of {start.steps_per_epoch:,} steps on {start.device}")

    def on_epoch(self, epoch: Epoch) -> None:
        due = time.monotonic() - self._improvement_told >= self._pause
        if epoch.improved and due and "improvement" in self._on:
            self._improvement_told = time.monotonic()
            self._send("info", "has improved", f"epoch {epoch.epoch + 1}: {epoch_words(epoch, self._monitor)}")

    def on_end(self, result: RunResult) -> None:
        if "end" in self._on:
            self._send("success", f"is {result.status}", "\n".join(_outcome(result)))
        self._close()

    def on_error(self, error: BaseException) -> None:
        if isinstance(error, Stopped | KeyboardInterrupt):
            if "end" in self._on:
                self._send("warning", "was stopped and can be resumed", words_of(error))
        elif "failure" in self._on:
            hint = f"\n{error.hint}" if isinstance(error, WeftError) and error.hint else ""
            self._send("failure", "has failed", words_of(error) + hint)
        self._close()

    def _send(self, kind: str, what: str, text: str) -> None:
        if self._background is not None:
            body = mask(f"{text}\n{self._folder}".strip())[:_LONGEST]
            self._background.do(partial(_deliver, self._apprise, kind, f"{self._name} {what}", body))

    def _close(self) -> None:
        if self._background is not None:
            self._background.close(self._timeout)
            self._background = None


def notifications_of(experiment: Experiment, directory: RunDirectory | None) -> Notifications | None:
    """The observer that `run.notify` asks for.

    Raises:
        UsageError: there are no addresses where it names them, or they lie in the run directory.
    """
    settings = experiment.run.notify
    if settings is None:
        return None
    file = experiment.path(settings.file) if settings.file is not None else None
    if file is not None and directory is not None and file.resolve().is_relative_to(directory.path.resolve()):
        raise UsageError(
            f"run.notify.file {file} lies in the run directory, which is passed on and published",
            "keep it somewhere else, e.g. in your home folder",
        )
    addresses = _addresses(file, settings.environment)
    return Notifications(addresses, settings.on, settings.improvement_minutes, settings.timeout)


def _addresses(file: Path | None, variable: str) -> list[str]:
    """The addresses, one per line."""
    if file is not None:
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is no text"
            raise UsageError(
                f"run.notify.file {file} cannot be read: {reason}", "write one address per line into it"
            ) from error
        where = f"run.notify.file {file}"
    else:
        text = os.environ.get(variable, "")
        where = f"the environment variable {variable}, where run.notify looks for addresses,"
    lines = [line.strip() for line in text.splitlines()]
    found = [line for line in lines if line and not line.startswith("#")]
    if not found:
        raise UsageError(
            f"{where} holds no address", "one URL per line, as apprise reads them, or leave run.notify out"
        )
    return found


def _understood(addresses: Sequence[str]) -> Any:
    import apprise

    logger = logging.getLogger("apprise")  # it tells of failures on standard error where nobody listens; we tell them
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    logger.propagate = False
    service = apprise.Apprise()
    for place, address in enumerate(addresses, 1):
        if not service.add(address):
            scheme = address.partition("://")[0] if "://" in address else "no scheme"
            raise UsageError(
                f"address {place} of run.notify ({scheme}) is none that apprise understands",
                "see https://appriseit.com/services for the form of each service's address",
            )
    return service


def _deliver(service: Any, kind: str, title: str, body: str) -> None:
    """Send to every address; each fails by itself."""
    failed = []
    for target in service:
        if not target.notify(title=title, body=body, notify_type=kind):
            failed.append(str(getattr(target, "service_name", None) or type(target).__name__))
    if failed:
        raise ConnectionError(f"not delivered by {', '.join(failed)}")


def _outcome(result: RunResult) -> list[str]:
    """The end of a run in lines: duration, then scores by split."""
    lines = [f"{result.epochs} epochs, {result.steps:,} steps, {duration(result.seconds)}"]
    for split, scores in result.scores.items():
        lines.append(f"{split}: " + ", ".join(f"{name} {number(value)}" for name, value in scores.items()))
    return lines
