"""The errors of Weft. Each says what happened and where (message) and what to do next (hint).

The command line prints both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130  # as shells report it: 128 + SIGINT
EXIT_RESUMABLE = 75  # EX_TEMPFAIL of sysexits.h: schedulers read it as "try again"


class WeftError(Exception):
    """Base of every error that Weft raises on purpose.

    Args:
        message: what happened, with the value and the place.
        hint: what the reader can do next; empty when there is nothing sensible to say.
    """

    exit_code = EXIT_FAILED

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  hint: {self.hint}" if self.hint else self.message

    def __reduce__(self) -> tuple[object, ...]:  # errors cross process borders (loader workers) with their hint
        return type(self), (self.message, self.hint)


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in an experiment file.

    Args:
        message: what is wrong, with the value found and what was expected.
        hint: the nearest valid name or the next thing to do.
        path: key path inside the experiment, e.g. `("training", "optimizer", "AdamW", "lr")`.
        file, line, column: where it is written (line and column count from 1); None when it came from Python or the
            command line.
    """

    message: str
    hint: str = ""
    path: tuple[str | int, ...] = ()
    file: Path | str | None = None
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.file, self.line, self.column) if part is not None)
        where = ".".join(str(part) for part in self.path)
        text = ": ".join(part for part in (place, where, self.message) if part)
        return f"{text}\n  hint: {self.hint}" if self.hint else text


class ConfigError(WeftError):
    """The experiment as written is wrong; carries every problem found, not only the first."""

    exit_code = EXIT_USAGE

    def __init__(self, problems: Sequence[Problem] | Problem | str, hint: str = "") -> None:
        if isinstance(problems, str):
            problems = [Problem(problems, hint)]
        elif isinstance(problems, Problem):
            problems = [problems]
        self.problems = list(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.problems,)


class UsageError(WeftError):
    """A command or function was called in a way that cannot work."""

    exit_code = EXIT_USAGE


class DataError(WeftError):
    """Data are missing, unreadable or do not fit the experiment."""


class UnlikeDataError(DataError):
    """Processes of one run see different data."""


class CheckpointError(WeftError):
    """A checkpoint could not be written or read."""


class RunDirectoryError(WeftError):
    """A run directory is missing, damaged, not writable, or in use by another process."""


class NotFiniteError(WeftError):
    """A loss or gradient became NaN or infinite."""


class ProtocolError(WeftError):
    """Participants of a run disagree about where they are, or broke the contract of collectives."""


class MessageRefused(ProtocolError):
    """A message of another participant is damaged, hostile, or not what was expected; nothing of it was used."""


class WorkerError(WeftError):
    """A loader worker died or ran out of memory, shared memory or file handles."""


class ExchangeError(WeftError):
    """The processes of a run lost one another: one died, or the connection between them broke."""


class ExchangeTimeout(ExchangeError):
    """An exchange between the processes of a run took too long: one hangs, or the connection between them broke."""


class Stopped(WeftError):
    """The run was asked to stop, saved its state and can be resumed."""

    exit_code = EXIT_RESUMABLE


class CohortError(Stopped):
    """Fewer sites than a study wants take part; it can be resumed when they are back."""
