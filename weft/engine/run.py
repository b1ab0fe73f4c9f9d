"""A run: the state of training, what it needs to go on, and those who watch it. The loop (loop.py) tells the story."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from weft.data import Batch, Loader
from weft.engine.checkpoint_memory import CheckpointMemory
from weft.engine.checkpoints import CheckpointStore, Saved
from weft.engine.events import Epoch, Observers, RunResult, Start, Step, Validation
from weft.engine.fully_sharded import local
from weft.engine.precision import Precision
from weft.engine.signals import Interruption
from weft.engine.state import TrainingState
from weft.errors import CheckpointError, NotFiniteError, RunDirectoryError
from weft.metrics import ScoreBook
from weft.runs import History
from weft.tasks import Task

logger = logging.getLogger("weft")

_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


@dataclass(frozen=True, slots=True)
class Plan:
    """The settings that the loop looks at; see `TrainingConfig` for their meaning."""

    seed: int
    epochs: int
    precision: Precision
    device: torch.device
    batch_size: int = 1
    steps: int | None = None
    accumulate: int = 1
    clip_norm: float | None = None
    clip_value: float | None = None
    channels_last: bool = False
    evaluate_every: int = 1
    score_train: str = "end"
    log_every: int = 50
    save_steps: int | None = None
    save_seconds: float | None = None
    save_epochs: int | None = 1
    freeze: tuple[str, ...] = ()
    unfreeze: dict[int, list[str]] = field(default_factory=dict)


@dataclass(slots=True)
class ScoredSplit:
    """A split that is scored: its loader, its scores and the names of its cases."""

    loader: Loader
    book: ScoreBook
    cases: list[str]


@dataclass(slots=True)
class SplitScores:
    """Final scores of a split: values, details for the report, and one row per case of this participant."""

    scores: dict[str, float]
    details: dict[str, Any]
    rows: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class PendingLoss:
    """The loss of a step that still lies on the accelerator, and the rows it came from."""

    step: int
    loss: Tensor
    weight: float
    rows: list[Tensor]


@dataclass(slots=True)
class Run:
    """One participant's run, ready to be driven.

    Args:
        state: what a checkpoint holds.
        task: what a batch means.
        plan: the settings.
        train: loader of the training split, None when there is nothing to train.
        splits: the splits that can be scored, by name ("train" without augmentation, "validation", "test").
        participants, participant: how many take part, and which one this is (from 0).
        shares_directory: the participants are processes of one run; the first one writes for all.
        failures_tolerated: so many participants may have a loss that is not finite; they weigh nothing in that step.
        on_saving, on_saved: called before and after each save; drivers that keep journals clear them.
    """

    state: TrainingState
    task: Task
    plan: Plan
    train: Loader | None
    splits: dict[str, ScoredSplit]
    cases: list[str] = field(default_factory=list)  # names of the training items, for messages
    name: str = ""
    path: Path | None = None
    history: History | None = None
    observers: Observers = field(default_factory=lambda: Observers([]))
    checkpoints: CheckpointStore = field(default_factory=CheckpointMemory)
    interruption: Interruption = field(default_factory=Interruption)
    participants: int = 1
    participant: int = 0
    shares_directory: bool = False
    failures_tolerated: int = 0
    resumed: bool = False
    shards: Path | None = None  # where all processes write their parts of a sharded model; None: nowhere
    on_saving: Callable[[], None] = lambda: None
    on_saved: Callable[[], None] = lambda: None
    pending: list[PendingLoss] = field(default_factory=list)
    reached: dict[str, list[nn.Parameter]] = field(default_factory=dict)  # of each network, by updates
    _batches: int | None = None
    final: dict[str, SplitScores] = field(default_factory=dict)
    last_save: float = field(default_factory=time.monotonic)
    started: float = field(default_factory=time.monotonic)

    @property
    def alone(self) -> bool:
        """Whether there is nobody to agree with."""
        return self.participants == 1

    @property
    def agrees_with_gradients(self) -> bool:
        """Whether what is to be agreed on in each step travels with the gradients."""
        return self.state.strategy is not None and self.state.strategy.carries_flags

    @property
    def defers_losses(self) -> bool:
        """Whether losses are looked at now and then only, since each look makes an accelerator wait."""
        return self.alone and self.plan.device.type != "cpu"

    # --- data ---------------------------------------------------------------------------------------------------------

    def windows(self) -> Iterator[tuple[Batch, ...]]:
        """The rest of the epoch in windows of `accumulate` batches, each one optimizer step; the last may be
        shorter.
        """
        if self.train is None:
            return iter(())
        position = self.state.position
        batches = self.train.epoch(position.epoch, skip=position.batch)
        if self.plan.accumulate == 1:
            return ((batch,) for batch in batches)
        return iter(lambda: tuple(islice(batches, self.plan.accumulate)), ())

    def place(self, batch: Batch) -> Batch:
        """The batch where the model lives, in its memory format; itself where that is so already."""
        plan = self.plan
        if plan.device.type == "cpu" and not plan.channels_last:
            return batch
        memory_format = None
        if plan.channels_last:
            first = batch.inputs[0] if isinstance(batch.inputs, tuple) else batch.inputs
            memory_format = _CHANNELS_LAST.get(first.ndim)
        return batch.to(plan.device, non_blocking=True, memory_format=memory_format)

    @property
    def batches(self) -> int:
        """Loader batches of an epoch at this participant."""
        if self._batches is None:
            self._batches = len(self.train) if self.train is not None else 0
        return self._batches

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of an epoch at this participant."""
        return -(-self.batches // self.plan.accumulate)

    # --- saving -------------------------------------------------------------------------------------------------------

    def save_is_due(self, *, steps: int = 0) -> bool:
        """Whether a save inside the epoch is due so many steps from now, by steps or by this participant's clock."""
        plan, step = self.plan, self.state.position.step + steps
        if plan.save_steps is not None and step % plan.save_steps == 0:
            return True
        return plan.save_seconds is not None and time.monotonic() - self.last_save >= plan.save_seconds

    def save(self, processes: list[dict[str, Any]] | None = None, *, best: bool = False) -> None:
        """Save the state of this boundary.

        Args:
            processes: the private state of each process, where they share one directory.
            best: its weights are among the best so far.

        Raises:
            NotFiniteError: the weights are not finite; the checkpoint before is kept.
            CheckpointError, RunDirectoryError: it cannot be written; the checkpoint before is kept.
        """
        self.require_finite_weights()
        state = self.state.state_dict()
        if processes is not None:
            state["processes"] = processes
        self.save_state(state, best=best)

    def save_state(self, state: dict[str, Any], *, best: bool = False) -> None:
        """Save a state of this boundary that has been made."""
        self.on_saving()
        saved = self.checkpoints.save_last(state, self.state.position.step, best=best)
        self.saved()
        self._tell_saved(saved)

    def saved(self) -> None:
        """The state of this boundary is safe."""
        self.last_save = time.monotonic()
        self.on_saved()

    def save_best(self) -> None:
        """Save the weights that scores were just taken from."""
        self.require_finite_weights()
        self.save_as_best(self.state.scored_weights)

    def save_as_best(self, weights: dict[str, Tensor]) -> None:
        """Save weights of this boundary as those of one of the best epochs."""
        wanted = [kept.step for kept in self.state.best.kept]
        self._tell_saved(self.checkpoints.save_best(weights, self.state.position.step, wanted))

    def settle_saves(self, *, wait: bool) -> None:
        """Tell observers of checkpoints that were written meanwhile.

        Args:
            wait: for those that are under way.

        Raises:
            CheckpointError, RunDirectoryError: one could not be written; the checkpoint before is kept.
        """
        self._tell_saved(self.checkpoints.settle(wait=wait))

    def _tell_saved(self, saved: list[Saved]) -> None:
        for path, kind in saved:
            self.observers.notify("on_checkpoint", path, kind)

    def require_finite_weights(self) -> None:
        """Refuse to keep a state that is already lost."""
        names = self.lost_weights()
        if names:
            raise self.not_finite_weights(names)

    def lost_weights(self) -> list[str]:
        """Names of the parameters that are not finite, of those parts that this process has."""
        named = [(name, local(parameter.detach())) for name, parameter in self.state.model.named_parameters()]
        parameters = [parameter for _, parameter in named if parameter.numel()]
        norms = (
            torch.stack([norm.float() for norm in torch._foreach_norm(parameters, float("inf"))])
            if parameters
            else None
        )
        if norms is None or bool(torch.isfinite(norms).all()):
            return []
        return [name for name, parameter in named if not bool(torch.isfinite(parameter).all())]

    def not_finite_weights(self, names: list[str]) -> NotFiniteError:
        """The error for parameters that are not finite."""
        whose = "" if self.alone else f" of participant {self.participant}"
        return NotFiniteError(
            f"weights{whose} are not finite after step {self.state.position.step}: {', '.join(names[:3])}"
            f"{' …' if len(names) > 3 else ''}; last good checkpoint: {self.last_good()}",
            "lower the learning rate, clip gradients (training.clip_norm: 1.0), or use precision fp32",
        )

    def last_good(self) -> str:
        """The newest saved state, in words."""
        newest = self.checkpoints.newest()
        if newest is not None:
            return str(newest)
        return "none, it was too early" if self.path is not None else "kept in memory"

    # --- telling ------------------------------------------------------------------------------------------------------

    def announce(self) -> None:
        """Tell observers that the run begins or goes on."""
        state = self.state
        parameters = sum(parameter.numel() for parameter in state.model.parameters())
        self.observers.notify(
            "on_start",
            Start(
                run_path=self.path, name=self.name, epochs=self.plan.epochs, steps_per_epoch=self.steps_per_epoch,
                epoch=state.position.epoch, step=state.position.step, parameters=parameters,
                device=str(self.plan.device), monitor=state.best.metric, resumed=self.resumed,
            ),
        )  # fmt: skip

    def tell_step(self, items: int, loss: float | None) -> None:
        """Tell observers about the step that was just taken; without items there was no loss here."""
        position = self.state.position
        logged = position.step % self.plan.log_every == 0
        step = Step(
            position.epoch, position.step, position.batch, self.batches, items,
            loss if logged and items else None, self.learning_rate if logged else None,
        )  # fmt: skip
        if logged:
            self.settle_saves(wait=False)
        self.observers.notify("on_step", step)

    def tell_validation(self, batch: int, batches: int) -> None:
        """Tell observers how far scoring is."""
        self.observers.notify("on_validation", Validation(batch, batches))

    def tell_epoch(self, row: dict[str, Any], improved: bool) -> None:
        """Write the history row and tell observers."""
        self.settle_saves(wait=False)
        if self.history is not None:
            self.history.append(row)
        self.observers.notify("on_epoch", Epoch(row["epoch"] - 1, row["step"], row, improved, self.state.best.value))

    @property
    def learning_rate(self) -> float:
        """The rate of the first optimizer."""
        return next(iter(self.state.schedules.values())).learning_rate

    def finish(self) -> RunResult:
        """The result, after scoring."""
        state = self.state
        return RunResult(
            status="finished", epochs=state.position.epoch, steps=state.position.step,
            seconds=time.monotonic() - self.started, scores={name: split.scores for name, split in self.final.items()},
            best_epoch=None if state.best.epoch is None else state.best.epoch + 1, best_value=state.best.value,
            skipped_items=list(self.train.skipped_items) if self.train is not None else [],
        )  # fmt: skip

    def scored_module(self) -> nn.Module:
        """The module that scores are taken from."""
        return self.state.evaluated

    def close(self) -> None:
        """End the loaders' workers, and wait for a checkpoint that is still being written."""
        try:
            self.settle_saves(wait=True)
        except (CheckpointError, RunDirectoryError) as error:  # the run has ended with an error of its own
            logger.warning("%s", error.message)
        if self.train is not None:
            self.train.close()
        for split in self.splits.values():
            split.loader.close()
