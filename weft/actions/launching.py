"""Starting several processes on this machine that train together, and saying what became of them."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from weft.engine.processes import LISTENS, find_place
from weft.errors import EXIT_RESUMABLE, EXIT_USAGE, Stopped, WeftError
from weft.monitor.heartbeat import SIGNS, Failure, Signs, first_cause
from weft.runs import RunDirectory, is_run, resume_command

logger = logging.getLogger("weft")

LAUNCHED = "WEFT_LAUNCHED_BY"  # set for processes that `launch` started: it reports for them
_GRACE = 5.0  # seconds that the others have to end by themselves when one has failed
_SHORT_GRACE = 0.5  # where one has waited in vain for another, all that is left is to end that one
_LAST_GRACE = 1.0  # and to follow a SIGTERM
_INTERVAL = 0.05


def launch(arguments: Sequence[str], run: Path, *, processes: int, restarts: int = 0) -> None:
    """Run `weft ARGUMENTS` in several processes until they end.

    SIGTERM and SIGINT are handed on, and the processes stop together at a step boundary. When this process dies, they
    notice and do the same.

    Args:
        arguments: of the command, such that it goes on with `run` where that exists already.
        run: the run directory that they share.
        processes: how many.
        restarts: how often all are started again, from the last checkpoint, when one of them fails.

    Raises:
        Stopped: the run was asked to stop and can be resumed.
        WeftError: it failed; the process that failed first is named with its last step.
    """
    with tempfile.TemporaryDirectory(prefix="weft-") as folder, _handed_on() as signals:
        for attempt in range(restarts + 1):
            signs = Signs(Path(folder) / str(attempt))
            signs.folder.mkdir()
            team = _Team(arguments, processes, attempt, signs)
            try:
                codes = team.wait(signals)
            finally:
                team.end()
            if not any(codes):
                return
            if signals or EXIT_RESUMABLE in codes:
                raise _stopped(run, signals, codes)
            failure = team.diagnosis()
            if attempt == restarts or failure.code == EXIT_USAGE or failure.kind == "NotFiniteError":
                raise _failed(run, failure, signs)
            logger.warning(
                "process %d %s: starting all again (%d of %d restarts)",
                failure.rank, _words(failure, signs), attempt + 1, restarts,
            )  # fmt: skip


def reports() -> bool:
    """Whether this process says what came out: the first of several, unless the one that started them does."""
    place = find_place()
    return place is None or (place.first and LAUNCHED not in os.environ)


@contextmanager
def reported(rank: int) -> Iterator[None]:
    """What one of several processes does: how it fails is written down for the one that started them all, which tells
    the user, once and for all. When that one is gone the run is stopped as by SIGTERM.

    Args:
        rank: number of this process.
    """
    if LAUNCHED not in os.environ:
        yield
        return
    signs = Signs(Path(os.environ[SIGNS]))
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    try:
        yield
    except Exception as error:
        if signs.failure(rank) is None:
            signs.tell(Failure.of(rank, error))
        sys.exit(error.exit_code if isinstance(error, WeftError) else 1)


def _stop_with_parent() -> None:
    """Standard input ends when the process that holds its other end does."""
    with contextlib.suppress(OSError):
        while os.read(0, 1):
            pass
    os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def _handed_on() -> Iterator[list[int]]:
    """The signals to stop that were received; the team hands them on."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = {
        number: signal.signal(number, lambda number, frame: received.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Team:
    """Processes that were started together."""

    def __init__(self, arguments: Sequence[str], count: int, attempt: int, signs: Signs) -> None:
        self.signs = signs
        self.members: list[subprocess.Popen[bytes]] = []
        # The first process listens on a socket that is bound here: no port can be taken between choosing and using it.
        with socket.create_server(("127.0.0.1", 0), backlog=max(128, count)) as listener:
            port = listener.getsockname()[1]
            for rank in range(count):
                environment = os.environ | {
                    "RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_RANK": str(rank),
                    "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
                    "TORCHELASTIC_RESTART_COUNT": str(attempt), LAUNCHED: str(os.getpid()), SIGNS: str(signs.folder),
                }  # fmt: skip
                environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
                if rank == 0:
                    environment[LISTENS] = str(listener.fileno())
                self.members.append(
                    subprocess.Popen(  # a session of its own: Ctrl-C reaches it through this process alone, once
                        [sys.executable, "-m", "weft", *arguments],
                        env=environment,
                        stdin=subprocess.PIPE,
                        start_new_session=True,
                        pass_fds=[listener.fileno()] if rank == 0 else [],
                    )
                )

    def wait(self, signals: list[int]) -> list[int]:
        """Wait until all have ended; the others follow soon where one fails. Returns exit codes as subprocess has them.

        Args:
            signals: grows while signals arrive; each is handed on.
        """
        handed_on = 0
        failed_at: float | None = None
        while any(member.poll() is None for member in self.members):
            for number in signals[handed_on:]:
                self._send(number)
                handed_on += 1
            if failed_at is None and any(self._failed(rank) for rank in range(len(self.members))):
                failed_at = time.monotonic()
            if failed_at is not None and not signals and time.monotonic() - failed_at > self._grace():
                break
            time.sleep(_INTERVAL)
        for rank in range(len(self.members)):
            self._failed(rank)
        self.hanging = [rank for rank, member in enumerate(self.members) if member.poll() is None]
        return [1 if member.returncode is None else member.returncode for member in self.members]

    def _failed(self, rank: int) -> bool:
        """Whether a process has failed; where it could not say so itself, that is written down for the others."""
        code = self.members[rank].poll()
        if code in (None, 0, EXIT_RESUMABLE):
            return False
        if self.signs.failure(rank) is None:
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            self.signs.tell(Failure(rank, "killed", how, code=1, time=time.time()))
        return True

    def _grace(self) -> float:
        failures = [self.signs.failure(rank) for rank in range(len(self.members))]
        return _SHORT_GRACE if any(found is not None and found.cause == "late" for found in failures) else _GRACE

    def diagnosis(self) -> Failure:
        """What failed first."""
        failures = [found for rank in range(len(self.members)) if (found := self.signs.failure(rank)) is not None]
        cause = first_cause(failures)
        if cause is not None:
            return cause
        late = next((failure for failure in failures if failure.cause == "late"), None)
        if self.hanging and late is not None:
            return Failure(self.hanging[0], "late", f"hangs; {late.message}", code=late.code)
        return failures[0]

    def end(self) -> None:
        """End what still runs, loader workers included; nothing is left behind."""
        self._send(signal.SIGTERM)
        end = time.monotonic() + _LAST_GRACE
        while any(member.poll() is None for member in self.members) and time.monotonic() < end:
            time.sleep(_INTERVAL)
        for member in self.members:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(member.pid, signal.SIGKILL)
            member.wait()
            if member.stdin is not None:
                member.stdin.close()

    def _send(self, number: int) -> None:
        for member in self.members:
            if member.poll() is None:
                member.send_signal(number)


def _words(failure: Failure, signs: Signs) -> str:
    where = signs.place(failure.rank)
    return f"{failure.message} {where}" if failure.cause == "killed" else f"failed {where}: {failure.message}"


def _failed(run: Path, failure: Failure, signs: Signs) -> WeftError:
    if failure.kind == "NotFiniteError" or failure.code == EXIT_USAGE:
        text = failure.message  # everybody's, and it says where
    elif failure.cause == "late" and failure.message.startswith("hangs"):
        text = f"process {failure.rank} hangs {signs.place(failure.rank)}{failure.message.removeprefix('hangs')}"
    else:
        text = f"process {failure.rank} {_words(failure, signs)}"
    resumable = any((run / "checkpoints").glob("last-*.pt"))
    hint = f"resume with: {resume_command(run)}" if resumable else "nothing was saved yet: start it again"
    if "weft train --resume" in failure.hint:
        hint = failure.hint
    elif failure.hint:
        hint = f"{failure.hint}; {hint}" if resumable else failure.hint
    error = WeftError(text, hint)
    error.exit_code = failure.code
    if failure.trace:
        error.add_note(failure.trace)
    return error


def _stopped(run: Path, signals: list[int], codes: list[int]) -> BaseException:
    if 130 in codes:
        return KeyboardInterrupt()
    reason = f" by {signal.Signals(signals[0]).name}" if signals else ""
    result = (RunDirectory.open(run).result() or {}) if is_run(run) else {}
    if result.get("status") == "stopped" and EXIT_RESUMABLE in codes:
        return Stopped(f"{run} was stopped{reason} and saved", f"resume with: {resume_command(run)}")
    resumable = any((run / "checkpoints").glob("last-*.pt"))
    hint = f"resume with: {resume_command(run)}" if resumable else "nothing was trained yet: start it again"
    return Stopped(f"{run} was stopped{reason} before it could save", hint)
