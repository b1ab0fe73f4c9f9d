"""How long training waited for its data."""

from __future__ import annotations

from typing import Any

from weft.data import Loader
from weft.engine.events import Epoch, Observer


class Waiting(Observer):
    """Tells result.json how much of the training since the run was started, or gone on with, was waiting for batches.

    The loader measures it where items are loaded; from data in memory batches come at once.
    """

    def __init__(self) -> None:
        self._loader: Loader | None = None
        self._training = 0.0

    def on_build(self, run: Any) -> None:
        self._loader = run.train

    def on_epoch(self, epoch: Epoch) -> None:
        self._training += float(epoch.row.get("seconds_train", 0.0))

    def facts(self) -> dict[str, Any]:
        """`{"loading": {"seconds": ..., "of_training_seconds": ...}}`."""
        waited = self._loader.seconds_waited if self._loader is not None else 0.0
        if not waited or not self._training:
            return {}
        return {"loading": {"seconds": round(waited, 3), "of_training_seconds": round(self._training, 3)}}
