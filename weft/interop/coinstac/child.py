"""A process of a simulated pipeline: runs a script of the user as COINSTAC's container would.

    python -m weft.interop.coinstac.child ONCE|AGAIN [--alias] SCRIPT
    python -m weft.interop.coinstac.child FORKS SOCKET

ONCE: one call, JSON on standard input, the answer on standard output. AGAIN: a call per line and an answer per line,
until standard input ends. FORKS: imports torch, and forks such processes when it is asked to by the socket, whose
number is given; see `fork_calls`.

An error of the script is no traceback of Weft's: the answer is {"error": {"message", "hint"}} with file and line.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import os
import runpy
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from weft.errors import UsageError, WeftError
from weft.interop.usercode import SHOWN, is_users

Call = dict[str, Any]
Answer = dict[str, Any]

WARNING = "warning: "  # what the lines of Weft's warnings begin with


def main(arguments: list[str]) -> int:
    """Do what the command line says; returns the exit code."""
    form, *further = arguments
    if form == "FORKS":
        with socket.socket(fileno=int(further[0])) as requests:
            fork_calls(requests)
        return 0
    return run(form, Path(next(word for word in further if not word.startswith("--"))), alias="--alias" in further)


def run(form: str, script: Path, *, alias: bool) -> int:
    """Run a script in one of the two forms; returns the exit code."""
    prepare(script, alias=alias)
    return run_once(script) if form == "ONCE" else run_again(script)


def prepare(script: Path, *, alias: bool) -> None:
    """Make imports of the script's neighbours, and of the original's name, work."""
    sys.path.insert(0, str(script.resolve().parent))
    sys.argv = [str(script)]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(f"{WARNING}%(message)s"))
    handler.setLevel(logging.WARNING)
    logging.getLogger("weft").addHandler(handler)
    if alias:
        from weft.interop.coinstac import aliasing

        aliasing.install()


def run_once(script: Path) -> int:
    """Run the script as a program; returns the exit code."""
    from weft.interop.coinstac import io

    io.reserve_standard_output()
    try:
        runpy.run_path(str(script), run_name="__main__")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException as error:
        io.send({"error": explained(error, script)})
        return 1
    return 0


def run_again(script: Path) -> int:
    """Answer calls, one per line: by the script's function `run`, by the service that it starts, or, where it has
    neither, by running it as a program for each call in this one process.
    """
    from weft.interop.coinstac import io

    io.reserve_standard_output()
    calls = (json.loads(line) for line in sys.stdin)
    first = next(calls, None)
    if first is None:
        return 0
    waiting, served = itertools.chain([first], calls), []

    def serve(local: Callable[[Call], Answer], remote: Callable[[Call], Answer]) -> None:
        served.append(True)
        for call in waiting:
            io.send(_answered(remote if call["mode"] == "remote" else local, call["data"], script))

    io.serve_with(serve)
    io.receive_again(first["data"])
    try:
        run = runpy.run_path(str(script), run_name=script.stem).get("run")
    except BaseException as error:
        io.send({"error": explained(error, script)})
        return 1
    if callable(run):
        serve(run, run)
    elif not served:
        for call in waiting:
            _run_program(script, call["data"])
    return 0


def _run_program(script: Path, data: Call) -> None:
    """One call of a script that is written for a process per call."""
    from weft.interop.coinstac import io

    sent = io.receive_again(data)
    try:
        with contextlib.suppress(SystemExit):
            runpy.run_path(str(script), run_name="__main__")
    except BaseException as error:
        io.send({"error": explained(error, script)})
        return
    if io.sent() == sent:
        message = f"{script.name} sent no answer, and has neither a function run(data) nor a service"
        io.send({"error": {"message": message, "hint": "a script ends with node.send()"}})


def _answered(compute: Callable[[Call], Answer], data: Call, script: Path) -> Answer:
    try:
        answer = compute(data)
        if not isinstance(answer, dict):
            raise UsageError(
                f"{script.name}: a call returned a {type(answer).__name__}, not a dict with 'output'",
                "return what the node returns: return local(pool, Trainer, Dataset)",
            )
        return answer
    except BaseException as error:
        return {"error": explained(error, script)}


# --- errors -----------------------------------------------------------------------------------------------------------


def explained(error: BaseException, script: Path) -> dict[str, str]:
    """What went wrong, where in the user's files, and what to do."""
    traceback.print_exception(error)  # into the log of the node
    place = _place(error)
    if isinstance(error, WeftError):
        return {"message": error.message, "hint": error.hint.replace(SHOWN, "")}  # the node's log is named instead
    kind = type(error).__name__
    text = f"{kind}: {error.msg if isinstance(error, SyntaxError) else error}"
    hint = str(getattr(error, "hint", ""))
    if isinstance(error, ImportError):
        from weft.interop.coinstac import aliasing

        hint = aliasing.advice(error)
    return {"message": f"{place or script.name}: {text}", "hint": hint}


def _place(error: BaseException) -> str:
    """File, line and function of the innermost frame that is the user's."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if is_users(frame.filename)]
    if not frames:
        return ""
    last = frames[-1]
    within = f" in {last.name}" if last.name != "<module>" else ""
    return f"{last.filename}:{last.lineno}{within}"


# --- processes that need not import torch -----------------------------------------------------------------------------


def fork_calls(requests: socket.socket) -> None:
    """Fork a process per request until the other side closes.

    A request is a line of JSON with `form`, `script` and `alias`, and brings three open files, which become the
    process's standard streams; the reply is `pid`. A request {"wait": pid} is replied to with `code`, negative for a
    signal.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the simulator says so, and ends all
    import torch._dynamo  # noqa: F401  # the first optimizer of a process imports it

    import weft.interop.coinstac.remotes
    import weft.interop.coinstac.sites  # noqa: F401

    children: set[int] = set()
    try:
        while True:
            line, streams, _, _ = socket.recv_fds(requests, 1 << 16, 3)
            if not line:
                return
            request = json.loads(line)
            if "wait" in request:
                _, status = os.waitpid(request["wait"], 0)
                children.discard(request["wait"])
                reply = {"code": os.waitstatus_to_exitcode(status)}
            else:
                pid = os.fork()
                if pid == 0:
                    signal.signal(signal.SIGINT, signal.SIG_DFL)
                    requests.close()
                    _forked(request, streams)
                children.add(pid)
                for stream in streams:
                    os.close(stream)
                reply = {"pid": pid}
            requests.sendall(json.dumps(reply).encode())
    finally:
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)


def _forked(request: dict[str, Any], streams: list[int]) -> None:
    """The forked process: never returns."""
    code = 1
    try:
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
        sys.stderr = os.fdopen(2, "w", 1, encoding="utf-8", closefd=False)  # what is printed outlives a kill
        code = run(request["form"], Path(request["script"]), alias=request["alias"])
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
