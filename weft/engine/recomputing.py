"""Activation checkpointing: blocks whose inner results are computed again in the backward pass instead of being kept.

Chen et al., 2016, "Training Deep Nets with Sublinear Memory Cost" (arXiv:1604.06174). What is computed the second time
is what was computed the first: random generators and buffers (running statistics, power iterations) are those of the
first pass, and the second pass leaves neither changed. So weights are the same to the bit.
"""

from __future__ import annotations

import fnmatch
import math
import random
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from weft.errors import ConfigError, Problem

_WHERE = ("run", "activation_checkpointing")
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_MOST = 0.5  # share of the parameters from which a block is looked into for smaller ones


def recompute_blocks(model: nn.Module, wanted: bool | Sequence[str]) -> list[str]:
    """Have blocks of a model computed again in the backward pass, in place; names and state dict stay what they are.

    Args:
        model: on its device, its batch normalisation already global where it shall be.
        wanted: True for the blocks that `blocks_of` finds, or patterns of names of modules.

    Returns:
        names of the blocks.

    Raises:
        ConfigError: a pattern fits no module, or no blocks are found.
    """
    names = blocks_of(model) if wanted is True else _matching(model, wanted or ())
    for name in names:
        block = model.get_submodule(name)
        block.__class__ = _recomputed(type(block))
    return names


def blocks_of(model: nn.Module) -> list[str]:
    """Names of the blocks that a network is made of: what lies in its lists and sequences and has parts itself.

    One that holds most of the parameters is divided further, as nested U-Nets need it.

    Raises:
        ConfigError: there are none.
    """
    found = found_blocks(model)
    if not found:
        raise ConfigError(
            Problem(
                f"{type(model).__name__} has no blocks in a Sequential or ModuleList that could be computed again",
                f"name modules instead of true, e.g. [{_examples(model)}]",
                _WHERE,
            )
        )
    return found


def found_blocks(model: nn.Module, leaves_from: float = math.inf) -> list[str]:
    """Names of the blocks as `blocks_of` has them; none is no error.

    Args:
        model: the network.
        leaves_from: layers of lists and sequences without parts count too, from so many parameters on.
    """
    return list(_blocks(model, "", _parameters(model), leaves_from))


def _blocks(module: nn.Module, prefix: str, whole: int, leaves_from: float) -> Iterator[str]:
    for name, child in module.named_children():
        path, size = f"{prefix}{name}", _parameters(child)
        if next(child.children(), None) is None:
            if size >= leaves_from and isinstance(module, _CONTAINERS):
                yield path
            continue
        if not size:
            continue
        divisible = isinstance(child, _CONTAINERS) and not isinstance(child, nn.Sequential)
        if isinstance(module, _CONTAINERS) and not divisible:
            inner = list(_blocks(child, f"{path}.", whole, leaves_from)) if size > _MOST * whole else []
            yield from inner or [path]
        else:
            yield from _blocks(child, f"{path}.", whole, leaves_from)


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _matching(model: nn.Module, patterns: Sequence[str]) -> list[str]:
    names = [name for name, _ in model.named_modules() if name]
    problems = [
        Problem(
            f"no module of the model has a name like '{pattern}'", f"modules are {_examples(model)}", (*_WHERE, row)
        )
        for row, pattern in enumerate(patterns)
        if not fnmatch.filter(names, pattern)
    ]
    if problems:
        raise ConfigError(problems)
    chosen: list[str] = []
    for name in names:  # outer modules come before what is in them
        fits = any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
        if fits and not any(name.startswith(f"{outer}.") for outer in chosen):
            chosen.append(name)
    return chosen


def _examples(model: nn.Module) -> str:
    names = [name for name, module in model.named_modules() if name and next(module.children(), None) is not None]
    names = names or [name for name, _ in model.named_modules() if name]
    return ", ".join(names[:6]) + (", …" if len(names) > 6 else "")


class _Recomputed:
    """What is put before a module's class: its forward pass, computed again when its inner results are needed."""

    def forward(self, *arguments: Any, **named: Any) -> Any:
        forward = super().forward  # type: ignore[misc]
        if not torch.is_grad_enabled():
            return forward(*arguments, **named)
        given = [value for value in (*arguments, *named.values()) if isinstance(value, Tensor)]
        versions = [value._version for value in given]
        result = checkpoint(
            forward,
            *arguments,
            use_reentrant=False,
            context_fn=lambda: _twice_the_same(self),
            **named,
        )
        if versions != [value._version for value in given]:
            raise ConfigError(
                Problem(
                    f"{type(self).__name__} changes its input in place, so it cannot be computed again from it",
                    "name the modules that are wanted in run.activation_checkpointing, without it, or take `inplace` "
                    "from its first layer",
                    _WHERE,
                )
            )
        return result


def _recomputed(kind: type[nn.Module]) -> type[nn.Module]:
    """A class like the given one whose forward pass is computed again; a copy of such a module is one, too."""
    if issubclass(kind, _Recomputed):  # a part of several models
        return kind
    return type(kind.__name__, (_Recomputed, kind), {"__module__": kind.__module__, "__doc__": kind.__doc__})


def _twice_the_same(module: Any) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Contexts of the first pass, and of the one that computes again. `checkpoint` itself keeps torch's generators."""
    buffers = [
        (owner, name, buffer, buffer.detach().clone())
        for owner in module.modules()
        if owner.training
        for name, buffer in owner._buffers.items()
        if buffer is not None
    ]
    state = random.getstate(), np.random.get_state()  # noqa: NPY002 - user code draws from the global generators

    @contextmanager
    def first() -> Iterator[None]:
        yield

    @contextmanager
    def again() -> Iterator[None]:
        now = random.getstate(), np.random.get_state()  # noqa: NPY002
        for owner, name, _, before in buffers:
            owner._buffers[name] = before.clone()
        random.setstate(state[0])
        np.random.set_state(state[1])  # noqa: NPY002
        try:
            yield
        finally:
            for owner, name, buffer, _ in buffers:
                owner._buffers[name] = buffer
            random.setstate(now[0])
            np.random.set_state(now[1])  # noqa: NPY002

    return first(), again()
