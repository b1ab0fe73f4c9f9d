"""Processes on this machine that were started together."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from weft.actions.stopping import LAUNCHED
from weft.engine.processes import LISTENS
from weft.errors import EXIT_RESUMABLE
from weft.monitor.heartbeat import SIGNS, Failure, Signs, first_cause

_GRACE = 5.0  # seconds that the others have to end by themselves when one has failed
_SHORT_GRACE = 0.5  # where one has waited in vain for another, all that is left is to end that one
_LAST_GRACE = 1.0  # and to follow a SIGTERM
_INTERVAL = 0.05
# Nobody can look at sizes before sums that leave in a forward or backward pass.
_ABORTED = (
    "look at what it printed; gloo ends a process that is sent more numbers than it waits for: do all processes train "
    "the same parameters, and run the same layers with batch statistics?"
)


class Team:
    """Processes that were started together.

    Args:
        arguments: of `weft`.
        count: how many.
        attempt: the how manieth start this is, from 0.
        signs: where they leave signs of life.
    """

    def __init__(self, arguments: Sequence[str], count: int, attempt: int, signs: Signs) -> None:
        self.signs = signs
        self.members: list[subprocess.Popen[bytes]] = []
        self.hanging: list[int] = []  # ranks that did not end with the others
        self.suspended: list[int] = []  # those of them that a signal has stopped
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
        self.suspended = [rank for rank in self.hanging if self._is_suspended(rank)]
        return [1 if member.returncode is None else member.returncode for member in self.members]

    def _failed(self, rank: int) -> bool:
        """Whether a process has failed; where it could not say so itself, that is written down for the others."""
        code = self.members[rank].poll()
        if code in (None, 0, EXIT_RESUMABLE):
            return False
        if self.signs.failure(rank) is None:
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            hint = _ABORTED if code == -signal.SIGABRT and len(self.members) > 1 else ""
            self.signs.tell(Failure(rank, "killed", how, hint, code=1, time=time.time()))
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
            rank = self.hanging[0]
            where = ", suspended by SIGSTOP or a debugger" if rank in self.suspended else self.signs.hang(rank)
            stack = self.signs.stack(rank)
            waited = late.message.rpartition("cannot be reached: ")[2]  # the first half says less than we do
            return Failure(rank, "late", f"hangs{where}: {waited}", code=late.code, trace=stack)
        return failures[0]

    def _is_suspended(self, rank: int) -> bool:
        """Whether a signal stopped a process; only Linux tells."""
        with contextlib.suppress(OSError):
            stat = Path(f"/proc/{self.members[rank].pid}/stat").read_text(encoding="utf-8", errors="replace")
            return stat.rpartition(")")[2].split()[0] in ("T", "t")
        return False

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
