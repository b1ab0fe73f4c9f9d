"""The processes of a simulated pipeline: one per call, or one per node that lives on."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TextIO

from weft.errors import ProtocolError, WeftError
from weft.interop.coinstac.child import WARNING
from weft.runs.lock import RunLock

Call = dict[str, Any]
Answer = dict[str, Any]
CHILD = [sys.executable, "-m", "weft.interop.coinstac.child"]


class ScriptError(WeftError):
    """The script of a site or of the remote failed."""


class Processes(Protocol):
    """Runs the calls of a pipeline."""

    def call_all(self, calls: Mapping[str, Call]) -> dict[str, Answer]:
        """Make a call of each node, beside one another; their answers.

        Raises:
            ScriptError: one failed; it is named.
        """
        ...

    def close(self) -> None:
        """End what still runs."""
        ...


class Parent:
    """A process that imports torch once and forks those of the nodes: each is a process of its own all the same, with
    nothing in it that another left.

    Args:
        scripts: of each node.
        folder: where the files of calls, and what the scripts print, lie: `NAME.log`.
        lock: held by all that write into the computation's folder.
        alias: whether `import coinstac_dinunet` is to work.
    """

    def __init__(self, scripts: Mapping[str, Path], folder: Path, lock: RunLock, *, alias: bool) -> None:
        self.scripts, self.folder, self.alias = scripts, folder, alias
        folder.mkdir(parents=True, exist_ok=True)
        threads = str(max(1, (os.cpu_count() or 1) // max(1, len(scripts) - 1)))  # the remote waits for the sites
        self._requests, other = socket.socketpair()
        with other:
            self._process = subprocess.Popen(
                [*CHILD, "FORKS", str(other.fileno())], pass_fds=[other.fileno(), lock.descriptor],
                stdin=subprocess.DEVNULL, stdout=2, env={"OMP_NUM_THREADS": threads, **os.environ},
            )  # fmt: skip

    def start(self, name: str, form: str, streams: Sequence[int]) -> int:
        """Fork a process of a node.

        Args:
            name: the node's.
            form: "ONCE" or "AGAIN".
            streams: its standard input and output; what it prints goes to the node's log.

        Returns:
            its number.
        """
        with self.log(name).open("ab") as log:
            files = [*streams, log.fileno()]
            found: int = self._ask(files, form=form, script=str(self.scripts[name]), alias=self.alias)["pid"]
        return found

    def wait(self, pid: int) -> int:
        """The exit code of a process, when it has ended; negative for a signal."""
        code: int = self._ask([], wait=pid)["code"]
        return code

    def log(self, name: str) -> Path:
        """What a node's scripts print."""
        return self.folder / f"{name}.log"

    def close(self) -> None:
        """End it, and all that it forked."""
        self._requests.close()
        end(self._process)

    def _ask(self, files: list[int], **request: Any) -> dict[str, Any]:
        line = b""
        with contextlib.suppress(ConnectionError):
            socket.send_fds(self._requests, [json.dumps(request).encode()], files)
            line = self._requests.recv(1 << 16)
        if not line:
            raise ProtocolError("the process that starts the nodes' has ended", "go on: the same command with --resume")
        reply: dict[str, Any] = json.loads(line)
        return reply


class Lines:
    """What nodes print, passed on to whoever watches the pipeline.

    Args:
        logs: the file of each node; what lies in it already is of an earlier pipeline.
        tell: is told each line, the node's name before it.
    """

    def __init__(self, logs: Mapping[str, Path], tell: Callable[[str], None]) -> None:
        self.logs, self.tell = logs, tell
        self._at = {name: log.stat().st_size if log.exists() else 0 for name, log in logs.items()}
        self._told: set[str] = set()

    def pass_on(self, *, every: bool) -> None:
        """Pass on what is new: every line, or those of Weft's own warnings, each once."""
        for name, log in self.logs.items():
            if not log.exists():
                continue
            with log.open("rb") as content:
                content.seek(self._at[name])
                text = content.read()
            whole = text[: text.rfind(b"\n") + 1]
            self._at[name] += len(whole)
            for line in whole.decode(errors="replace").splitlines():
                told = f"{name}: {line}"
                if every or (line.startswith(WARNING) and told not in self._told):
                    self._told.add(told)
                    self.tell(told)


class PerCall:
    """A process for each call.

    Args:
        parent: forks them.
    """

    def __init__(self, parent: Parent) -> None:
        self._parent = parent

    def call_all(self, calls: Mapping[str, Call]) -> dict[str, Answer]:
        """Make a call of each node, as many at a time as there are processors."""
        answers: dict[str, Answer] = {}
        names, at_once = list(calls), max(1, os.cpu_count() or 1)
        for start in range(0, len(names), at_once):
            running = {name: self._start(name, calls[name]) for name in names[start : start + at_once]}
            codes = {name: self._parent.wait(pid) for name, pid in running.items()}
            for name, code in codes.items():
                answers[name] = checked(name, self._file(name, "answer").read_text(), code, self._parent.log(name))
        return answers

    def close(self) -> None:
        """End what still runs."""
        self._parent.close()

    def _start(self, name: str, call: Call) -> int:
        given, taken = self._file(name, "call"), self._file(name, "answer")
        given.write_text(json.dumps(call))
        with given.open("rb") as source, taken.open("wb") as target:
            return self._parent.start(name, "ONCE", [source.fileno(), target.fileno()])

    def _file(self, name: str, kind: str) -> Path:
        return self._parent.folder / f"{name}.{kind}"


class Persistent:
    """A process for each node, called again and again.

    Args:
        parent: forks them.
    """

    def __init__(self, parent: Parent) -> None:
        self._parent = parent
        self._running: dict[str, _Lasting] = {}

    def call_all(self, calls: Mapping[str, Call]) -> dict[str, Answer]:
        """Make a call of each node; they compute beside one another."""
        for name, call in calls.items():
            if name not in self._running:
                self._running[name] = _Lasting.started(self._parent, name)
            mode = "remote" if name == "remote" else "local"
            with contextlib.suppress(BrokenPipeError):  # its end is told below
                self._running[name].calls.write(json.dumps({"mode": mode, "data": call}) + "\n")
                self._running[name].calls.flush()
        return {name: self._answer(name) for name in calls}

    def close(self) -> None:
        """End all processes."""
        for process in self._running.values():
            with contextlib.suppress(BrokenPipeError):
                process.calls.close()
            process.answers.close()
        self._parent.close()

    def _answer(self, name: str) -> Answer:
        process = self._running[name]
        line = process.answers.readline()
        code = 0 if line else self._parent.wait(process.pid)
        return checked(name, line, code, self._parent.log(name))


@dataclass(slots=True)
class _Lasting:
    """A process that is called again and again, and its ends of two pipes."""

    pid: int
    calls: TextIO
    answers: TextIO

    @classmethod
    def started(cls, parent: Parent, name: str) -> _Lasting:
        theirs_in, ours_in = os.pipe()
        ours_out, theirs_out = os.pipe()
        try:
            pid = parent.start(name, "AGAIN", [theirs_in, theirs_out])
        finally:
            os.close(theirs_in)
            os.close(theirs_out)
        return cls(pid, os.fdopen(ours_in, "w", encoding="utf-8"), os.fdopen(ours_out, encoding="utf-8"))


def checked(name: str, text: str, code: int, log: Path) -> Answer:
    """The answer of a process.

    Raises:
        ScriptError: its script failed, or it was killed.
    """
    try:
        answer = json.loads(text) if text.strip() else None
    except ValueError:
        answer = None
    error = answer.get("error") if isinstance(answer, dict) else None
    if error is not None:
        raise ScriptError(f"{name}: {error['message']}", error["hint"] or f"what it printed lies in {log}")
    if code < 0:
        word = signal.Signals(-code).name
        raise ScriptError(f"{name}: its process was killed ({word})", "go on: the same command with --resume")
    if not isinstance(answer, dict) or not isinstance(answer.get("output"), dict):
        said = f"ended with exit code {code} and" if code else "ended and"
        raise ScriptError(
            f"{name}: its script {said} sent no answer",
            f"a script ends with node.send(), or returns what the node returns; what it printed lies in {log}",
        )
    return answer


def end(process: subprocess.Popen[bytes]) -> None:
    """Wait for the end of a process that was told to end, and help where it does not."""
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
