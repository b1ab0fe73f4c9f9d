"""A site that is lost between two exchanges of one step: what the others apply is a mean of what they were told."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.federated.sites import seeded
from weft.engine import Gradients, Strategy
from weft.engine.collectives import combine
from weft.federated import PowerSGD, rankDAD

ROWS = {"a": 3, "b": 5, "c": 4}
WHOLE: list[Callable[[], Strategy]] = [lambda: PowerSGD(100, always=True), lambda: rankDAD(None, 0.0)]


class _Site:
    """A site with a gradient to tell."""

    def __init__(self, strategy: Strategy, rows: int, seed: int) -> None:
        self.model, self.strategy, self.rows = seeded(lambda: nn.Linear(5, 2))(), strategy, rows
        strategy.watch(self.model)
        generator = torch.Generator().manual_seed(seed)
        if rows:
            inputs, targets = (torch.randn(rows, n, generator=generator, dtype=torch.float64) for n in (5, 2))
            functional.mse_loss(self.model(inputs), targets).backward()
        grads = [parameter.grad for parameter in self.model.parameters()]
        self.own = [torch.zeros(1) if grad is None else grad.clone() for grad in grads]
        gradients = Gradients("main", list(self.model.parameters()), float(rows))
        self.steps = strategy.average_gradients(gradients)

    def gradients(self) -> list[Tensor]:
        return [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]


def _played(strategy: Callable[[], Strategy], rows: dict[str, int], lost: str | None) -> dict[str, _Site]:
    """A step in which a site asks for the first sum, but for nothing after that; those that are left."""
    sites = {name: _Site(strategy(), count, seed) for seed, (name, count) in enumerate(rows.items())}
    answer = combine([next(site.steps) for site in sites.values()])
    left = {name: site for name, site in sites.items() if name != lost}
    answer = combine([site.steps.send(answer) for site in left.values()])
    for site in left.values():
        with pytest.raises(StopIteration):
            site.steps.send([tensor.clone() for tensor in answer])
    return sites


def _mean(sites: list[_Site], number: int) -> Tensor:
    return sum(site.own[number] * site.rows for site in sites) / sum(site.rows for site in sites)  # type: ignore[return-value]


@pytest.mark.parametrize("strategy", WHOLE, ids=["PowerSGD", "rankDAD"])
@pytest.mark.parametrize("lost", [None, "a", "b", "c"])
def test_a_mean_is_taken_over_the_weight_of_those_that_told_it(
    lost: str | None, strategy: Callable[[], Strategy]
) -> None:
    sites = _played(strategy, ROWS, lost)
    left = [site for name, site in sites.items() if name != lost]
    for site in left:
        weight, bias = site.gradients()
        assert torch.allclose(weight, _mean(left, 0), rtol=0, atol=1e-12)  # travels as factors, in both exchanges
        assert torch.allclose(bias, _mean(list(sites.values()), 1), rtol=0, atol=1e-12)  # was told before
        assert all(torch.equal(one, other) for one, other in zip(site.gradients(), left[0].gradients()))


@pytest.mark.parametrize("strategy", WHOLE, ids=["PowerSGD", "rankDAD"])
def test_a_step_whose_items_were_all_lost_moves_nobody_and_is_not_remembered(strategy: Callable[[], Strategy]) -> None:
    sites = _played(strategy, {"a": 0, "b": 5, "c": 0}, "b")
    for name in ("a", "c"):
        assert all(not bool(gradient.any()) for gradient in sites[name].gradients())
        assert sites[name].strategy.state_dict() == strategy().state_dict()
