"""What training will take: memory, disk and time, from what a few steps took."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from weft.actions.checking.findings import Findings
from weft.actions.checking.samples import Looked
from weft.config import Experiment
from weft.data import Data
from weft.data.batches import map_tensors
from weft.data.memory import available_memory
from weft.engine.run import Run
from weft.monitor.words import duration

_FIXED_FILES = 4 * 2**20  # report, logs, TensorBoard, code
_PROCESS = 300 * 2**20  # Python with its libraries
_TIGHT = 0.9


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured on the way.

    Args:
        step: seconds of a training step.
        evaluation: seconds of scoring a batch.
        kept: bytes that autograd keeps of a batch.
        peak: bytes that the accelerator held at most; None on a CPU.
    """

    step: float
    evaluation: float
    kept: int
    peak: int | None


def estimate(
    experiment: Experiment, data: Data, run: Run, looked: Mapping[str, Looked], measured: Measured, findings: Findings
) -> dict[str, Any]:
    """Memory, disk and time; what does not fit becomes a finding.

    Returns:
        {"memory": {part: bytes}, "disk": {part: bytes}, "time": {part: seconds}}.
    """
    memory = memory_of(experiment, run, [data], measured)
    disk = disk_of(experiment, run)
    check_room(memory, disk, findings, measured)
    batches = {split: len(scored.loader) for split, scored in run.splits.items()}
    loading = {split: seen.seconds_per_item * len(seen.split) for split, seen in looked.items()}
    trained = len(run.train) if run.train is not None else 0
    time = time_of(experiment, Work(run.steps_per_epoch, trained, batches, loading), measured)
    return {"memory": memory, "disk": disk, "time": time}


def memory_of(experiment: Experiment, run: Run, data: Sequence[Data], measured: Measured) -> dict[str, int]:
    """Bytes of each part, where several such runs live in one process, each on data of its own, and take turns."""
    state = run.state
    parameters = size_of(list(state.model.parameters()))
    trained = size_of([parameter for parameter in state.model.parameters() if parameter.requires_grad])
    own = {
        "parameters": parameters + size_of(list(state.model.buffers())),
        "gradients": trained,
        "optimizer": sum(size_of(optimizer.state) for optimizer in state.optimizers.values()),
        "moving_average": parameters if state.average is not None else 0,
        "checkpoint": _state_size(run) if experiment.run.checkpoint_async else 0,
    }
    parts = {
        **{name: bytes_of_one * len(data) for name, bytes_of_one in own.items()},
        "kept_for_backward": measured.kept,
        "data": sum(size_of(split.arrays) for part in data for split in part.splits.values()),
    }
    parts["total"] = sum(parts.values()) + (_PROCESS if run.plan.device.type == "cpu" else 0)
    if measured.peak is not None:
        parts["accelerator_peak"] = measured.peak
    return parts


def disk_of(experiment: Experiment, run: Run, *, runs: int = 1, keep_last: int | None = None) -> dict[str, int]:
    """Bytes of each part of so many run directories, each of which keeps `keep_last` states."""
    weights, whole = size_of(run.state.model.state_dict()), _state_size(run)
    states = (experiment.run.keep_last if keep_last is None else keep_last) + 1  # one is being written
    kept = states * whole + experiment.run.keep_best * weights
    parts = {"checkpoints": runs * kept, "weights": runs * weights, "files": runs * _FIXED_FILES}
    parts["total"] = sum(parts.values())
    parts["free"] = shutil.disk_usage(existing(experiment.path(experiment.run.output))).free
    return parts


def _state_size(run: Run) -> int:
    state = run.state
    weights = size_of(state.model.state_dict())
    optimizers = sum(size_of(optimizer.state) for optimizer in state.optimizers.values())
    return weights * (2 if state.average is not None else 1) + optimizers


def existing(path: Path) -> Path:
    """The folder itself, or the nearest above it that is there."""
    return next(folder for folder in (path, *path.parents) if folder.exists())


@dataclass(frozen=True, slots=True)
class Work:
    """What there is to do.

    Args:
        steps_per_epoch: optimizer steps.
        trained: batches of training of an epoch, of all who train.
        scored: batches of each split.
        loading: seconds that loading each split takes.
    """

    steps_per_epoch: int
    trained: int
    scored: Mapping[str, int]
    loading: Mapping[str, float]


def time_of(experiment: Experiment, work: Work, measured: Measured) -> dict[str, float | int]:
    """Seconds of a step, an epoch and all of it."""
    training = experiment.training
    train = work.trained * measured.step + work.loading.get("train", 0.0)
    scoring = {
        split: batches * measured.evaluation + work.loading.get(split, 0.0) for split, batches in work.scored.items()
    }
    validation = scoring.get("validation", 0.0)
    steps_per_epoch = max(work.steps_per_epoch, 1)
    epochs = epochs_of(experiment, steps_per_epoch)
    total = epochs * train + -(-epochs // training.evaluate_every) * validation + sum(scoring.values())
    return {
        "seconds_per_step": measured.step,
        "steps_per_epoch": work.steps_per_epoch,
        "epochs": epochs,
        "epoch": train + validation / training.evaluate_every,
        "total": total,
        "loading_share": sum(work.loading.values()) / max(train + sum(scoring.values()), 1e-9),
    }


def epochs_of(experiment: Experiment, steps_per_epoch: int) -> int:
    """How many epochs are begun."""
    training = experiment.training
    return training.epochs if training.steps is None else min(training.epochs, -(-training.steps // steps_per_epoch))


def steps_of(experiment: Experiment, steps_per_epoch: int) -> int:
    """How many optimizer steps training takes where nothing ends it earlier."""
    steps = epochs_of(experiment, steps_per_epoch) * steps_per_epoch
    return steps if experiment.training.steps is None else min(experiment.training.steps, steps)


def check_room(memory: Mapping[str, int], disk: Mapping[str, int], findings: Findings, measured: Measured) -> None:
    """What does not fit becomes a finding."""
    if disk["total"] > disk["free"]:
        findings.error(
            "disk", "run.output", f"the run will write about {size(disk['total'])}, but {size(disk['free'])} are free",
            "make room, or set run.output to another disk", needed=disk["total"], free=disk["free"],
        )  # fmt: skip
    if measured.peak is not None:
        return  # the steps went well, so it fits
    free = available_memory()
    if memory["total"] > _TIGHT * free:
        findings.warning(
            "memory", "run", f"training will take about {size(memory['total'])} of memory, but {size(free)} are free",
            "use smaller batches with training.accumulate, or a smaller model", needed=memory["total"], free=free,
        )  # fmt: skip


def size_of(value: Any) -> int:
    """Bytes of all tensors inside lists, tuples and dicts."""
    sizes: list[int] = []

    def note(tensor: Tensor) -> Tensor:
        sizes.append(tensor.numel() * tensor.element_size())
        return tensor

    map_tensors(dict(value) if isinstance(value, Mapping) else value, note)
    return sum(sizes)


def size(amount: float) -> str:
    """Bytes in words."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024 or unit == "GiB":
            return f"{amount:.0f} {unit}" if unit == "B" or amount >= 100 else f"{amount:.1f} {unit}"
        amount /= 1024
    raise AssertionError("unreachable")


def words(estimates: Mapping[str, Mapping[str, float]]) -> list[str]:
    """The estimates in sentences."""
    if not estimates:
        return []
    memory, disk, time = estimates["memory"], estimates["disk"], estimates["time"]
    step = f"{time['steps_per_epoch']} steps of {1000 * time['seconds_per_step']:.3g} ms"
    shares = ("parameters", "optimizer", "kept_for_backward", "data")
    parts = ", ".join(f"{size(memory[part])} {part.replace('_', ' ')}" for part in shares)
    lines = [
        f"time: {duration(time['epoch'])} per epoch ({step}), {duration(time['total'])} for {time['epochs']} epochs",
        f"memory: {size(memory['total'])} ({parts})",
        f"disk: {size(disk['total'])} for the run, {size(disk['free'])} free",
    ]
    if "accelerator_peak" in memory:
        lines.append(f"accelerator: {size(memory['accelerator_peak'])} at most in the steps that were tried")
    return lines


def peak_memory(device: torch.device, batches: Sequence[Any]) -> int | None:
    """Bytes that a CUDA device held at most; None elsewhere."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" and batches else None
