"""`training.batch_size: auto`: the largest batch that fits into memory, found by trying before training begins."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.modules.batchnorm import _BatchNorm

from weft.actions.beginning import begun_already, require_training_data
from weft.actions.checking.estimates import size as words
from weft.actions.checking.trial import build_trial, ready, trial_step
from weft.actions.opening import one_fold, open_experiment_data
from weft.config import Experiment, load_experiment
from weft.data import Data, make_loader
from weft.data.memory import available_memory
from weft.engine import pick_device
from weft.engine.determinism import reproducible
from weft.engine.exchange import exchanging
from weft.engine.memory import PeakMemory
from weft.engine.processes import find_place, processes_here
from weft.errors import ConfigError, Problem
from weft.runs import RunDirectory

logger = logging.getLogger("weft")

# How much of the free memory a step may take. A CPU shares it with loader workers, caches and other programs, and what
# is too much there ends in swapping or a kill; on an accelerator the allocator needs some room for fragments.
_CPU_SHARE, _DEVICE_SHARE = 0.6, 0.9
_CAUTION = 1.15  # a batch is tried only if what it should need, times this, is there
_MOST_POWER = 2.0  # some losses compare all items of a batch with all others
_STEP = 1.5  # between two sizes that are tried, at least


@dataclass(frozen=True, slots=True)
class BatchSize:
    """What was found.

    Args:
        batch_size: items of a batch, over all processes.
        accumulate: batches that make a step.
        needed: bytes that a step took at most.
        reason: why not more, in words.
    """

    batch_size: int
    accumulate: int
    needed: int
    reason: str


def is_auto(experiment: Experiment) -> bool:
    """Whether the batch size is still to be found."""
    return experiment.training.batch_size == "auto"


def settle(experiment: Experiment, *, run: Path | str | None = None, data: Data | None = None) -> Experiment:
    """The experiment with a number for `batch_size: auto`; one that has a number is returned as it is.

    Among several processes the first one tries, and tells the others.

    Args:
        experiment: resolved.
        run: directory of a run that is gone on with, if it has begun: its number is taken.
        data: of the experiment; opened where they are not given.

    Raises:
        ConfigError: not one item fits, or training fails on it.
        ExchangeError: the first process found nothing, or is gone.
    """
    if not is_auto(experiment):
        return experiment
    place = find_place()
    numbers = (0, 0)
    if place is None or place.first:
        numbers = _stored(experiment, run) or _found(experiment, data, experiment.run.processes)
    if dist.is_initialized():
        shared = torch.tensor(numbers, dtype=torch.int64)
        with exchanging("the batch size"):
            dist.broadcast(shared, 0)
        numbers = (int(shared[0]), int(shared[1]))
    return with_numbers(experiment, *numbers)


def with_numbers(experiment: Experiment, batch_size: int, accumulate: int) -> Experiment:
    """The experiment with these two."""
    changes = {"batch_size": batch_size, "accumulate": accumulate}
    return experiment.model_copy(update={"training": experiment.training.model_copy(update=changes)})


def _stored(experiment: Experiment, run: Path | str | None) -> tuple[int, int] | None:
    """The numbers of a run that has begun."""
    if run is None or not begun_already(run):
        return None
    began = load_experiment(RunDirectory.open(run).experiment_file, base=experiment.base, check=False).training
    return began.items_per_batch, began.accumulate


def _found(experiment: Experiment, data: Data | None, processes: int) -> tuple[int, int]:
    place = find_place()
    if data is None:
        data = open_experiment_data(one_fold(experiment))
    require_training_data(data)
    found = find_batch_size(experiment, data, processes=processes if place is None else place.world)
    per_step = f", {found.accumulate} batches to a step" if found.accumulate > 1 else ""
    logger.info("batch_size: auto is %d%s: %s", found.batch_size, per_step, found.reason)
    return found.batch_size, found.accumulate


def find_batch_size(experiment: Experiment, data: Data, *, processes: int = 1, limit: int | None = None) -> BatchSize:
    """The largest batch that a training step fits into memory with, found by taking steps on the first items.

    Sizes grow from one item on. On a CPU a size is tried only if what the sizes before took, extrapolated, leaves
    room, so that the machine is never driven into swapping; on CUDA also running out of memory ends the search. Random
    generators are afterwards what they were.

    Args:
        experiment: resolved, with `batch_size: auto`. Sizes are powers of two, three times those, or what divides
            `effective_batch_size`.
        data: opened.
        processes: how many share a batch; those of one machine share its memory.
        limit: bytes that a step may take; by default a share of what is free.

    Raises:
        ConfigError: not one item fits.
        WeftError: what training raises on the first items.
    """
    training, device = experiment.training, pick_device(experiment.run.device)
    with reproducible(threads=torch.get_num_threads(), deterministic=training.deterministic, device=device):
        trial = _Trial(with_numbers(experiment, 1, 1), data, processes, limit)
        sizes = candidates(len(data.splits["train"]), training.effective_batch_size)
        try:
            fitting, reason = trial.largest(sizes)
        finally:
            trial.close()
    accumulate = training.accumulate
    if training.effective_batch_size is not None:
        accumulate = training.effective_batch_size // fitting
    return BatchSize(fitting, accumulate, trial.needed[fitting], reason)


def candidates(items: int, effective: int | None) -> list[int]:
    """Sizes that are tried, in order: powers of two and three times those, up to the number of items, or what divides
    `effective`.
    """
    if effective is None:
        sizes = {factor * 2**power for power in range(items.bit_length()) for factor in (1, 3)}
        return sorted(size for size in sizes if size <= items)
    chosen: list[int] = []
    for size in range(min(items, effective), 0, -1):
        if effective % size == 0 and (not chosen or size == 1 or chosen[-1] >= _STEP * size):
            chosen.append(size)
    return chosen[::-1]


class _Trial:
    """Steps of growing batches, and what each of them needed."""

    def __init__(self, experiment: Experiment, data: Data, processes: int, limit: int | None) -> None:
        self.split, self.seed, self.processes = data.splits["train"], experiment.seed, processes
        self.drop_last = experiment.training.drop_last
        self.run = build_trial(experiment, data)
        self.weights = {name: tensor.clone() for name, tensor in self.run.state.model.state_dict().items()}
        self.device = self.run.plan.device
        self.memory = PeakMemory(self.device)
        self.needed: dict[int, int] = {}
        self.given_limit, self.limit = limit, limit if limit is not None else self._room()

    def _room(self) -> int:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            free, _ = torch.cuda.mem_get_info(self.device)
            return int(_DEVICE_SHARE * free)
        return int(_CPU_SHARE * available_memory()) // processes_here(self.processes)

    def largest(self, sizes: Sequence[int]) -> tuple[int, str]:
        """The largest size that fits, and why not more."""
        best: int | None = None
        for size in sizes:
            if self._leaves_one(size):
                continue
            expected = self._expected(size)
            if expected > self.limit and best is not None:
                return best, self._told(best, f"{size} should need {words(expected)} of {words(self.limit)} at hand")
            try:
                fits = self._try(size)
            except ConfigError:
                if self._share(size) > 1 or size == sizes[-1]:
                    raise
                continue  # one item is too few where a network normalises over the batch
            if not fits and best is None:
                raise ConfigError(
                    Problem(
                        f"a training step on {size} item{'' if size == 1 else 's'} needs more memory than there is: "
                        f"{words(self.limit)}",
                        "use smaller items (crops), a smaller model, run.activation_checkpointing, or precision: bf16",
                        ("training", "batch_size"),
                    )
                )
            if not fits and best is not None:
                return best, self._told(best, f"{size} need more than {words(self.limit)}")
            best = size
        if best is None:
            raise ConfigError(
                Problem(
                    f"with {len(self.split)} items every batch size leaves one item for the last batch of an epoch, "
                    "which is too few to normalise over",
                    "set training.drop_last: true",
                    ("training", "batch_size"),
                )
            )
        return best, self._told(best, "and it is the largest there can be")

    def _leaves_one(self, size: int) -> bool:
        """Whether an epoch would end with a batch of one item, and the network normalises over batches."""
        if self.drop_last or size == 1 or len(self.split) % size != 1:
            return False
        return any(isinstance(module, _BatchNorm) for module in self.run.state.model.modules())

    def _share(self, size: int) -> int:
        """Items of a batch that a process holds."""
        return -(-size // self.processes)

    def _told(self, size: int, why: str) -> str:
        return f"a step takes {words(self.needed[size])}, {why}"

    def _expected(self, size: int) -> int:
        """Bytes that a size should need: in proportion to the last one, or as it grew from the one before."""
        known = [(tried, needed) for tried, needed in self.needed.items() if needed]
        if not known:
            return 0
        last, needed = known[-1]
        power = 1.0
        if len(known) > 1:
            before, less = known[-2]
            power = min(max(1.0, math.log(needed / less) / math.log(last / before)), _MOST_POWER)
        return int(_CAUTION * needed * (size / last) ** power)

    def _try(self, size: int) -> bool:
        """Whether a step on the first items fits; a process's share of a batch is what it must hold."""
        try:
            if not self.needed:  # the first step loads libraries and makes the optimizer's state
                self._step(size)
                self.limit = self.given_limit if self.given_limit is not None else self._room()
            self.memory.restart()
            self._step(size)
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            return False
        finally:
            self._forget_gradients()
        self.needed[size] = self.memory.growth
        return self.needed[size] <= self.limit

    def _step(self, size: int) -> None:
        """A step on the first items, from the weights that training begins with."""
        self.run.state.model.load_state_dict(self.weights)
        loader = make_loader(self.split, batch_size=self._share(size), seed=self.seed, shuffle=False)
        batch = next(iter(loader.epoch(0)))
        if batch.size:  # else all of these items are bad, and such are skipped
            ready(self.run)
            trial_step(self.run, self.run.place(batch))

    def _forget_gradients(self) -> None:
        for parameter in self.run.state.model.parameters():
            parameter.grad = None

    def close(self) -> None:
        """Give everything back."""
        self.run.close()
        del self.run, self.weights
        self.memory.restart()


def _is_out_of_memory(error: BaseException) -> bool:
    """An accelerator's own error, or that of an allocator on the CPU (under a limit as `ulimit -v` sets it)."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
