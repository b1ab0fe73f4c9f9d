"""scorch's Network and Socket as a model of Weft's."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from weft.errors import ConfigError
from weft.interop.scorch.checkpoints import restore_network
from weft.interop.scorch.contract import broken, called, file_of
from weft.interop.scorch.literals import parse_arguments


class ScorchModel(nn.Module):
    """A Network with its Socket; called with a list of inputs it gives the list of outputs.

    Args:
        network: the class Network.
        socket: the class Socket.
        arguments: of Network, as `--model-args`.
        checkpoint: a checkpoint of scorch's whose weights, and optimizer, are the beginning.
        cuda: move the network to the GPU before its Socket is made, where there is one.
        strict: modules that are not trained keep the mode they have, as in the original.
    """

    def __init__(
        self,
        network: type[nn.Module],
        socket: type,
        arguments: str = "",
        checkpoint: str | None = None,
        cuda: bool = False,
        strict: bool = False,
    ) -> None:
        super().__init__()
        made = called(network, "Network", network, **parse_arguments(arguments, "--model-args"))
        if not isinstance(made, nn.Module):
            raise broken(network, f"Network is a {type(made).__name__}, not a torch.nn.Module", "Network")
        self.network = made.cuda() if cuda and torch.cuda.is_available() else made
        self.strict = strict
        self.checkpoint = checkpoint
        # not registered as modules: the Socket may be one, and what it trains lies in the network as a rule
        object.__setattr__(self, "socket", called(socket, "Socket", socket, self.network))
        for name in ("criterion", "metrics"):
            if not callable(getattr(self.socket, name, None)):
                raise ConfigError(f"{file_of(socket)}: Socket has no method {name}", "see the contract in the docs")
        object.__setattr__(self, "_trained", _trained_modules(self.socket))
        own = {id(parameter) for parameter in self.network.parameters()}
        beside = [m for m in self._trained or () if any(id(p) not in own for p in m.parameters())]
        self.beside = nn.ModuleList(beside)
        self._check_optimizer()
        if not strict and self._trained is not None:
            self._freeze_others()
        if checkpoint is not None:
            restore_network(self.network, Path(checkpoint))

    socket: Any
    _trained: list[nn.Module] | None

    @property
    def trained(self) -> nn.Module:
        """What is trained: the modules that the Socket names, or the network."""
        return self.network if self._trained is None else nn.ModuleList(self._trained)

    def forward(self, inputs: list[Any]) -> list[Tensor]:
        """The outputs of a batch.

        Args:
            inputs: tensors [n, ...], one for each input.

        Raises:
            DataError: the network fails, or returns no list of tensors.
        """
        # A `__call__` of the user's own stands for `forward`; torch's own also runs hooks.
        plain = type(self.network).__call__ is nn.Module.__call__
        outputs = called(self.network, "Network.forward", self.network if plain else self.network.forward, inputs)
        return list_of_outputs(self.network, "forward", outputs)

    def train(self, mode: bool = True) -> Self:
        """Training mode for what is trained; everything else is in evaluation mode, or, strictly, keeps its mode."""
        if self._modules.get("beside") is None or getattr(self, "_trained", None) is None:
            return super().train(mode)
        if not self.strict:
            super().train(False)
        self.training = mode
        self.trained.train(mode)
        return self

    def _freeze_others(self) -> None:
        trained = {id(parameter) for parameter in self.trained.parameters()}
        for parameter in self.network.parameters():
            if id(parameter) not in trained:
                parameter.requires_grad_(False)

    def _check_optimizer(self) -> None:
        optimizer = getattr(self.socket, "optimizer", None)
        if optimizer is None:
            return
        if not isinstance(optimizer, Optimizer):
            raise ConfigError(
                f"{file_of(self.socket)}: Socket.optimizer is a {type(optimizer).__name__}",
                "make it a torch.optim optimizer, or leave it out",
            )
        known = {id(parameter) for parameter in self.parameters()}
        for group in optimizer.param_groups:
            if any(id(parameter) not in known for parameter in group["params"]):
                raise ConfigError(
                    f"{file_of(self.socket)}: Socket.optimizer trains parameters that belong neither to Network nor to "
                    "trainable_modules",
                    "list the modules that have them: self.trainable_modules = torch.nn.ModuleList([...])",
                )


def list_of_outputs(network: nn.Module, method: str, outputs: Any) -> list[Tensor]:
    """What a method of a Network returned.

    Raises:
        DataError: it is no list of tensors.
    """
    if not isinstance(outputs, list | tuple):
        raise broken(network, f"Network.{method} returned a {type(outputs).__name__}, not a list", "Network")
    wrong = next((part for part in outputs if not isinstance(part, Tensor)), None)
    if wrong is not None or not outputs:
        what = "an empty list" if not outputs else f"a list with a {type(wrong).__name__}"
        raise broken(network, f"Network.{method} returned {what}", "Network")
    return list(outputs)


def _trained_modules(socket: Any) -> list[nn.Module] | None:
    """`trainable_modules` as the README calls it, or `train_modules` as the code did."""
    for name in ("trainable_modules", "train_modules"):
        found = getattr(socket, name, None)
        if found is None:
            continue
        modules = [found] if isinstance(found, nn.Module) and not isinstance(found, nn.ModuleList) else found
        if not isinstance(modules, Iterable) or not all(isinstance(module, nn.Module) for module in modules):
            raise ConfigError(
                f"{file_of(socket)}: Socket.{name} is a {type(found).__name__}",
                f"write: self.{name} = torch.nn.ModuleList([...])",
            )
        return list(modules)
    return None
