"""How a COINSTAC script is called: once per process with JSON on standard input, or again and again in one process.

`RECV` is what a process was called with: a dict with `cache`, `input` and `state`. It is read when it is first asked
for, so that a script which never asks does not wait for its standard input. From then on whatever is printed goes to
standard error: standard output belongs to the answer, which `send` writes.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, TextIO

from weft.errors import UsageError

Call = dict[str, Any]
Answer = dict[str, Any]

_received: dict[str, Any] = {}  # "RECV", once it was read
_answers: list[TextIO] = []  # where the answer of this process goes
_count: list[int] = [0]  # answers that were sent
_kept: list[dict[str, Any]] = []  # the cache of a process that is called again
_server: list[Callable[[Callable[[Call], Answer], Callable[[Call], Answer]], None]] = []


def __getattr__(name: str) -> Any:
    if name != "RECV":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if "RECV" not in _received:
        _received["RECV"] = read_call(sys.stdin.read())
        reserve_standard_output()
    return _received["RECV"]


def read_call(text: str) -> Call:
    """The dict that a call is made with.

    Raises:
        UsageError: it is none: the script was not started by COINSTAC.
    """
    try:
        call = json.loads(text)
    except ValueError:
        call = None
    if not isinstance(call, dict) or not isinstance(call.get("input"), dict) or not isinstance(call.get("state"), dict):
        raise UsageError(
            "standard input holds no call: JSON with input and state",
            "COINSTAC starts this script, or: weft interop coinstac simulate DIR --local local.py --remote remote.py",
        )
    call.setdefault("cache", {})
    return call


def reserve_standard_output() -> None:
    """Keep standard output for the answer; what anything prints from here on goes to standard error."""
    if not _answers:
        sys.stdout.flush()
        _answers.append(os.fdopen(os.dup(1), "w", encoding="utf-8"))
        os.dup2(2, 1)
        sys.stdout = sys.stderr


def send(answer: Answer) -> None:
    """Write the answer of this process: one line of JSON.

    Raises:
        UsageError: it holds something that is no JSON.
    """
    reserve_standard_output()
    try:
        text = json.dumps(answer, allow_nan=True)
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"the answer cannot be written as JSON: {error}",
            "keep only numbers, texts, lists and dicts in what is sent; the cache is sent without anything else",
        ) from None
    _answers[0].write(text + "\n")
    _answers[0].flush()
    _count[0] += 1


def sent() -> int:
    """How many answers this process has sent."""
    return _count[0]


def receive_again(call: Call) -> int:
    """Make `RECV` the next call of a process that lives on, with the cache that the last one left in its memory.

    Returns:
        how many answers were sent before.
    """
    if not _kept:
        _kept.append(call.get("cache") or {})
    _received["RECV"] = {**call, "cache": _kept[0]}
    return sent()


def lasting() -> bool:
    """Whether this process will be called again, so that what is under way may stay in its memory."""
    return bool(_kept)


def plain(content: Any) -> Any:
    """What of a dict can be written as JSON, as a copy; other entries are left out."""
    if isinstance(content, dict):
        return {str(key): plain(value) for key, value in content.items() if _is_plain(value)}
    if isinstance(content, list | tuple):
        return [plain(value) for value in content]
    return content


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return True
    if isinstance(value, list | tuple):
        return all(_is_plain(one) for one in value)
    return value is None or isinstance(value, str | int | float)


class COINPyService:
    """A long-lived process that is called again and again, as release 2.0 had it. Subclasses say who computes.

    Args:
        cache: what calls leave to later ones.
    """

    def __init__(self, cache: dict[str, Any] | None = None, **further: Any) -> None:
        self.cache: dict[str, Any] = {} if cache is None else cache

    def get_local(self, msg: Call) -> Any:
        """A `COINNLocal`, or a tuple of one and the arguments of its computation, the pool left out."""
        return self._local(msg)

    def get_remote(self, msg: Call) -> Any:
        """A `COINNRemote`, or a tuple of one and the arguments of its computation, the pool left out."""
        return self._remote(msg)

    def get_local_compute_args(self, msg: Call) -> Sequence[Any]:
        """The arguments of a site's computation, where `get_local` tells none, as early releases had it."""
        return self._local_compute_args(msg)

    def get_remote_compute_args(self, msg: Call) -> Sequence[Any]:
        """Likewise of the remote's."""
        return self._remote_compute_args(msg)

    # The same in the words of earlier releases still.

    def _local(self, msg: Call) -> Any:
        raise NotImplementedError("get_local must be implemented to be called as a site")

    def _remote(self, msg: Call) -> Any:
        raise NotImplementedError("get_remote must be implemented to be called as the remote")

    def _local_compute_args(self, msg: Call) -> Sequence[Any]:
        return ()

    def _remote_compute_args(self, msg: Call) -> Sequence[Any]:
        return ()

    def start(self) -> None:
        """Serve calls until there are no more."""

        def computed(get: Callable[[Call], Any], further: Callable[[Call], Sequence[Any]], msg: Call) -> Answer:
            node = get(msg)
            node, *arguments = node if isinstance(node, tuple | list) else (node, *further(msg))
            answer: Answer = node(None, *arguments)
            return answer

        start(
            lambda data: computed(self.get_local, self.get_local_compute_args, {"mode": "local", "data": data}),
            lambda data: computed(self.get_remote, self.get_remote_compute_args, {"mode": "remote", "data": data}),
        )


def start(local: Callable[[Call], Answer], remote: Callable[[Call], Answer]) -> None:
    """Serve calls until there are no more, as `coinstac.start` does.

    Args:
        local: answers the calls of a site.
        remote: answers those of the remote.

    Raises:
        UsageError: nobody calls this process.
    """
    if not _server:
        raise UsageError(
            "nobody calls this process",
            "COINSTAC itself calls functions `run(data)` by its package: coinstac.start(local.run, remote.run). Here: "
            "weft interop coinstac simulate DIR --persistent --local FILE --remote FILE",
        )
    _server[0](local, remote)


def serve_with(server: Callable[[Callable[[Call], Answer], Callable[[Call], Answer]], None]) -> None:
    """Set who calls this process."""
    _server[:] = [server]
