"""The optimizers of a run, by the name of the network that each one trains."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim import Optimizer

from weft.config import Component, Experiment, Namespace
from weft.engine.uncompiled import spare_compiler
from weft.errors import ConfigError
from weft.tasks import OwnOptimizer, Task

# Optimizers whose loop over all tensors at once (`foreach`) gives the same bits on a CPU as the one over each, which is
# torch's default there. It saves small networks a tenth of the step, but needs memory for copies of the parameters.
_SAME_BITS = (torch.optim.Adam, torch.optim.AdamW)
_SMALL = 1_000_000


def networks_of(task: Task, model: nn.Module) -> dict[str, nn.Module]:
    """The parts of the model that the task updates, by name.

    Raises:
        ConfigError: the task names others than it updates.
    """
    networks = task.networks(model)
    if tuple(networks) != tuple(dict.fromkeys(task.updates)):
        raise ConfigError(
            f"task {type(task).__name__} updates {', '.join(task.updates)}, but its networks are {', '.join(networks)}",
            "`networks` must return a module for each name in `updates`",
        )
    return networks


def build_optimizer(
    experiment: Experiment, namespace: Namespace, task: Task, network: str, module: nn.Module
) -> Optimizer:
    """The optimizer of one network, as the experiment names it.

    Raises:
        ConfigError: none is named for it, it has no parameters, or what is named is no optimizer.
    """
    spare_compiler()
    training = experiment.training
    component = training.optimizers.get(network) or training.optimizer
    if component is None:
        if training.optimizers:
            raise ConfigError(
                f"training.optimizers names {', '.join(training.optimizers)}, but the task also trains '{network}'",
                f"add an optimizer for '{network}'",
            )
        component = Component.parse("Adam")
    parameters = list(module.parameters())
    if not parameters:
        raise ConfigError(f"network '{network}' has no parameters to train", "check the model")
    extra = {"fused": True} if training.fused else {}
    target = namespace.find(component, "optimizer")
    if target is OwnOptimizer:
        return task.optimizer(network)
    unset = not {"foreach", "fused", "differentiable"} & {*component.arguments, *extra}
    small = sum(parameter.numel() for parameter in parameters) <= _SMALL and parameters[0].device.type == "cpu"
    if unset and small and target in _SAME_BITS:
        extra = {"foreach": True}
    optimizer = namespace.build(component, "optimizer", parameters, **extra)
    if not isinstance(optimizer, Optimizer):
        raise ConfigError(f"optimizer {component.name} is not a torch.optim.Optimizer", "name one of torch.optim")
    return optimizer
