"""Checkpoints that are kept in memory."""

from __future__ import annotations

import copy
from collections.abc import Collection
from pathlib import Path
from typing import Any

from torch import Tensor

from weft.engine.checkpoint_files import best_steps, scored_weights_of
from weft.engine.checkpoints import Saved


class CheckpointMemory:
    """Checkpoints of a simulated participant, kept as copies in memory."""

    def __init__(self) -> None:
        self.last: dict[str, Any] | None = None
        self.best: dict[int, dict[str, Tensor]] = {}

    def save_last(self, state: dict[str, Any], step: int, *, best: bool = False) -> list[Saved]:
        """Copy the state of a step boundary, and its weights where they are among the best so far."""
        if best:
            self.save_best(scored_weights_of(state), step, best_steps(state))
        self.last = copy.deepcopy(state)
        return []

    def save_best(self, weights: dict[str, Tensor], step: int, wanted: Collection[int] = ()) -> list[Saved]:
        """Copy the weights of one of the best epochs."""
        others = {other: kept for other, kept in self.best.items() if other in wanted}
        self.best = others | {step: copy.deepcopy(dict(weights))}
        return []

    def load_last(self) -> dict[str, Any] | None:
        """A copy of the newest state."""
        return copy.deepcopy(self.last)

    def load_best(self, step: int) -> dict[str, Tensor]:
        """The weights saved as best at `step`."""
        return self.best[step]

    def folder_of_shards(self) -> Path | None:
        """There are no files."""
        return None

    def newest(self) -> Path | None:
        """There are no files."""
        return None

    def best_file(self, step: int) -> Path | None:
        """There are no files."""
        return None

    def settle(self, *, wait: bool) -> list[Saved]:
        """Nothing: there are no files."""
        return []
