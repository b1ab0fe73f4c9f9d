"""What a node keeps on the disk between its calls, so that any of them may be made again in a new process."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from weft import __version__
from weft.errors import RunDirectoryError, UsageError
from weft.interop.coinstac.io import plain

_VERSION = re.compile(r"[0-9][0-9A-Za-z.+!-]{0,40}")
LIVE = "_weft_live_"  # key of the cache: what a process that lives on keeps between calls; never sent


class NodeStore:
    """The folder `weft` in the directory that COINSTAC gives a node for its cache.

    Args:
        state: of the call, with the node's directories.

    Raises:
        UsageError: a directory is missing in it.
    """

    def __init__(self, state: Mapping[str, Any]) -> None:
        for key in ("baseDirectory", "outputDirectory", "transferDirectory", "clientId"):
            if not isinstance(state.get(key), str):
                raise UsageError(f"the call's state has no {key}", "pass state on as COINSTAC gives it: RECV['state']")
        self.folder = Path(state.get("cacheDirectory") or state["outputDirectory"]) / "weft"
        self.base, self.output, self.transfer = (
            Path(state[key]) for key in ("baseDirectory", "outputDirectory", "transferDirectory")
        )
        self.name: str = state["clientId"]
        self._iteration = state.get("iteration")

    def reset(self) -> None:
        """Forget an earlier computation."""
        if self.folder.exists():
            shutil.rmtree(self.folder)
        self.folder.mkdir(parents=True)

    def fold(self, number: str) -> Path:
        """Where a fold's states and journal lie."""
        return self.folder / f"fold_{number}"

    def require_own(self) -> None:
        """Refuse to go on with what another version of Weft has begun, or what is not there.

        Raises:
            RunDirectoryError: says which version, where it lies, and what to do.
        """
        last, again = self._last(), "begin the computation again (simulate without --resume)"
        if not last:
            raise RunDirectoryError(f"{self.name}: nothing of this computation is left in {self.folder}", again)
        found = last.get("weft")
        if found == __version__:
            return
        said, hint = "another version of Weft, which does not say its number,", again
        if isinstance(found, str) and _VERSION.fullmatch(found):
            said, hint = f"Weft {found}", f"end it with that version (pip install weft=={found}), or {again}"
        raise RunDirectoryError(
            f"{self.name}: the computation in {self.folder} was begun with {said} and this is {__version__}: "
            "its states and journal may mean other things; nothing was changed", hint,
        )  # fmt: skip

    def cache(self) -> dict[str, Any]:
        """The cache as the last call left it; empty before."""
        found: dict[str, Any] = self._last().get("cache", {})
        return found

    def done_before(self, given: Mapping[str, Any]) -> dict[str, Any] | None:
        """What the last call answered, where this one is that call again; the file it sent is put in its place."""
        try:
            last = self._last()
        except RunDirectoryError:  # a first call begins anew, and any other one is refused
            return None
        if last.get("weft") != __version__ or last.get("input") != self._digest(given):
            return None
        if last["file"] is not None:
            self._put(last["file"], (self.folder / "sent").read_bytes())
        output: dict[str, Any] = last["output"]
        return output

    def send_file(self, name: str, data: bytes) -> None:
        """Put a file where COINSTAC takes it to the others, and keep it for the case that this call is made again."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "sent").write_bytes(data)  # counts only once `finish` says so
        self._put(name, data)

    def finish(self, given: Mapping[str, Any], output: dict[str, Any], cache: dict[str, Any], file: str | None) -> None:
        """Note what a call answered."""
        self.folder.mkdir(parents=True, exist_ok=True)
        content = {"input": self._digest(given), "output": output, "cache": plain(without_live(cache)), "file": file}
        content["weft"] = __version__
        write(self.folder / "last.json", json.dumps(content).encode())

    def _digest(self, given: Mapping[str, Any]) -> str:
        """Tells calls apart."""
        text = json.dumps([self._iteration, given], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def _put(self, name: str, data: bytes) -> None:
        self.transfer.mkdir(parents=True, exist_ok=True)
        (self.transfer / name).write_bytes(data)  # taken when this call has ended

    def _last(self) -> dict[str, Any]:
        file = self.folder / "last.json"
        if not file.exists():
            return {}
        try:
            found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RunDirectoryError(
                f"{self.name}: {file} cannot be read: {error}",
                "begin the computation again (simulate without --resume)",
            ) from error
        return found


def without_live(cache: Mapping[str, Any]) -> dict[str, Any]:
    """A cache without what only a living process can keep."""
    return {key: value for key, value in cache.items() if key != LIVE}


def write(path: Path, data: bytes) -> None:
    """Write a file whole or not at all, for processes that may be killed; it need not survive a power cut."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(data)
    os.replace(temporary, path)
