"""Who is compared with whom, and what is hoped for."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from benchmarks.cases import Case
from benchmarks.common import Train

BY_HAND = "loop by hand"
BY_ROW = "loop by hand, arbitrary Dataset"


@dataclass(frozen=True)
class Contender:
    """One way to train.

    Args:
        name: in tables.
        module: the file under `benchmarks/peers`.
        options: keyword arguments of its `train`.
        reference: the contender it is compared with.
        package: what must be installed for it; None for what Weft brings along.
        goal: the ratio that is aimed at, None for the others.
        twin: what the loop by hand is told besides to end with the same weights, to the bit; None for nothing.
    """

    name: str
    module: str
    options: dict[str, Any] = field(default_factory=dict)
    reference: str = BY_HAND
    package: str | None = None
    goal: float | None = None
    twin: dict[str, Any] | None = None

    @property
    def is_installed(self) -> bool:
        """Whether its package is there."""
        return self.package is None or find_spec(self.package) is not None

    def load(self) -> Train:
        """Its training function."""
        train = importlib.import_module(f"benchmarks.peers.{self.module}").train
        return lambda prepared, folder: train(prepared, folder, **self.options)


REFERENCES = {
    BY_HAND: Contender(BY_HAND, "by_hand"),
    BY_ROW: Contender(BY_ROW, "by_hand", {"row_by_row": True}),
}
PEERS = [
    Contender("Lightning", "by_lightning", package="lightning"),
    Contender("Ignite", "by_ignite", package="ignite"),
    Contender("Accelerate", "by_accelerate", package="accelerate"),
]
_FUSED, _FUSED_LAST = {"fused": True}, {"fused": True, "channels_last": True}
_SMALL = [
    Contender("Weft, in memory, fused", "by_weft", _FUSED, goal=0.6, twin=_FUSED),
    Contender("Weft, in memory", "by_weft", goal=0.8),
    Contender("Weft, arbitrary Dataset", "by_weft", {"row_by_row": True}, BY_ROW, goal=1.05),
]
_LARGE = [
    Contender("Weft", "by_weft", goal=1.02),
    Contender("Weft, channels_last, fused", "by_weft", _FUSED_LAST, goal=0.8, twin=_FUSED_LAST),
]


def contenders(case: Case) -> list[Contender]:
    """Everybody who is compared in a case."""
    return [*(_SMALL if case.key == "a" else _LARGE), *PEERS]
