"""Best epoch and early stopping, decided from the monitored score alone, so alike by every participant."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class KeptEpoch(NamedTuple):
    """One of the best epochs: its value, its number from 0, and the optimizer steps taken at its end."""

    value: float
    epoch: int
    step: int


@dataclass(slots=True)
class BestEpoch:
    """Remembers the best value of the monitored score and says when there was none for too long.

    Args:
        metric: name of the score as in the history, without the split ("loss", "dice").
        mode: "min" or "max".
        patience: stop after this many validations without improvement; None never stops.
        min_delta: an improvement must be larger than this.
        keep: of how many of the best epochs the weights are kept.
        kept: these epochs; first the best one, then the others by their value, the earlier one first where it is equal.
    """

    metric: str
    mode: str
    patience: int | None = None
    min_delta: float = 0.0
    value: float | None = None
    epoch: int | None = None
    step: int | None = None
    waited: int = 0
    keep: int = 1
    kept: list[KeptEpoch] = field(default_factory=list)

    def update(self, value: float, epoch: int, step: int) -> bool:
        """Take one validation's value; returns whether it is the best so far. NaN never is."""
        if not math.isnan(value) and (self.value is None or self._better(value, self.value)):
            self.value, self.epoch, self.step, self.waited = value, epoch, step, 0
            self._rank(KeptEpoch(value, epoch, step))
            return True
        self.waited += 1
        self._rank(KeptEpoch(value, epoch, step))
        return False

    def keeps(self, step: int) -> bool:
        """Whether the epoch that ended at `step` is among those whose weights are kept."""
        return any(kept.step == step for kept in self.kept)

    def _rank(self, new: KeptEpoch) -> None:
        sign = -1 if self.mode == "max" else 1
        seen = [*self.kept, *([] if math.isnan(new.value) else [new])]
        ordered = sorted(seen, key=lambda one: (one.step != self.step, sign * one.value, one.epoch))
        self.kept = ordered[: self.keep]

    @property
    def should_stop(self) -> bool:
        """Whether patience is used up."""
        return self.patience is not None and self.waited >= self.patience

    def _better(self, value: float, than: float) -> bool:
        return value > than + self.min_delta if self.mode == "max" else value < than - self.min_delta

    def state_dict(self) -> dict[str, Any]:
        """What was seen so far."""
        return {
            "value": self.value, "epoch": self.epoch, "step": self.step, "waited": self.waited,
            "kept": [list(kept) for kept in self.kept],
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        for key in ("value", "epoch", "step", "waited"):
            setattr(self, key, state[key])
        self.kept = [KeptEpoch(*kept) for kept in state.get("kept", ())][: self.keep]
        if not self.kept and self.value is not None and self.epoch is not None and self.step is not None:
            self.kept = [KeptEpoch(self.value, self.epoch, self.step)]  # saved before several could be kept
