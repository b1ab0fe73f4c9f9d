"""The network of an experiment, on its device and ready to be called."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import nn

from weft.config import Experiment, Namespace, TrainingConfig
from weft.data import Data, make_loader
from weft.engine.batch_norm import with_global_statistics
from weft.engine.compression import gradients_among_processes
from weft.engine.freezing import check_freezing
from weft.engine.fully_sharded import ShardedGradients, shard
from weft.engine.membership import Membership
from weft.engine.recomputing import recompute_blocks
from weft.engine.run import Plan
from weft.engine.seeding import outer_randomness_kept, participant_seed, seed_everything
from weft.engine.strategy import Strategy
from weft.engine.weights import load_pretrained
from weft.errors import ConfigError
from weft.tasks import Task

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


@dataclass(frozen=True, slots=True)
class Network:
    """A network as a run needs it.

    Args:
        model: the module, with the names of the user's model.
        prepared: what is called: compiled, or the model itself.
        strategy: what participants exchange, None where there is nothing.
        mesh: of the processes that keep parts of it, None where each has all of it.
    """

    model: nn.Module
    prepared: nn.Module
    strategy: Strategy | None
    mesh: DeviceMesh | None


def build_network(
    experiment: Experiment,
    namespace: Namespace,
    device: torch.device,
    strategy: Strategy | None,
    membership: Membership,
) -> Network:
    """Make the network; the global generators are seeded, then draw its weights.

    Args:
        experiment, namespace, device: what is built, and where.
        strategy: what participants exchange; None for what the experiment asks of its processes.
        membership: which one this is, and whether they are processes of one run. All begin with the same weights; what
            is random afterwards is each one's own.

    Raises:
        ConfigError: the parts do not fit.
    """
    training = experiment.training
    among_processes = membership.shares_directory
    sharded = among_processes and dist.is_initialized() and experiment.run.sharding == "fsdp"
    seed_everything(participant_seed(experiment.seed, 0))
    model = build_model(experiment, namespace, torch.device("cpu") if sharded else device)
    check_freezing(model, experiment.model)
    if membership.participant:
        seed_everything(participant_seed(experiment.seed, membership.participant))
    if among_processes and strategy is None and not sharded:
        strategy = gradients_among_processes(model, training)
    if among_processes and training.batch_norm == "global":
        model = with_global_statistics(model)
    if experiment.run.activation_checkpointing:
        recompute_blocks(model, experiment.run.activation_checkpointing)
    if not sharded:
        return Network(model, prepare(model, training), strategy, None)
    mesh = shard(model, device)
    return Network(model, prepare(model, training), ShardedGradients(training.items_per_batch), mesh)


def pick_device(name: str) -> torch.device:
    """The device that `run.device` names; "auto" takes CUDA, then MPS, then the CPU.

    Raises:
        ConfigError: it is not there.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= (count := torch.cuda.device_count()):
        there = f"{count} CUDA device{'' if count == 1 else 's'}" if count else "no CUDA device"
        raise ConfigError(f"run.device is {name}, but this machine has {there}", "use `run.device: auto`")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("run.device is mps, but this machine has no such device", "use `run.device: auto`")
    return device


def build_model(experiment: Experiment, namespace: Namespace, device: torch.device) -> nn.Module:
    """The network on its device, with pretrained weights where the experiment names some."""
    model = namespace.build(experiment.model.component, "model")
    if not isinstance(model, nn.Module):
        raise ConfigError(
            f"model {experiment.model.component.name} is a {type(model).__name__}, not a torch.nn.Module",
            "name a class derived from torch.nn.Module",
        )
    if experiment.model.weights is not None:
        load_pretrained(model, experiment.path(experiment.model.weights))
    model = model.to(device)
    if experiment.training.channels_last:
        for parameter in model.parameters():  # 5 dimensions have a format of their own
            if parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
            elif parameter.ndim == 5:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last_3d)
    return model


def prepare(model: nn.Module, training: TrainingConfig) -> nn.Module:
    """The module that is called: compiled where the experiment asks for it, sharing the model's parameters."""
    return torch.compile(model, mode=training.compile_mode) if training.compile else model  # type: ignore[return-value]


def class_names_of(task: Task, model: nn.Module, data: Data, plan: Plan) -> list[str] | None:
    """Names for classes that the data do not tell (labels inside images, any torch dataset): one per output of the
    model.

    The model is asked about one item, in evaluation mode; neither its state nor the random generators are moved.
    """
    if task.target_kind != "class":
        return None
    split = next(iter(data.splits.values()))
    loader = make_loader(split, batch_size=1, seed=0, shuffle=False, augment=False)
    batch = next(iter(loader.epoch(0))).to(plan.device)
    was_training = model.training
    with outer_randomness_kept(), torch.no_grad(), plan.precision.autocast():
        outputs, _ = task.forward(model.eval(), batch)
    model.train(was_training)
    if outputs.ndim < 2:
        return ["0", "1"]
    return [str(number) for number in range(max(outputs.shape[1], 2))]
