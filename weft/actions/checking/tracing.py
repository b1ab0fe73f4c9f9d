"""Watching what passes through the layers of a network: the place where shapes break, and bytes kept for backward."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils.hooks import RemovableHandle

_KEPT = 6  # layers that are told of before the one that broke


@dataclass(slots=True)
class ShapeTrace:
    """Inside this context every module's inputs and outputs are noted, whoever calls it.

    Attributes:
        passed: layers that were left, in order: the module and the shape of its outputs.
    """

    passed: list[tuple[nn.Module, str]] = field(default_factory=list)
    _open: list[tuple[nn.Module, str]] = field(default_factory=list)
    _handles: list[RemovableHandle] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._handles = [
            register_module_forward_pre_hook(self._entered),
            register_module_forward_hook(self._left),
        ]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()

    def _entered(self, module: nn.Module, inputs: Any) -> None:
        if not self._open:
            self.passed.clear()  # a new pass
        self._open.append((module, shapes(inputs)))

    def _left(self, module: nn.Module, inputs: Any, outputs: Any) -> None:
        while self._open and self._open.pop()[0] is not module:
            pass  # modules inside that were left by an exception which the model caught
        if next(module.children(), None) is None:
            self.passed.append((module, shapes(outputs)))

    @property
    def broken(self) -> bool:
        """Whether a module was entered and not left."""
        return bool(self._open)

    def place(self) -> tuple[str, str, list[str]]:
        """Where it broke: the innermost module that was entered and not left, what it was given, and how the data got
        there.
        """
        root = self._open[0][0]
        names = {module: name for name, module in root.named_modules()}
        module, given = self._open[-1]
        way = [f"{names.get(layer, '?')} ({type(layer).__name__}) -> {shape}" for layer, shape in self.passed[-_KEPT:]]
        return named(names.get(module, ""), module), given, way


def named(name: str, module: nn.Module) -> str:
    """A layer in a message: its name in the model, its type and its settings."""
    settings = module.extra_repr()
    kind = f"{type(module).__name__}({settings})" if settings and len(settings) < 100 else type(module).__name__
    return f"layer '{name}', {kind}" if name else f"the model itself, {kind}"


def shapes(values: Any) -> str:
    """The shapes of tensors inside tuples, lists and dicts."""
    if isinstance(values, Tensor):
        return str(list(values.shape))
    if isinstance(values, tuple | list):
        return ", ".join(text for value in values if (text := shapes(value)))
    if isinstance(values, dict):
        return ", ".join(f"{key}: {shapes(value)}" for key, value in values.items())
    return ""


@dataclass(slots=True)
class KeptBytes:
    """How many bytes autograd keeps for the backward pass."""

    total: int = 0


@contextmanager
def bytes_kept_for_backward(model: nn.Module) -> Iterator[KeptBytes]:
    """Count what autograd keeps of a forward pass, each storage once and without the parameters themselves."""
    kept = KeptBytes()
    seen = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.layout == torch.strided:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in seen:
                seen.add(storage.data_ptr())
                kept.total += storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield kept
