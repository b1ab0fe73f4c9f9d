"""A process that has imported Weft and forks child processes on demand.

A fresh interpreter takes seconds to import torch; a fork of one that has done so starts at once and is otherwise the
same: a process of its own that runs the real command line, with its own standard streams, signals and loader workers.

    python -m tests.faults.nursery < requests > answers        one JSON object per line, see `Nursery`
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
LIMIT = 120.0  # seconds that a child may take; only a hang takes so long


@dataclass(frozen=True)
class Ended:
    """How a child ended: `code` as subprocess has it (negative for a signal), and what it printed."""

    code: int
    out: str
    err: str
    left_behind: bool = False  # whether processes that it started are still there

    @property
    def text(self) -> str:
        """Both streams, for messages of assertions."""
        return f"exit code {self.code}\n--- stdout\n{self.out}\n--- stderr\n{self.err}"


class Child:
    """A child that runs."""

    def __init__(self, nursery: Nursery, pid: int, folder: Path) -> None:
        self.nursery, self.pid, self.folder = nursery, pid, folder

    def wait(self, limit: float = LIMIT) -> Ended:
        """Wait for its end; one that takes longer than `limit` seconds is killed and fails the test."""
        answer = self.nursery.ask(do="wait", pid=self.pid, limit=limit)
        code = answer["code"]
        out, err = ((self.folder / name).read_text(errors="replace") for name in ("out", "err"))
        if code is None:
            pytest.fail(f"still running after {limit} s: it hangs\n{Ended(-1, out, err).text}")
        return Ended(code, out, err, answer["left_behind"])


class Nursery:
    """Starts children in a process that has imported Weft.

    Where the system allows it, it lives in a mount namespace of its own, so that small disks can be mounted for it that
    nobody else sees and that go when it ends.

    Args:
        folder: where the children's output is kept.
        imports: further modules that the children find imported.
    """

    def __init__(self, folder: Path, imports: Sequence[str] = ()) -> None:
        self.folder = folder
        self.count = 0
        command = [sys.executable, "-m", "tests.faults.nursery", *imports]
        namespace = ["unshare", "--user", "--map-root-user", "--mount"]
        self.mounts = shutil.which("unshare") is not None and not subprocess.call([*namespace, "true"])
        if self.mounts:
            command = [*namespace, *command]
        self.process = subprocess.Popen(
            command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send a request and return the answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, "the nursery has ended"
        answer: dict[str, Any] = json.loads(line)
        return answer

    def start(self, *arguments: str | Path, trap: Mapping[str, Any] | None = None, call: str = "") -> Child:
        """Start `weft ARGUMENTS` with a trap (see trap.py), or a function `call` ("module:name") instead."""
        self.count += 1
        folder = self.folder / f"child-{self.count}"
        folder.mkdir(parents=True)
        texts = [str(argument) for argument in arguments]
        answer = self.ask(do="start", arguments=texts, trap=dict(trap or {}), folder=str(folder), call=call)
        return Child(self, answer["pid"], folder)

    def weft(self, *arguments: str | Path, trap: Mapping[str, Any] | None = None) -> Ended:
        """Run `weft ARGUMENTS` to its end."""
        return self.start(*arguments, trap=trap).wait()

    def call(self, function: str, *arguments: str | Path) -> Ended:
        """Run a Python function "module:name" with texts as arguments in a child."""
        return self.start(*arguments, call=function).wait()

    def shell(self, command: str) -> None:
        """Run a shell command where the children run (in their mount namespace)."""
        answer = self.ask(do="shell", command=command)
        assert answer["code"] == 0, answer["err"]

    def inside(self, path: Path) -> Path:
        """A path as the children see it, for this process."""
        return Path(f"/proc/{self.process.pid}/root{path}")

    def close(self) -> None:
        """End it with all its children."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=30)


# --- the process itself -----------------------------------------------------------------------------------------------


def serve() -> None:
    """Answer requests until standard input ends; then no child is left."""
    import torch._dynamo  # noqa: F401 - the first optimizer of a process imports it

    import weft.actions
    import weft.actions.folds
    import weft.cli  # noqa: F401 - children find it imported

    for name in sys.argv[1:]:
        importlib.import_module(name)

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print does not get between the answers
    children: set[int] = set()
    while request := sys.stdin.readline():
        asked = json.loads(request)
        answers.write(json.dumps(_answer(asked, children)) + "\n")
        answers.flush()
    for pid in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _answer(asked: dict[str, Any], children: set[int]) -> dict[str, Any]:
    if asked["do"] == "start":
        pid = os.fork()
        if pid == 0:
            _become_child(asked)
        children.add(pid)
        return {"pid": pid}
    if asked["do"] == "wait":
        children.discard(asked["pid"])
        code = _wait(asked["pid"], asked["limit"])
        return {"code": code, "left_behind": _group_exists(asked["pid"])}
    done = subprocess.run(["sh", "-c", asked["command"]], capture_output=True, text=True)
    return {"code": done.returncode, "err": done.stderr}


def _wait(pid: int, limit: float) -> int | None:
    descriptor = os.pidfd_open(pid)
    try:
        in_time = bool(select.select([descriptor], [], [], limit)[0])
    finally:
        os.close(descriptor)
    if not in_time:
        os.kill(pid, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return code if in_time else None


def _group_exists(pid: int) -> bool:
    try:
        os.killpg(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _become_child(asked: dict[str, Any]) -> None:
    code = 1
    os.setpgid(0, 0)  # a group of its own with its loader workers, as a shell starts a command
    try:
        _redirect(Path(asked["folder"]))
        code = _run(asked["call"], asked["arguments"], asked["trap"])
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _redirect(folder: Path) -> None:
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w", buffering=1)  # noqa: SIM115


def _run(function: str, arguments: Sequence[str], trap: dict[str, Any]) -> int:
    import atexit

    from tests.faults.trap import set_trap

    set_trap(trap)
    if function:
        module, _, name = function.partition(":")
        getattr(importlib.import_module(module), name)(*arguments)
        return 0
    from weft.cli import main

    sys.argv = ["weft", *arguments]
    try:
        main(list(arguments))
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        atexit._run_exitfuncs()
    return 0


def wait_until(happened: Any, limit: float = LIMIT) -> None:
    """Wait for something that another process does; fails when it takes longer than `limit` seconds."""
    end = time.monotonic() + limit
    while not happened():
        assert time.monotonic() < end, f"it did not happen within {limit} s"
        time.sleep(0.005)


if __name__ == "__main__":
    serve()
