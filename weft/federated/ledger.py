"""The ledger of a study: who joined, left, came back, was late or refused, one JSON object per line: `event`, `site`
(empty: all), `epoch` (from 1, as in the tables), `step` (optimizer steps taken), `seconds` since the study began or
went on, `reason`.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from weft.runs import write_atomically
from weft.runs.files import explained

logger = logging.getLogger("weft")

Event = Literal[
    "joined",
    "refused",
    "ignored",
    "resent",
    "slow",
    "late",
    "left",
    "returned",
    "failed",
    "differs",
    "digests",
    "stopped",
    "planned",
    "missed",
]
_QUIET = ("joined", "digests", "ignored", "resent", "slow", "planned")


class Ledger:
    """Appends events; each is on the disk before the study goes on.

    Args:
        path: the file, which is made with the first event; None keeps them in memory.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.events: list[dict[str, Any]] = []
        self.written = 0  # events of the study so far, those before it went on too
        self._since = time.monotonic()

    def note(self, event: Event, site: str, *, epoch: int = 0, step: int = 0, reason: str = "") -> None:
        """Write what happened.

        Args:
            event: "joined" and "returned" sites take part from here on, "left" ones no longer; what was "refused" was
                not counted, "ignored" and "resent" messages cost nothing; a "slow" site was waited for, a "late" one
                not; "failed": its loss or gradients were not finite; "differs": its weights are not those of the
                others; what a scenario has "planned" came, or was "missed": it never will.
            site: whose; empty for all.
            epoch: where the study was, from 0; the file and messages count epochs from 1, as all tables do.
            step: how many optimizer steps had been taken.
            reason: in words.

        Raises:
            RunDirectoryError: it cannot be written.
        """
        row = {
            "event": event, "site": site, "epoch": epoch + 1, "step": step,
            "seconds": round(time.monotonic() - self._since, 3), "reason": reason,
        }  # fmt: skip
        self.events.append(row)
        if self.path is not None:
            with explained(self.path, kept="what was written before"), self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        self.written += 1
        text = f"epoch {epoch + 1}, step {step}: {f'site {site}' if site else 'the study'} {event}" + (
            f": {reason}" if reason else ""
        )
        logger.log(logging.DEBUG if event in _QUIET else logging.WARNING, "%s", text)

    def go_back(self, events: int) -> None:
        """Give up what was written since a boundary, where the study goes on from there: it happens again.

        Args:
            events: how many were `written` then.
        """
        assert self.path is not None
        kept = list(read_ledger(self.path))[:events]
        write_atomically(self.path, "".join(json.dumps(row) + "\n" for row in kept).encode())
        self.written = len(kept)


def away_after(rows: Iterable[Mapping[str, Any]]) -> set[str]:
    """Sites that left in the course of some events and were not back.

    Args:
        rows: of a ledger, from its beginning, in order.
    """
    last: dict[str, str] = {}
    for row in rows:
        if row["event"] in ("joined", "returned", "left", "late"):
            last[row["site"]] = row["event"]
    return {site for site, event in last.items() if event in ("left", "late")}


def read_ledger(path: Path) -> Iterator[dict[str, Any]]:
    """The events of a study, in order; a line that was cut off by a crash is left out."""
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(row, dict):
            yield row
