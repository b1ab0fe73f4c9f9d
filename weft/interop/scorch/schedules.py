"""Schedules of a Socket: what is told which score."""

from __future__ import annotations

import logging
import warnings
from typing import Any

from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from weft.errors import ConfigError

logger = logging.getLogger("weft")


def facing(scheduler: Any) -> LRScheduler | ReduceLROnPlateau:
    """The scheduler; one that waits for a plateau watches for the main score to rise, since larger is better.

    ReduceLROnPlateau's own default is a score that falls, with which the rate of an accuracy sinks while it rises.
    """
    if isinstance(scheduler, ReduceLROnPlateau) and scheduler.mode == "min":
        logger.info("Socket.scheduler watches 'main', which is better when it is larger: its mode is max, not min")
        scheduler.mode = "max"
        scheduler._init_is_better("max", scheduler.threshold, scheduler.threshold_mode)
        scheduler._reset()
    return _known(scheduler)


def _known(scheduler: Any) -> LRScheduler | ReduceLROnPlateau:
    if not isinstance(scheduler, LRScheduler | ReduceLROnPlateau):
        raise ConfigError(
            f"Socket.scheduler is a {type(scheduler).__name__}, which is not one of torch.optim.lr_scheduler",
            "use one of torch's, or leave it out",
        )
    return scheduler


class StepsOnScore(ReduceLROnPlateau):
    """A scheduler that is told the main score after each epoch, whatever it makes of it: as the original did.

    Args:
        scheduler: the Socket's.
    """

    def __init__(self, scheduler: Any) -> None:  # it is none of its own: the base class only says how it is stepped
        self.inner = _known(scheduler)
        self.optimizer = scheduler.optimizer

    def step(self, metrics: Any, epoch: int | None = None) -> None:  # type: ignore[override]
        """Tell it the score."""
        with warnings.catch_warnings():  # torch advises against epochs that are given; here that is the point
            warnings.simplefilter("ignore", UserWarning)
            self.inner.step(float(metrics))  # type: ignore[arg-type]

    def state_dict(self) -> dict[str, Any]:
        """The scheduler's own."""
        return self.inner.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.inner.load_state_dict(state_dict)
