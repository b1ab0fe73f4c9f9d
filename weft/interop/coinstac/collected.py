"""What several iterations returned, as one value: it may be used as it is, or called, as the original's must be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class CollectedTensor(Tensor):
    """A tensor that gives, when it is called, what it was made of side by side."""

    # What is computed from it is a plain tensor.
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]
    parts: Tensor

    def __call__(self) -> Tensor:
        """The values of all iterations."""
        return self.parts

    def __reduce_ex__(self, protocol: Any) -> Any:
        """A plain tensor is what is saved."""
        return self.as_subclass(Tensor).__reduce_ex__(protocol)  # type: ignore[no-untyped-call]

    def __deepcopy__(self, memo: Any) -> Any:
        """A plain tensor."""
        return self.as_subclass(Tensor).__deepcopy__(memo)  # type: ignore[no-untyped-call]


class CollectedList(list[Any]):
    """A list that gives itself when it is called."""

    def __call__(self) -> list[Any]:
        """The values of all iterations."""
        return list(self)


def side_by_side(values: Sequence[Tensor]) -> CollectedTensor:
    """Tensors of several iterations in a row; numbers count as rows of one."""
    return _collected(*[torch.cat([value.detach() if value.ndim else value.detach()[None] for value in values])] * 2)


def mean_of(losses: Sequence[Any]) -> CollectedTensor:
    """The mean of losses; each of them, where it is called."""
    each = torch.stack([torch.as_tensor(loss).detach().reshape(()) for loss in losses])
    return _collected(each.mean(), each)


def one_loss(value: Any) -> Any:
    """A loss that a reduction of a user's own may have left as a function, or as a list: their mean."""
    found = value() if callable(value) and not isinstance(value, Tensor) else value
    if isinstance(found, Tensor) and found.numel() > 1:
        return found.mean()
    if isinstance(found, list | tuple) and found and all(isinstance(one, Tensor) for one in found):
        return torch.stack([one.detach().reshape(()) for one in found]).mean()
    return found


def _collected(value: Tensor, parts: Tensor) -> CollectedTensor:
    found = value.as_subclass(CollectedTensor)
    found.parts = parts
    return found
