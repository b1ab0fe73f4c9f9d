"""What a hub remembers from one exchange to the next, on the disk by the boundaries at which sites save."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from weft.errors import CheckpointError, RunDirectoryError
from weft.federated.hub import Hub
from weft.federated.playing import Playing
from weft.runs import RunDirectory

# A boundary that is the same at all sites: epoch, step, and 1 where the epoch's steps were all taken, as when a study
# was stopped in validation.
Moment = tuple[int, int, int]
_MOMENT = ("epoch", "step", "over")


class HubMemory:
    """Keeps a hub's memory beside the states of the sites, so that a study goes on with both of the same moment.

    It is written before the first site writes its state of a boundary: a boundary that all sites have, the hub has.

    Args:
        directory: of the study, locked.
        hub: whose memory it is.
        keep: so many of the newest boundaries; more than sites keep.
    """

    def __init__(self, directory: RunDirectory, hub: Hub, keep: int) -> None:
        self.directory, self.hub, self.keep = directory, hub, keep
        self.playing: Playing | None = None  # the scenario that the hub's study is played with
        self.played: dict[str, Any] | None = None  # its state, where the study goes on
        self._rows: list[dict[str, Any]] = []  # oldest first
        self._noted: tuple[Moment, int] | None = None  # the boundary and exchange of the last one

    def note(self, moment: Moment) -> None:
        """Write what the hub remembers at a boundary; the second and further sites to save there change nothing.

        A study that was stopped in validation may be stopped there again, after further exchanges: what sites save then
        replaces what they saved before, and so does what the hub remembers.

        Raises:
            RunDirectoryError: it cannot be written.
        """
        if (moment, self.hub.number) == self._noted:
            return
        before = [row for row in self._rows if _moment(row) != moment]
        place = dict(zip(_MOMENT, moment, strict=True))
        row = {**place, "events": self.hub.ledger.written, **self.hub.state_dict()}
        if self.playing is not None:
            row["playing"] = self.playing.state_dict()
        self._rows = [*before, row][-self.keep :]
        self._noted = moment, self.hub.number
        self.directory.write_json(self.directory.hub_file, self._rows)

    def events(self) -> dict[Moment, int]:
        """How many events the ledger had at each boundary.

        Raises:
            CheckpointError: it cannot be read.
        """
        return {_moment(row): int(row["events"]) for row in self._read()}

    def go_back(self, moment: Moment) -> None:
        """Let the hub remember what it did at a boundary, and give up what came later.

        Raises:
            CheckpointError: it is not known.
        """
        rows = [row for row in self._read() if _moment(row) <= moment]
        try:
            if not rows or _moment(rows[-1]) != moment:
                raise ValueError(f"there is nothing of epoch {moment[0] + 1}, step {moment[1]}")
            self.hub.load_state_dict(rows[-1])
            self.played = rows[-1].get("playing")
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise self._wrong(error) from error
        self._rows = rows

    def _read(self) -> list[dict[str, Any]]:
        try:
            rows: list[dict[str, Any]] = self.directory.read_json(self.directory.hub_file)
            for row in rows:
                _moment(row), int(row["events"])
        except (RunDirectoryError, ValueError, TypeError, KeyError) as error:
            raise self._wrong(error) from error
        return rows

    def _wrong(self, error: Exception) -> CheckpointError:
        return CheckpointError(
            f"{self.directory.hub_file} does not tell what the hub remembered: {getattr(error, 'message', error)}",
            "restore it from a backup, or run the study again in a new directory",
        )


def _moment(row: Mapping[str, Any]) -> Moment:
    return row["epoch"], row["step"], row["over"]
