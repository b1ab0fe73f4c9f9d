"""The networks and optimizers of a trainer, as one model and one optimizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from weft.errors import ConfigError
from weft.interop.coinstac.overrides import is_overridden
from weft.interop.coinstac.trainer import COINNTrainer
from weft.interop.usercode import called, file_of


class COINNModel(nn.Module):
    """All networks of a trainer, made new.

    Args:
        trainer: whose they are; its `nn` has them afterwards.
    """

    def __init__(self, trainer: COINNTrainer) -> None:
        super().__init__()
        trainer.nn.clear()
        trainer.optimizer.clear()
        if is_overridden(trainer, COINNTrainer, "init_nn"):
            called(
                trainer, "init_nn", trainer.init_nn, init_model=True, init_optim=True, set_devices=True,
                init_weights=True,
            )  # fmt: skip
        else:
            called(trainer, "_init_nn_model", trainer._init_nn_model)
        if not trainer.nn:
            raise ConfigError(f"{file_of(trainer)}: _init_nn_model made no network", 'write: self.nn["model"] = …')
        for name, network in trainer.nn.items():
            if not isinstance(network, nn.Module):
                kind = type(network).__name__
                raise ConfigError(
                    f"{file_of(trainer)}: nn[{name!r}] is a {kind}, not a torch.nn.Module", "derive it from nn.Module"
                )
        for network in trainer.nn.values():
            network.to(trainer.device["gpu"])
        if not is_overridden(trainer, COINNTrainer, "init_nn"):
            called(trainer, "_init_nn_weights", trainer._init_nn_weights, init_weights=True)
        self.networks = nn.ModuleDict({_plain(name): network for name, network in trainer.nn.items()})

    def forward(self, *inputs: Any) -> Any:
        """The first network's outputs."""
        return next(iter(self.networks.values()))(*inputs)


def _plain(name: str) -> str:
    return str(name).replace(".", "_") or "_"


class JointOptimizer(Optimizer):
    """Several optimizers as one: a step is a step of each.

    Args:
        parts: by name.
        instead: called in place of the steps, for a learner with a `step` of its own.
    """

    def __init__(self, parts: Mapping[str, Optimizer], instead: Callable[[], Any] | None = None) -> None:
        self.parts, self.instead = dict(parts), instead
        groups = [group for part in self.parts.values() for group in part.param_groups]
        super().__init__([{"params": list(group["params"])} for group in groups], {})
        self._share()

    def _share(self) -> None:
        """The groups are those of the parts: a learning rate that is set here is set there."""
        self.param_groups = [group for part in self.parts.values() for group in part.param_groups]

    def step(self, closure: Any = None) -> Any:
        """Step each part, in order."""
        if self.instead is not None:
            self.instead()
            return
        for part in self.parts.values():
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """Those of the parts."""
        return {"parts": {name: part.state_dict() for name, part in self.parts.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        for name, part in self.parts.items():
            part.load_state_dict(state_dict["parts"][name])
        self._share()


def joint_optimizer(trainer: COINNTrainer, instead: Callable[[], Any] | None = None) -> JointOptimizer:
    """The optimizers of a trainer, made new.

    Raises:
        ConfigError: there is none, or two train one parameter, or one trains what belongs to no network.
    """
    if not is_overridden(trainer, COINNTrainer, "init_nn"):  # which has made them with the networks
        trainer.optimizer.clear()
        called(trainer, "_init_optimizer", trainer._init_optimizer)
    wrong = [name for name, one in trainer.optimizer.items() if not isinstance(one, Optimizer)]
    if wrong or not trainer.optimizer:
        what = f"optimizer[{wrong[0]!r}] is no torch.optim optimizer" if wrong else "_init_optimizer made no optimizer"
        raise ConfigError(f"{file_of(trainer)}: {what}", 'write: self.optimizer["adam"] = torch.optim.Adam(…)')
    known = {id(one) for network in trainer.nn.values() for one in network.parameters()}
    owner: dict[int, str] = {}
    for name, optimizer in trainer.optimizer.items():
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                _own(trainer, parameter, name, known, owner)
    return JointOptimizer(trainer.optimizer, instead)


def _own(trainer: COINNTrainer, parameter: torch.Tensor, name: str, known: set[int], owner: dict[int, str]) -> None:
    if id(parameter) not in known:
        raise ConfigError(
            f"{file_of(trainer)}: optimizer {name!r} trains a parameter that belongs to no network in nn",
            "put every network into self.nn, so that it is sent, saved and restored",
        )
    if id(parameter) in owner:
        raise ConfigError(
            f"{file_of(trainer)}: optimizers {owner[id(parameter)]!r} and {name!r} train one parameter",
            "give it to one",
        )
    owner[id(parameter)] = name
