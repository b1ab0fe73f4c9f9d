"""How a participant takes part in a run."""

from __future__ import annotations

from dataclasses import dataclass

from weft.engine.processes import Place


@dataclass(frozen=True, slots=True)
class Membership:
    """What a participant is to the others, and what all of them have agreed on; by default it is alone.

    Args:
        participants, participant: how many take part, and which one this is (from 0).
        shares_directory: they are processes of one run: each takes its share of every batch, and the first one writes.
        gather: whether predictions may leave a participant where a score does not follow from sums.
        minimum_cells: number of items that a bin of predictions has at least where it leaves a participant.
        steps_per_epoch: of the participant that has most, for schedules; by default this one's.
        batches: of an epoch of this participant: fewer than its items make end the epoch early, with more it begins
            its items again; by default each item is visited once.
        splits: names of those that are scored though this participant has nothing in them.
    """

    participants: int = 1
    participant: int = 0
    shares_directory: bool = False
    gather: bool = True
    minimum_cells: int = 0
    steps_per_epoch: int | None = None
    batches: int | None = None
    splits: tuple[str, ...] = ()

    @classmethod
    def of(cls, place: Place | None) -> Membership:
        """That of one of the processes of a run; None where it was started alone."""
        return ALONE if place is None else cls(place.world, place.rank, shares_directory=True)

    @property
    def share(self) -> tuple[int, int]:
        """Which part of each batch this participant takes, of how many."""
        return (self.participant, self.participants) if self.shares_directory else (0, 1)


ALONE = Membership()
