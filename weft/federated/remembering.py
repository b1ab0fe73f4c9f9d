"""What a hub remembers from one exchange to the next, on the disk by the boundaries at which sites save."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from weft.errors import CheckpointError, RunDirectoryError
from weft.federated.hub import Hub
from weft.runs import RunDirectory


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
        self._rows: list[dict[str, Any]] = []  # oldest first
        self._noted: tuple[int, int, int] | None = None  # the boundary and exchange of the last one

    def note(self, epoch: int, step: int) -> None:
        """Write what the hub remembers at a boundary; the second and further sites to save there change nothing.

        Sites may save again at a boundary after further exchanges, when they stop in validation: what they saved before
        is replaced, and so is what the hub remembered.

        Raises:
            RunDirectoryError: it cannot be written.
        """
        moment = (epoch, step, self.hub.number)
        if moment == self._noted:
            return
        before = [row for row in self._rows if _boundary(row) != (epoch, step)]
        row = {"epoch": epoch, "step": step, "events": self.hub.ledger.written, **self.hub.state_dict()}
        self._rows = [*before, row][-self.keep :]
        self._noted = moment
        self.directory.write_json(self.directory.hub_file, self._rows)

    def go_back(self, epoch: int, step: int) -> int:
        """Let the hub remember what it did at a boundary, and give up what came later.

        Returns:
            how many events the ledger had then.

        Raises:
            CheckpointError: it is not known.
        """
        file = self.directory.hub_file
        try:
            rows = [row for row in self.directory.read_json(file) if _boundary(row) <= (epoch, step)]
            if not rows or _boundary(rows[-1]) != (epoch, step):
                raise ValueError(f"there is nothing of epoch {epoch + 1}, step {step}")
            self.hub.load_state_dict(rows[-1])
            events = int(rows[-1]["events"])
        except (RunDirectoryError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise CheckpointError(
                f"{file} does not tell what the hub remembered: {getattr(error, 'message', error)}",
                "restore it from a backup, or run the study again in a new directory",
            ) from error
        self._rows = rows
        return events


def _boundary(row: Mapping[str, Any]) -> tuple[int, int]:
    return row["epoch"], row["step"]
