"""Collectives: what participants of a run ask one another. A run yields one and is resumed with the answer.

`Sum` is the only one that every driver and every kind of privacy supports; a broadcast is a sum with zeros elsewhere.
`Gather` hands each participant's tensors to all, `Robust` asks for something like a mean that a few participants cannot
spoil; both are refused where only sums may leave a site.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from weft.engine.robust import robust_mean

Kind = Literal["sum", "gather", "median", "trimmed_mean", "krum"]


@dataclass(frozen=True, slots=True)
class Encoding:
    """How the numbers of a collective are written when it is sent. Whoever asks has rounded them already, so that
    nothing is lost on the way; the answer is written the same way.

    Args:
        numbers: their width; "whole" leaves each tensor its dtype. "fp16" comes with an exponent for each tensor.
        sparse: only numbers other than zero are sent, each with its place, where that is shorter.
    """

    numbers: Literal["whole", "fp32", "bf16", "fp16"] = "whole"
    sparse: bool = False


WHOLE = Encoding()


@dataclass(frozen=True, slots=True)
class Sum:
    """Asks for the element-wise sum of `tensors` over all participants; the answer has the same shapes and dtypes.

    Shapes and dtypes must be equal at every participant. Floating tensors are summed in float64.

    Args:
        tag: what is asked.
        tensors: this participant's. Whoever asks leaves them alone until the answer comes.
        borrows: the answer is only read, and let go before the next question: participants of one process may then be
            handed the same tensors. Without it the answer is each one's own, to change and to keep.
        encoding: how the tensors may be written on the way.
    """

    tag: str
    tensors: list[Tensor]
    kind: Kind = "sum"
    encoding: Encoding = WHOLE
    borrows: bool = False


@dataclass(frozen=True, slots=True)
class Gather:
    """Asks for everybody's `tensors`: the answer is their concatenation along the first dimension, in order of names.

    Args:
        tag: what is asked.
        tensors: this participant's; shapes may differ in the first dimension only.
        encoding: how the tensors may be written on the way.
    """

    tag: str
    tensors: list[Tensor]
    kind: Kind = "gather"
    encoding: Encoding = WHOLE


@dataclass(frozen=True, slots=True)
class Robust:
    """Asks for something like the mean of `tensors` over all participants, that a few of them cannot spoil.

    The last tensor is this participant's weight (float64, [1]): one of 0 takes no part, nor does one whose numbers are
    not all finite; the others count alike. Its answer is the sum of the weights of those that took part.

    Args:
        tag: what is asked.
        tensors: shapes and dtypes are equal at every participant.
        kind: "median" of each number; "trimmed_mean" of each number, without the `tolerated` largest and smallest;
            "krum", the tensors of the participant that is nearest to its neighbours.
        tolerated: so many participants may send anything.
        encoding: how the tensors may be written on the way.
    """

    tag: str
    tensors: list[Tensor]
    kind: Kind = "median"
    tolerated: int = 1
    encoding: Encoding = WHOLE


Collective = Sum | Gather | Robust
Answer = list[Tensor]
_PART = 2**16  # of a large tensor are summed at once: they stay in the processor's cache
_LARGE = 2 * _PART


@dataclass(frozen=True, slots=True)
class CollectiveId:
    """Where in the run a collective was asked: equal at every participant, or they have lost one another."""

    epoch: int
    step: int
    number: int  # counts the collectives of a run since its last boundary that was saved
    kind: Kind
    tag: str
    shapes: tuple[tuple[int, ...], ...]

    def describe(self) -> str:
        """One line for error messages."""
        return f"{self.kind} '{self.tag}' in epoch {self.epoch + 1}, step {self.step}, shapes {list(self.shapes)}"


def shapes_of(collective: Collective) -> tuple[tuple[int, ...], ...]:
    """Shapes that must agree between participants: whole ones for a sum, without the first dimension for a gather."""
    if collective.kind == "gather":
        return tuple(tensor.shape[1:] for tensor in collective.tensors)
    return tuple([tensor.shape for tensor in collective.tensors])


def combine(collectives: list[Collective]) -> Answer:
    """The answer to what all participants asked; `collectives` come in order of the participants' names.

    Sums are taken in that order and, for floating tensors, in float64, so that the result depends on nothing else.
    """
    first = collectives[0]
    if isinstance(first, Robust):
        return robust_mean(first.kind, [collective.tensors for collective in collectives], first.tolerated)
    if first.kind == "gather":
        columns = zip(*(collective.tensors for collective in collectives), strict=True)
        return [torch.cat(column) for column in columns]
    return _sums_in_order([collective.tensors for collective in collectives])


@torch.no_grad()  # of the tensors of a strategy, which may be made of parameters
def _sums_in_order(rows: list[list[Tensor]]) -> list[Tensor]:
    first = rows[0]
    large = [tensor.numel() > _LARGE and tensor.device.type == "cpu" for tensor in first]
    few = [[tensor for tensor, parts in zip(row, large, strict=True) if not parts] for row in rows]
    totals = [tensor.to(_wide(tensor), copy=True) for tensor in few[0]]
    for tensors in few[1:] if totals else ():  # torch adds no empty lists
        torch._foreach_add_(totals, tensors)
    whole = iter(totals)
    columns = zip(*rows, strict=True)
    return [
        _sum_in_parts(column) if parts else next(whole).to(column[0].dtype)
        for column, parts in zip(columns, large, strict=True)
    ]


def _sum_in_parts(column: tuple[Tensor, ...]) -> Tensor:
    """The same as in one go, but numbers of twice the size need not travel to the memory and back."""
    total = torch.empty(column[0].shape, dtype=column[0].dtype)
    parts = [torch.split(tensor.reshape(-1), _PART) for tensor in (total, *column)]
    for part, first, *others in zip(*parts, strict=True):
        wide = first.to(_wide(first), copy=True)
        for other in others:
            wide.add_(other)
        part.copy_(wide)
    return total


def _wide(tensor: Tensor) -> torch.dtype:
    return torch.float64 if tensor.is_floating_point() else torch.int64
