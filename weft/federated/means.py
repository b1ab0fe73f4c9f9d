"""Means over sites, the one question that most strategies ask."""

from __future__ import annotations

from collections.abc import Generator
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from weft.engine import Gradients, Strategy
from weft.engine.collectives import Answer, Collective, Robust, Sum
from weft.engine.strategy import all_finite
from weft.errors import UsageError

Aggregate = Literal["sum", "median", "trimmed_mean", "krum"]


def mean_over_sites(
    tag: str, tensors: list[Tensor], weight: float, aggregate: Aggregate = "sum", tolerated: int = 1
) -> Generator[Collective, Answer, tuple[list[Tensor], float]]:
    """The mean of everybody's tensors.

    Args:
        tag: what is asked.
        tensors: this site's; shapes and dtypes are the same at all.
        weight: how much they count, 0 for not at all; where it is 0 they may be anything.
        aggregate: "sum" for the weighted mean; the others count sites alike (see `weft.engine.collectives.Robust`).
        tolerated: so many sites may send anything, where `aggregate` is not "sum".

    Returns:
        the means, and the sum of all weights; zeros where that is 0.
    """
    total = torch.tensor([weight], dtype=torch.float64)
    if weight <= 0:  # 0 * inf would be nan: a site without a say sends exact zeros
        sent = [torch.zeros_like(tensor) for tensor in tensors]
    elif aggregate == "sum":
        sent = list(torch._foreach_mul(tensors, weight)) if tensors else []
    else:
        sent = [tensor.detach().clone() for tensor in tensors]
    if aggregate != "sum":
        *means, total = yield Robust(tag, [*sent, total], aggregate, tolerated)
        return means, float(total)
    *sums, total = yield Sum(tag, [*sent, total])
    if sums and float(total) > 0:
        return list(torch._foreach_div(sums, float(total))), float(total)
    return sums, float(total)


def check_aggregate(aggregate: str, tolerated: int) -> None:
    """Refuse a name that there is not.

    Raises:
        UsageError: it is unknown, or `tolerated` is negative.
    """
    if aggregate not in get_args(Aggregate):
        known = ", ".join(get_args(Aggregate))
        raise UsageError(f"aggregate is {aggregate!r}", f"use one of {known}")
    if tolerated < 0:
        raise UsageError(f"tolerated is {tolerated}", "give the number of sites that may send anything, 0 or more")


def own_mark(strategy: Strategy) -> Tensor:
    """What a site sends to learn whether its numbers were counted, one byte for each site: 1 in its own place.

    The sum of all tells of everybody who was counted. Alone, or where it was not told how many there are, a site needs
    none ([0], uint8; [sites] otherwise).
    """
    mark = torch.zeros(strategy.participants if strategy.participants > 1 else 0, dtype=torch.uint8)
    mark[strategy.participant : strategy.participant + 1] = 1
    return mark


def was_counted(strategy: Strategy, marks: Tensor) -> bool:
    """Whether this site's numbers are in a sum, by the sum of all marks; the hub may have left them out."""
    return strategy.participants == 1 or bool(marks[strategy.participant])


class Names:
    """Names of a model's parameters, by which memory is kept: it outlives the objects.

    Args:
        model: all networks together.
    """

    def __init__(self, model: nn.Module | None = None) -> None:
        named = [] if model is None else list(model.named_parameters())
        self._names = {id(parameter): name for name, parameter in named}

    def of(self, parameter: nn.Parameter) -> str:
        """The name of a parameter.

        Raises:
            UsageError: it does not belong to the model.
        """
        name = self._names.get(id(parameter))
        if name is None:
            raise UsageError(
                f"a parameter of shape {list(parameter.shape)} is trained that the strategy has not seen",
                "call `watch(model)` with the whole model before training",
            )
        return name


def own_part(gradients: Gradients) -> tuple[list[Tensor], Tensor]:
    """What a site tells of its gradients where they do not travel as they are.

    Returns:
        the gradients times their weight and without the scale of the loss, zeros where they are not finite; and the
        weight with, where it is so, 1 for a site that is not finite (float64, [2]).
    """
    tensors = gradients.tensors()
    finite = all_finite(tensors)
    heard = gradients.weight > 0 and finite
    factor = gradients.weight / gradients.scale if heard else 0.0
    parts = [tensor * factor if heard else torch.zeros_like(tensor) for tensor in tensors]
    weight = gradients.weight if heard else 0.0
    return parts, torch.tensor([weight, float(gradients.weight > 0 and not finite)], dtype=torch.float64)


def usable(gradients: Gradients, told: Tensor) -> float:
    """The sum of the weights that sites told; 0 when there is nothing to average.

    Where losses are scaled, one site that is not finite makes the gradients of all so, and all skip the step and lower
    the scale; elsewhere it weighs nothing. Without items, or where nobody's are finite, gradients are zero.
    """
    total, broken = told.tolist()
    broken = broken if gradients.scaler is not None else 0
    if broken or total <= 0:
        for tensor in gradients.tensors():
            tensor.fill_(float("nan") if broken else 0.0)
        return 0.0
    return float(total)
