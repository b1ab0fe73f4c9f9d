"""Best epoch and early stopping, decided from the monitored score alone, so alike by every participant."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(slots=True)
class BestEpoch:
    """Remembers the best value of the monitored score and says when there was none for too long.

    Args:
        metric: name of the score as in the history, without the split ("loss", "dice").
        mode: "min" or "max".
        patience: stop after this many validations without improvement; None never stops.
        min_delta: an improvement must be larger than this.
    """

    metric: str
    mode: str
    patience: int | None = None
    min_delta: float = 0.0
    value: float | None = None
    epoch: int | None = None
    step: int | None = None
    waited: int = 0

    def update(self, value: float, epoch: int, step: int) -> bool:
        """Take one validation's value; returns whether it is the best so far. NaN never is."""
        if not math.isnan(value) and (self.value is None or self._better(value, self.value)):
            self.value, self.epoch, self.step, self.waited = value, epoch, step, 0
            return True
        self.waited += 1
        return False

    @property
    def should_stop(self) -> bool:
        """Whether patience is used up."""
        return self.patience is not None and self.waited >= self.patience

    def _better(self, value: float, than: float) -> bool:
        return value > than + self.min_delta if self.mode == "max" else value < than - self.min_delta

    def state_dict(self) -> dict[str, Any]:
        """What was seen so far."""
        return {key: value for key, value in asdict(self).items() if key in {"value", "epoch", "step", "waited"}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        for key in ("value", "epoch", "step", "waited"):
            setattr(self, key, state[key])
