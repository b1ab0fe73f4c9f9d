"""Signs of life of each of several processes, for those who ask which one died or hangs, where and why."""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import re
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, Self, TextIO

from weft.engine.events import Observer, RunResult, Start, Step, Validation
from weft.errors import EXIT_FAILED, ExchangeError, ExchangeTimeout, WeftError
from weft.monitor.logfile import words_of

HEARTBEATS = ".heartbeats"  # folder in the run directory
SIGNS = "WEFT_SIGNS"  # names another folder, where one process of this machine has started all others
_WIDTH = 64  # a sign is overwritten in place, so it always has the same length
_PATIENCE = 3.0  # seconds in which processes that notice a failure write that down
_REARMED, _STUCK = 0.2, 0.7  # in parts of the timeout: how often it is noted that a process moves, and when it does not
_FRAME = re.compile(r'File "([^"]+)", line (\d+) in (\S+)')
_FRAMES = 4  # of them are told
_PATIENCE_LATE = 1.0  # those that wait in vain notice at the same time


@dataclass(frozen=True, slots=True)
class Failure:
    """How a process failed.

    Args:
        rank: which process.
        cause: its own error; it was killed; or it lost the others ("lost") or waited for them too long ("late").
        message, hint, code: of the error, and the exit code.
        kind: the error's type.
        time: seconds since the epoch.
        trace: where in the code it came from; empty for errors that Weft raised on purpose.
    """

    rank: int
    cause: Literal["own", "killed", "lost", "late"]
    message: str
    hint: str = ""
    code: int = EXIT_FAILED
    kind: str = ""
    time: float = 0.0
    trace: str = ""

    @property
    def is_loss(self) -> bool:
        """Whether the process was lost, to a kill, a hang or its device, rather than to an error in what it did."""
        return self.cause != "own" or self.kind == "AcceleratorError"

    @classmethod
    def of(cls, rank: int, error: BaseException) -> Self:
        """The failure that an error is."""
        known = isinstance(error, WeftError)
        return cls(
            rank,
            "late" if isinstance(error, ExchangeTimeout) else "lost" if isinstance(error, ExchangeError) else "own",
            words_of(error),
            error.hint if isinstance(error, WeftError) else "",
            error.exit_code if isinstance(error, WeftError) else EXIT_FAILED,
            type(error).__name__,
            time.time(),
            "" if known else "".join(traceback.format_exception(error)),
        )


class Signs:
    """What the processes of a run leave in a folder that all of them see, or as many as possible.

    Args:
        folder: where.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def of_run(cls, run: Path | None) -> Self | None:
        """Those of a run, or of all that the process which started this one has started."""
        if SIGNS in os.environ:
            return cls(Path(os.environ[SIGNS]))
        return cls.in_run(run) if run is not None else None

    @classmethod
    def in_run(cls, run: Path) -> Self:
        """Those in the folder of a run."""
        return cls(run / HEARTBEATS)

    def tell(self, failure: Failure) -> None:
        """Write down how a process failed."""
        with contextlib.suppress(OSError):  # the error itself matters more
            part = self.folder / f"{failure.rank}.error.tmp"
            part.write_text(json.dumps(asdict(failure)), encoding="utf-8")
            part.replace(self._failure_file(failure.rank))

    def failure(self, rank: int) -> Failure | None:
        """How a process failed, where it has said so."""
        with contextlib.suppress(OSError, ValueError, TypeError):
            return Failure(**json.loads(self._failure_file(rank).read_text(encoding="utf-8")))
        return None

    def forget(self, rank: int) -> None:
        """Remove what a process of an earlier start said."""
        with contextlib.suppress(OSError):
            self._failure_file(rank).unlink(missing_ok=True)

    def forget_all(self) -> None:
        """Remove what the processes of an earlier start said, however many those were."""
        with contextlib.suppress(OSError):
            for file in self.folder.glob("*.error.json"):
                file.unlink(missing_ok=True)

    def place(self, rank: int) -> str:
        """Where a process was when it was last heard of, in words."""
        with contextlib.suppress(OSError, ValueError, KeyError):
            sign = json.loads((self.folder / f"{rank}.json").read_text(encoding="utf-8"))
            fold = f"in fold {sign['fold']} " if "fold" in sign else ""
            step = f"after step {sign['step']} (epoch {sign['epoch'] + 1})" if sign["step"] else "before its first step"
            return fold + step
        return "before its first step"

    def stack_file(self, rank: int) -> Path:
        """Where a process that has not moved for long writes what it is at."""
        return self.folder / f"{rank}.stack"

    @contextmanager
    def stuck(self, rank: int, timeout: float) -> Iterator[None]:
        """Inside, a process that takes too long to begin writes down what it is at; its heartbeat takes over."""
        with self.stack_file(rank).open("a", encoding="utf-8") as file:
            faulthandler.dump_traceback_later(_STUCK * timeout, file=file)
            try:
                yield
            finally:
                faulthandler.cancel_dump_traceback_later()

    def stack(self, rank: int) -> str:
        """What the main thread of a process that has not moved for long is at, as Python writes it; innermost first."""
        with contextlib.suppress(OSError):
            text = self.stack_file(rank).read_text(encoding="utf-8", errors="replace")
            return text.rpartition("(most recent call first):\n")[2].strip()  # the main thread comes last
        return ""

    def hang(self, rank: int) -> str:
        """Where in the code a process hangs, for messages; empty where it could not tell."""
        frames = [f"{Path(match[1]).name}:{match[2]} in {match[3]}" for match in _FRAME.finditer(self.stack(rank))]
        return f" at {', called from '.join(frames[:_FRAMES])}" if frames else ""

    def explained(self, error: ExchangeError, rank: int, world: int) -> ExchangeError:
        """The error of a process that lost the others, with what became of them.

        Args:
            error: what it noticed.
            rank, world: which process it is, of how many.
        """
        self.tell(Failure.of(rank, error))
        end = time.monotonic() + (_PATIENCE_LATE if isinstance(error, ExchangeTimeout) else _PATIENCE)
        while True:
            found = [failure for other in range(world) if (failure := self.failure(other)) is not None]
            silent = [other for other in range(world) if all(failure.rank != other for failure in found)]
            first = first_cause(found)
            if first is not None:
                where = self.place(first.rank)
                return type(error)(f"process {first.rank} failed {where}: {first.message}", first.hint or error.hint)
            if not silent or time.monotonic() > end:
                break
            time.sleep(0.05)
        if not silent and all(failure.cause == "late" for failure in found):
            where = "; ".join(f"process {one.rank} {self.place(one.rank)}{self.hang(one.rank)}" for one in found)
            return type(error)(
                "all processes lost one another: the connection between them broke, or they wait for different things: "
                f"{where}; {error.message}", error.hint,
            )  # fmt: skip
        if not silent:
            return type(error)(
                f"all processes lost one another, the connection between them broke: {error.message}", error.hint
            )
        late = any(failure.cause == "late" for failure in found)
        names = ", ".join(
            f"process {other} (last heard of {self.place(other)}{self.hang(other) if late else ''})" for other in silent
        )
        what = "hangs or cannot be reached" if late else "died or cannot be reached"
        return type(error)(f"{names} {what}: {error.message}", error.hint)

    def _failure_file(self, rank: int) -> Path:
        return self.folder / f"{rank}.error.json"


def first_cause(failures: list[Failure]) -> Failure | None:
    """The failure that the others follow from: the first one that is nobody else's."""
    causes = [failure for failure in failures if failure.cause in ("own", "killed")]
    return min(causes, key=lambda failure: failure.time, default=None)


class Heartbeat(Observer):
    """Writes the step that this process has done into a small file, at every step, and how the process failed.

    It also writes where in the code the process is when it has not moved for most of `timeout`: then it may be the one
    that all others wait for. A thread of its own does that, outside of Python, also while Python is stuck.

    Args:
        rank: number of the process.
        timeout: seconds after which the others give up waiting for it.
    """

    def __init__(self, rank: int, timeout: float) -> None:
        self._rank = rank
        self._timeout = timeout
        self._signs: Signs | None = None
        self._file: int | None = None
        self._stack: TextIO | None = None
        self._moved = 0.0
        self._fold: dict[str, int] = {}

    def on_start(self, start: Start) -> None:
        self._signs = Signs.of_run(start.run_path)
        if self._signs is None:
            return
        self._signs.forget(self._rank)
        fold = re.fullmatch(r"fold-(\d+)", start.run_path.name) if start.run_path is not None else None
        self._fold = {"fold": int(fold[1])} if fold is not None else {}
        with contextlib.suppress(OSError):  # a run without this sign of life is as good
            self._signs.folder.mkdir(exist_ok=True)
            self._file = os.open(self._signs.folder / f"{self._rank}.json", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC)
            self._stack = self._signs.stack_file(self._rank).open("a", encoding="utf-8")
        self._watch()
        self._write(start.epoch, start.step)

    def on_step(self, step: Step) -> None:
        self._write(step.epoch, step.step)
        self._watch()

    def on_validation(self, progress: Validation) -> None:
        self._watch()

    def on_error(self, error: BaseException) -> None:
        if self._signs is not None:
            self._signs.tell(Failure.of(self._rank, error))
        self._close()

    def on_end(self, result: RunResult) -> None:
        self._close()

    def _watch(self) -> None:
        """Note that the process has moved."""
        now = time.monotonic()
        if self._stack is None or now - self._moved < _REARMED * self._timeout:
            return
        self._moved = now
        with contextlib.suppress(OSError):
            if os.fstat(self._stack.fileno()).st_size:  # it was only slow
                os.ftruncate(self._stack.fileno(), 0)
        faulthandler.dump_traceback_later(_STUCK * self._timeout, file=self._stack)

    def _write(self, epoch: int, step: int) -> None:
        if self._file is not None:
            text = json.dumps({"epoch": epoch, "step": step, **self._fold}).ljust(_WIDTH)
            with contextlib.suppress(OSError):
                os.pwrite(self._file, text.encode(), 0)

    def _close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
        if self._stack is not None:
            faulthandler.cancel_dump_traceback_later()
            self._stack.close()
            self._stack = None
