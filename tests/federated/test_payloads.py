"""What travels: bytes, rounding, and the largest numbers only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from tests.federated.sites import Sites, drive, farthest, random_batches, seeded
from weft.engine import Gradients, Strategy
from weft.engine.collectives import Answer, Collective
from weft.federated import SCAFFOLD, FedAvg, Payload, PowerSGD, TopK, dSGD, rankDAD
from weft.federated.wrapping import Wrapper

NAN = float("nan")

WIDE = (66, 256, 128, 64, 32, 2)


def wide() -> nn.Module:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(WIDE):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _bytes(strategy: Callable[[], Strategy], double: bool = False) -> int:
    """Bytes of two steps, up and down, over five sites of float32."""
    batches = random_batches({f"site-{number}": [16, 16] for number in range(5)}, (66,), 2)
    if not double:
        for steps in batches.values():
            steps[:] = [(step[0].float(), step[1].float()) for step in steps if step is not None]
    make = seeded(wide)
    sites = Sites(lambda: make() if double else make().float(), strategy, batches)
    sites.run()
    return sites.sent + sites.received


def test_strategies_move_as_many_bytes_as_they_say() -> None:
    parameters = sum(parameter.numel() for parameter in wide().parameters())
    steps, sites, ways = 2, 5, 2
    dense = steps * sites * ways * (4 * parameters + 8)
    assert _bytes(dSGD) == dense
    assert _bytes(lambda: FedAvg(1)) == dense
    assert _bytes(FedAvg) == dense // steps
    tensors = len(list(wide().parameters()))
    assert _bytes(lambda: SCAFFOLD(1)) == steps * sites * ways * (8 * parameters + 8 * tensors + 16)
    assert _bytes(lambda: Payload(dSGD(), "bf16")) == steps * sites * ways * (2 * parameters + 8)
    assert _bytes(lambda: Payload(dSGD(), "fp32"), double=True) < _bytes(dSGD, double=True) * 0.51
    assert _bytes(lambda: PowerSGD(2)) < dense / 10
    assert _bytes(rankDAD) < dense / 3
    assert _bytes(lambda: TopK(dSGD(), 0.01)) < dense / 10
    assert _bytes(lambda: TopK(Payload(dSGD()), 0.01)) < _bytes(lambda: TopK(dSGD(), 0.01))


class Halving(Wrapper):
    """Doubles the weight of all that comes back, where it lies, which halves the mean."""

    def received(self, collective: Collective, answer: Answer) -> Answer:
        answer[-1].mul_(2)
        return answer


def test_what_a_wrapper_does_to_an_answer_is_not_seen_by_the_other_sites() -> None:
    batches = random_batches({f"site-{number}": [16, 16] for number in range(3)}, (66,), 2)
    expected = Sites(seeded(wide), dSGD, batches).run()
    found = Sites(
        seeded(wide), lambda: Halving(dSGD()), batches, make_optimizer=lambda given: torch.optim.SGD(given, lr=0.2)
    ).run()
    for site in batches:
        assert farthest(expected[site], found[site]) == 0


def test_rounded_payloads_cannot_overflow_and_keep_weights_whole() -> None:
    (asked,) = _asked(Payload(dSGD(), "fp16"), torch.tensor([[1e6, 3.0, 1e-3]]), weight=100_001)
    gradients, weight = asked.tensors
    assert float(weight) == 100_001
    assert float(gradients[0, 0]) == pytest.approx(100_001e6, rel=1e-3)
    assert float(gradients[0, 1]) == pytest.approx(300_003, rel=1e-3)
    (asked,) = _asked(Payload(dSGD(), "bf16"), torch.tensor([[1e6, 3.0, NAN]]), weight=2)
    assert bool(asked.tensors[0].isnan()[0, 2])
    assert float(asked.tensors[0][0, 0]) == float(torch.tensor(2e6).bfloat16())


def _asked(strategy: Strategy, gradient: Tensor, weight: float, scale: float | None = None) -> list:
    model = nn.Linear(gradient.shape[1], len(gradient), bias=False)
    strategy.watch(model)
    model.weight.grad = gradient.clone()
    scaler = None if scale is None else torch.amp.GradScaler("cpu", init_scale=scale)
    step = strategy.average_gradients(Gradients("main", list(model.parameters()), weight, scaler=scaler))
    asked = [next(step)]
    drive([_resumed(step, asked[0])])
    return asked


def _resumed(step: Iterator[object], first: object) -> Iterator[object]:
    answer = yield first
    while True:
        try:
            answer = yield step.send(answer)
        except StopIteration:
            return


def test_what_waits_of_scaled_gradients_is_worth_as_much_when_the_scale_has_changed() -> None:
    strategy = TopK(dSGD(), 1 / 3)
    _asked(strategy, torch.tensor([[1.0, -5.0, 3.0]]) * 4, weight=1, scale=4.0)
    (asked,) = _asked(strategy, torch.tensor([[1.0, 1.0, 0.0]]) * 2, weight=1, scale=2.0)
    assert asked.tensors[0].tolist() == [[0.0, 0.0, 3.0 * 2]]
    (asked,) = _asked(strategy, torch.tensor([[0.0, 0.0, 0.0]]), weight=1, scale=8.0)
    assert asked.tensors[0].tolist() == [[2.0 * 8, 0.0, 0.0]]
    (asked,) = _asked(strategy, torch.tensor([[0.0, torch.inf, 0.0]]), weight=1, scale=8.0)  # overflows: none is used
    (asked,) = _asked(strategy, torch.tensor([[0.0, 0.0, 0.0]]), weight=1, scale=4.0)
    assert asked.tensors[0].tolist() == [[0.0, 1.0 * 4, 0.0]]


def test_topk_sends_the_largest_and_then_what_waited() -> None:
    strategy = TopK(dSGD(), 1 / 3)
    (asked,) = _asked(strategy, torch.tensor([[1.0, -5.0, 3.0]]), weight=1)
    assert asked.tensors[0].tolist() == [[0.0, -5.0, 0.0]]
    (asked,) = _asked(strategy, torch.tensor([[1.0, 1.0, 0.0]]), weight=1)
    assert asked.tensors[0].tolist() == [[0.0, 0.0, 3.0]]
    (asked,) = _asked(strategy, torch.tensor([[1.0, NAN, 0.0]]), weight=1)  # nothing of it is used, nor kept
    (asked,) = _asked(strategy, torch.tensor([[0.0, 0.0, 0.0]]), weight=1)
    assert asked.tensors[0].tolist() == [[2.0, 0.0, 0.0]]
