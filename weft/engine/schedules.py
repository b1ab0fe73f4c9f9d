"""Learning rates: torch's schedulers, stepped per step or per epoch, with an optional linear warm-up in front."""

from __future__ import annotations

from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from weft.config import Namespace, TrainingConfig, scheduler_interval, supplied
from weft.errors import ConfigError


class Schedule:
    """The learning rate of one optimizer over the run.

    Warm-up multiplies the rate by (step + 1) / warmup_steps for the first `warmup_steps` steps (Goyal et al., 2017);
    it is applied around the optimizer's step, so it combines with every scheduler.

    Args:
        optimizer: whose rate it sets.
        scheduler: a torch scheduler or None for a constant rate.
        per_step: step it after every optimizer step that was not skipped; else after every epoch.
        warmup_steps: number of warm-up steps, 0 for none.
    """

    def __init__(
        self, optimizer: Optimizer, scheduler: LRScheduler | None, *, per_step: bool, warmup_steps: int = 0
    ) -> None:
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.per_step = per_step and scheduler is not None
        self.warmup_steps = warmup_steps
        self.steps = 0
        self.learning_rate = self._next_rate()  # of the step that was taken last; before the first one, of the first

    @property
    def warming(self) -> bool:
        """Whether the next step is one of warm-up."""
        return self.steps < self.warmup_steps

    @property
    def factor(self) -> float:
        """What the next step's rate is multiplied by."""
        return (self.steps + 1) / self.warmup_steps if self.warming else 1.0

    def _next_rate(self) -> float:
        return float(self.optimizer.param_groups[0]["lr"]) * self.factor

    def scaled_rates(self) -> list[Any]:
        """Multiply the rates by the warm-up factor; returns those to put back after the step."""
        before = [group["lr"] for group in self.optimizer.param_groups]
        for group in self.optimizer.param_groups:
            group["lr"] = group["lr"] * self.factor
        return before

    def restore_rates(self, rates: list[Any]) -> None:
        """Put the rates back after a warm-up step."""
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate

    def after_step(self) -> None:
        """An optimizer step was taken (not skipped)."""
        self.learning_rate = self._next_rate()
        self.steps += 1
        if self.per_step and self.scheduler is not None:
            self.scheduler.step()

    def after_epoch(self, monitored: float | None) -> None:
        """An epoch is over; plateau schedulers look at the monitored score, where there is one."""
        if self.scheduler is None or self.per_step:
            return
        if isinstance(self.scheduler, ReduceLROnPlateau):
            if monitored is not None:
                self.scheduler.step(monitored)
        else:
            self.scheduler.step()

    def state_dict(self) -> dict[str, Any]:
        """Steps taken and the scheduler's own state."""
        scheduler = self.scheduler.state_dict() if self.scheduler is not None else None
        return {"steps": self.steps, "learning_rate": self.learning_rate, "scheduler": scheduler}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        self.steps = state["steps"]
        self.learning_rate = state["learning_rate"]
        if self.scheduler is not None and state["scheduler"] is not None:
            self.scheduler.load_state_dict(state["scheduler"])


def build_schedule(
    training: TrainingConfig,
    namespace: Namespace,
    optimizer: Optimizer,
    steps_per_epoch: int,
    own: LRScheduler | ReduceLROnPlateau | None = None,
) -> Schedule:
    """The schedule of an optimizer, which is told how long the run is where the experiment does not say.

    Args:
        training: names the scheduler, if any, and when it is stepped.
        namespace: looks up names.
        optimizer: whose learning rate it sets.
        steps_per_epoch: optimizer steps of an epoch.
        own: the task's scheduler, for experiments that name none.

    Raises:
        ConfigError: there is no such scheduler, its arguments do not fit, or it is something else.
    """
    component = training.scheduler
    if component is None:
        per_step = training.scheduler_interval == "step"
        return Schedule(optimizer, own, per_step=per_step, warmup_steps=training.warmup_steps)
    per_step = scheduler_interval(training) == "step"
    known = {"length": run_length(training, steps_per_epoch, per_step=per_step)}
    target = namespace.find(component, "scheduler")
    extra = {} if component.is_finished else supplied("scheduler", target, component.arguments, known)
    scheduler = namespace.build(component, "scheduler", optimizer, **extra)
    if not isinstance(scheduler, LRScheduler | ReduceLROnPlateau):
        raise ConfigError(f"scheduler {component.name} is not one of torch's", "name one of torch.optim.lr_scheduler")
    return Schedule(optimizer, scheduler, per_step=per_step, warmup_steps=training.warmup_steps)


def run_length(training: TrainingConfig, steps_per_epoch: int, *, per_step: bool) -> int:
    """How often a scheduler is stepped in a run that nothing ends early: in optimizer steps, or in epochs begun."""
    steps = max(training.epochs * steps_per_epoch, 1)
    if training.steps is not None:
        steps = min(steps, training.steps)
    return steps if per_step else -(-steps // max(steps_per_epoch, 1))
