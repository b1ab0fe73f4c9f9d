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
from weft.interop.scorch.contract import broken, called
from weft.interop.scorch.literals import parse_arguments
from weft.interop.usercode import file_of


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
        self._began, self._made = False, [module.training for module in self.network.modules()]
        self.checkpoint = checkpoint
        # not registered as modules: the Socket may be one, and what it trains lies in the network as a rule
        object.__setattr__(self, "socket", called(socket, "Socket", socket, self.network))
        for name in ("criterion", "metrics"):
            if not callable(getattr(self.socket, name, None)):
                raise ConfigError(f"{file_of(socket)}: Socket has no method {name}", "see the contract in the docs")
        self._names, beside = _places(self.network, _trained_modules(self.socket))
        self.beside = nn.ModuleList(beside)
        self._freeze_others()
        if checkpoint is not None:
            restore_network(self.network, Path(checkpoint))

    socket: Any

    @property
    def trained(self) -> nn.Module:
        """The modules that the Socket names to be trained, or the network."""
        if self._names is None:
            return self.network
        # Looked up by name: others of the same parameters may stand in their places by now, as for several processes.
        return nn.ModuleList([*(self.network.get_submodule(name) for name in self._names), *self.beside])

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
        """Training mode for what is trained; everything else is in evaluation mode, or, strictly, in the mode it was
        made in from the first training on.
        """
        if self.strict and mode and not self._began:
            for module, training in zip(self.network.modules(), self._made, strict=True):
                module.training = training
        self._began = self._began or mode
        if not (self.strict and self._began):
            super().train(False)
        self.training = mode
        self.trained.train(mode)
        return self

    def _freeze_others(self) -> None:
        """Leave gradients to what the optimizer has and, unless strictly, the Socket names."""
        optimizer = getattr(self.socket, "optimizer", None)
        moved = {id(parameter) for parameter in self.trained.parameters()}
        if optimizer is not None:
            mine = {id(parameter) for group in self._groups(optimizer) for parameter in group["params"]}
            moved = mine if self.strict else moved & mine
        if not moved:
            raise ConfigError(
                f"{file_of(self.socket)}: there is nothing to train: Socket.optimizer has no parameter of "
                "trainable_modules",
                "give the optimizer the parameters of these modules",
            )
        for parameter in self.parameters():
            if id(parameter) not in moved:
                parameter.requires_grad_(False)

    def _groups(self, optimizer: Any) -> list[dict[str, Any]]:
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
        return optimizer.param_groups


def _places(network: nn.Module, modules: list[nn.Module] | None) -> tuple[list[str] | None, list[nn.Module]]:
    """Names of modules within the network, and those that lie beside it; None when nothing is named."""
    if modules is None:
        return None, []
    names = {id(module): name for name, module in network.named_modules()}
    own = {id(parameter) for parameter in network.parameters()}
    inside: list[str] = []
    beside: list[nn.Module] = []
    for module in modules:
        children = list(module.children())
        if id(module) in names:
            inside.append(names[id(module)])
        elif children and all(id(parameter) in own for parameter in module.parameters()):  # a container of its own
            more, further = _places(network, children)
            inside += more or []
            beside += further
        else:
            beside.append(module)
    return inside, beside


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
