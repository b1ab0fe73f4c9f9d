"""A run that is built to be tried out and thrown away: no files, no loader workers, no compilation."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from weft.config import Experiment
from weft.data import Batch, Data
from weft.data.batches import map_tensors
from weft.engine import Membership, Strategy, build_run
from weft.engine.freezing import prepare_modules
from weft.engine.membership import ALONE
from weft.engine.run import Run
from weft.engine.stepping import StepLoss, take_step
from weft.errors import DataError
from weft.tasks import Classification, Regression, Segmentation, Task

SUPERVISED = (Classification, Regression, Segmentation)


def build_trial(
    experiment: Experiment, data: Data, *, strategy: Strategy | None = None, membership: Membership = ALONE
) -> Run:
    """A run of the experiment that loads in this process, is not compiled and writes nothing.

    Args:
        experiment: resolved.
        data: opened.
        strategy, membership: as in `weft.engine.build_run`.
    """
    training = experiment.training.model_copy(update={"compile": False})
    running = experiment.run.model_copy(update={"num_workers": 0, "processes": 1, "observers": [], "cache": "none"})
    changed = experiment.model_copy(update={"training": training, "run": running})
    return build_run(changed, data, strategy=strategy, membership=membership)


def first_batches(run: Run, most: int) -> list[Batch]:
    """The first batches of the first epoch, where the model lives.

    Raises:
        DataError: there is none.
    """
    batches: list[Batch] = []
    if run.train is not None:
        for batch in run.train.epoch(0):
            if batch.size:
                batches.append(run.place(batch))
            if len(batches) == most:
                break
    if not batches:
        raise DataError("training has not one batch", "see dataset.split, training.batch_size and drop_last")
    return batches


def narrowed(batch: Batch, rows: Sequence[int]) -> Batch:
    """Some samples of a batch."""

    def pick(value: Tensor) -> Tensor:
        return value[torch.as_tensor(rows, device=value.device)]

    return Batch(
        map_tensors(batch.inputs, pick),
        map_tensors(batch.targets, pick),
        pick(batch.index) if len(batch.index) == batch.size else batch.index,
        len(rows),
        pick(batch.spacing) if batch.spacing is not None else None,
    )


def is_plain(task: Task) -> bool:
    """Whether a step of the task is one forward pass, one loss and one update."""
    return isinstance(task, SUPERVISED) or type(task).training_step is Task.training_step


def forward(trial: Run, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor | None]:
    """Outputs of a model for a batch, and its regularisation, in the precision of the run."""
    with trial.plan.precision.autocast():
        return trial.task.forward(model, batch)


@contextmanager
def as_it_was(run: Run) -> Iterator[None]:
    """Whatever is trained inside, model, optimizers and random generators are afterwards as they were before."""
    before = copy.deepcopy(run.state.state_dict())
    try:
        yield
    finally:
        run.state.load_state_dict(before)
        for parameter in run.state.model.parameters():
            parameter.grad = None


@dataclass(slots=True)
class Gradient:
    """What was seen of one parameter's gradient in one step.

    Args:
        name: of the parameter in the model.
        module: name of the module it belongs to.
        size: number of its entries.
        reached: whether it has a gradient at all.
        norm: Euclidean norm; nan or inf where it is not finite.
        weight_norm: norm of the parameter.
    """

    name: str
    module: str
    size: int
    reached: bool
    norm: float
    weight_norm: float
    is_weight: bool


def gradients_of(model: nn.Module, names: Sequence[str] | None = None) -> list[Gradient]:
    """The gradients of all parameters that are trained (or of those that are named), as they are now."""
    wanted = None if names is None else set(names)
    result = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad or (wanted is not None and name not in wanted):
            continue
        gradient = parameter.grad
        result.append(
            Gradient(
                name,
                name.rpartition(".")[0],
                parameter.numel(),
                gradient is not None,
                0.0 if gradient is None else float(torch.linalg.vector_norm(gradient.detach().float())),
                float(torch.linalg.vector_norm(parameter.detach().float())),
                parameter.ndim > 1,
            )
        )
    return result


@dataclass(slots=True)
class TrialStep:
    """What one optimizer step of a trial was like."""

    loss: float
    seconds: float
    gradients: list[Gradient] = field(default_factory=list)


def trial_step(run: Run, batch: Batch) -> TrialStep:
    """One step as the engine takes it, with the gradients that each optimizer saw.

    Raises:
        NotFiniteError: the loss is not finite.
    """
    seen: dict[str, Gradient] = {}
    names = {parameter: name for name, parameter in run.state.model.named_parameters()}

    def note(optimizer: Optimizer, *_: Any) -> None:
        own = [names[p] for group in optimizer.param_groups for p in group["params"] if p in names]
        seen.update({gradient.name: gradient for gradient in gradients_of(run.state.model, own)})

    handles = [optimizer.register_step_pre_hook(note) for optimizer in run.state.optimizers.values()]
    started = time.perf_counter()
    try:
        done = _driven(run, batch)
        if run.plan.device.type == "cuda":
            torch.cuda.synchronize(run.plan.device)
    finally:
        for handle in handles:
            handle.remove()
    run.state.position.step += 1
    return TrialStep(float(done.loss), time.perf_counter() - started, list(seen.values()))


def _driven(run: Run, batch: Batch) -> StepLoss:
    steps = take_step(run, (batch,))
    try:
        next(steps)
    except StopIteration as end:
        done: StepLoss = end.value
        return done
    raise AssertionError("a run alone exchanges nothing")


def ready(run: Run) -> nn.Module:
    """The model in training mode, frozen as in the first epoch."""
    prepare_modules(run)
    return run.state.prepared
