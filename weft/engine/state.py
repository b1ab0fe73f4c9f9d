"""Everything a run knows at a step boundary, and nothing else: what a checkpoint holds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from weft.engine.averaging import MovingAverage
from weft.engine.monitoring import BestEpoch
from weft.engine.schedules import Schedule
from weft.engine.seeding import random_state, set_random_state
from weft.engine.strategy import Strategy
from weft.errors import CheckpointError
from weft.tasks import Task

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

FORMAT = 1


@dataclass(slots=True)
class Position:
    """Where a run is.

    Args:
        epoch: the epoch being trained, from 0.
        batch: loader batches of it that were consumed.
        step: optimizer steps taken in all (or skipped by the scaler).
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0


@dataclass(slots=True)
class EpochSums:
    """What the history row of the running epoch is made of; part of the state, so that a resumed epoch has the same
    row.
    """

    loss: float = 0.0
    weight: float = 0.0
    items: int = 0
    skipped_steps: int = 0
    # The epoch's steps are all taken, and running statistics averaged: a run that resumes in validation must not do it
    # twice, and its state is another one than that of the last step.
    buffers_averaged: bool = False
    round_averaged: int = 0  # the step at whose end a round's weights went into the moving average, likewise

    @property
    def mean_loss(self) -> float:
        """Mean training loss of the epoch so far, nan before its first step."""
        return self.loss / self.weight if self.weight else float("nan")


@dataclass(slots=True)
class TrainingState:
    """The state of one participant of a run.

    `model` is the module as the user wrote it; `prepared` is what is called (compiled or wrapped), sharing its
    parameters. `networks` names the parts that have an optimizer of their own. Where each process has only parts of the
    parameters, `mesh` is what they are spread over, and `gathered` are the whole weights, where this is the first
    process and has them in the end.
    """

    model: nn.Module
    prepared: nn.Module
    networks: dict[str, nn.Module]
    optimizers: dict[str, Optimizer]
    schedules: dict[str, Schedule]
    best: BestEpoch
    scaler: torch.amp.GradScaler | None = None
    average: MovingAverage | None = None
    strategy: Strategy | None = None
    task: Task | None = None  # for what it remembers
    position: Position = field(default_factory=Position)
    sums: EpochSums = field(default_factory=EpochSums)
    history: list[dict[str, Any]] = field(default_factory=list)
    finished: bool = False
    mesh: DeviceMesh | None = None
    gathered: dict[str, Tensor] | None = None
    beside: dict[str, int] = field(default_factory=dict)  # counts that whoever drives the run keeps with the state

    @property
    def sharded(self) -> bool:
        """Whether this process has only parts of the parameters, so that all must run forward passes together."""
        return self.mesh is not None

    @property
    def evaluated(self) -> nn.Module:
        """The module that scores are taken from: the moving average where there is one."""
        return self.average.module if self.average is not None else self.prepared

    @property
    def scored_weights(self) -> dict[str, Tensor]:
        """State of the module that scores are taken from, under the names of the user's model."""
        if self.gathered is not None:
            return self.gathered
        module = self.average.module if self.average is not None else self.model
        return module.state_dict()

    def state_dict(self) -> dict[str, Any]:
        """All of it as tensors, numbers, strings, lists and dicts; tensors are the live ones, not copies."""
        state = {
            "format": FORMAT,
            "model": self.model.state_dict(),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "schedules": {name: schedule.state_dict() for name, schedule in self.schedules.items()},
            "scaler": self.scaler.state_dict() if self.scaler is not None else None,
            "average": self.average.module.state_dict() if self.average is not None else None,
            "strategy": self.strategy.state_dict() if self.strategy is not None else None,
            "best": self.best.state_dict(),
            "position": asdict(self.position),
            "sums": asdict(self.sums),
            "history": json.dumps(self.history),  # one string: thousands of rows would be as many objects to write
            "finished": self.finished,
            "random": random_state(),
            **({"beside": dict(self.beside)} if self.beside else {}),
        } | self._memory_of_task()
        return {key: plain(value, key) for key, value in state.items()}

    def private_state(self) -> dict[str, Any]:
        """What is each process's own: its random generators, its part of the running epoch's sums, and what its task
        remembers.
        """
        own = self.strategy.private_state_dict() if self.strategy is not None else {}
        state = {"random": random_state(), "sums": asdict(self.sums)} | ({"strategy": own} if own else {})
        return state | self._memory_of_task()

    def _memory_of_task(self) -> dict[str, Any]:
        if self.task is None or type(self.task).state_dict is Task.state_dict:
            return {}
        return {"task": plain(self.task.state_dict(), "task")}

    def load_state_dict(self, state: dict[str, Any], participant: int = 0, participants: int = 1) -> None:
        """Become the state that was saved, the global generators included.

        Args:
            state: from `state_dict`; where processes shared it, "processes" holds the private state of each.
            participant, participants: which process this is, of how many. Their number may have changed: a new one
                keeps the generators it has, and the first one takes everybody's part of the sums.

        Raises:
            CheckpointError: it was saved by another format or for another model.
        """
        if state.get("format") != FORMAT:
            raise CheckpointError(
                f"the checkpoint has format {state.get('format')!r}, this Weft reads format {FORMAT}",
                "resume with the Weft that wrote it (see provenance.json), or start a new run",
            )
        if self.sharded or "shards" in state:
            from weft.engine.shard_files import placed

            state = placed(state, self)
        try:
            self.model.load_state_dict(state["model"])
            for name, optimizer in self.optimizers.items():
                optimizer.load_state_dict(state["optimizers"][name])
            for name, schedule in self.schedules.items():
                schedule.load_state_dict(state["schedules"][name])
        except (RuntimeError, KeyError, ValueError) as error:
            raise CheckpointError(
                f"the checkpoint does not fit this experiment: {error}",
                "resume with the experiment file of the run directory",
            ) from error
        if self.scaler is not None and state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        if self.average is not None and state["average"] is not None:
            self.average.module.load_state_dict(state["average"])
        if self.strategy is not None and state["strategy"] is not None:
            self.strategy.load_state_dict(state["strategy"])
        self.best.load_state_dict(state["best"])
        self.position = Position(**state["position"])
        self.history = json.loads(state["history"])
        self.finished = state["finished"]
        self.beside.clear()
        self.beside.update(state.get("beside", {}))
        self._load_private(state, participant, participants)

    def _load_private(self, state: dict[str, Any], participant: int, participants: int) -> None:
        """Take this process's part of what each has of its own; see `load_state_dict`."""
        private = state.get("processes") or [{"random": state["random"], "sums": state["sums"]}]
        if len(private) == participants:
            self.sums = EpochSums(**private[participant]["sums"])
            if self.strategy is not None and "strategy" in private[participant]:
                self.strategy.load_private_state_dict(private[participant]["strategy"])
        else:
            parts = [part["sums"] for part in private] if participant == 0 else []
            added = {name: sum(part[name] for part in parts) for name in ("loss", "weight", "items")}
            self.sums = EpochSums(**private[0]["sums"] | added)  # what else there is, is the same in all
        own = private[participant] if len(private) == participants else {}
        if self.task is not None and "task" in (memory := state | own):
            self.task.load_state_dict(memory["task"])
        if participant < len(private):
            set_random_state(private[participant]["random"])


def plain(value: Any, where: str) -> Any:
    """`value` with nothing in it but tensors, numbers, strings, lists, tuples and dicts, as checkpoints hold.

    Args:
        value: what an optimizer, scheduler or strategy calls its state.
        where: key path for the error message.

    Raises:
        CheckpointError: it holds an object that would need pickle.
    """
    if value is None or isinstance(value, Tensor | bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    if isinstance(value, Mapping):
        return {key: plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item, f"{where}[{number}]") for number, item in enumerate(value)]
    if isinstance(value, tuple):
        return tuple(plain(item, f"{where}[{number}]") for number, item in enumerate(value))
    raise CheckpointError(
        f"the state of '{where}' holds a {type(value).__name__}, which a checkpoint cannot keep safely",
        "keep state as tensors, numbers, strings, lists and dicts",
    )
