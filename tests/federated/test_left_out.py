"""A site whose numbers the hub leaves out of a sum: what it remembers is what the others know of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from weft.config import CohortConfig
from weft.engine import Gradients, Strategy
from weft.engine.collectives import Collective, Sum, combine
from weft.federated import SCAFFOLD, FedAdam, FedAvg, FedAvgM, FedYogi, Payload, PowerSGD, TopK, dSGD
from weft.federated.hub import Hub
from weft.federated.joining import hello_of
from weft.federated.ledger import Ledger
from weft.federated.messages import ask_of
from weft.federated.wrapping import innermost

NAMES = ("a", "b", "c")
ITEMS = {"a": 3.0, "b": 5.0, "c": 4.0}
SHAPES = [(10, 12), (8, 10)]  # of more numbers than travel as they are
RATE = 0.1
Everybodys = dict[str, Iterator[Collective]]


class _Sites:
    """Sites that train a model of two matrices on given gradients, around a hub that leaves some of them out."""

    def __init__(self, strategy: Callable[[], Strategy]) -> None:
        self.models = {name: nn.Sequential(*(nn.Linear(m, n, bias=False) for n, m in SHAPES)) for name in NAMES}
        self.strategies = {name: strategy() for name in NAMES}
        for place, name in enumerate(NAMES):
            model = self.models[name].double()
            model.load_state_dict(self.models["a"].state_dict())
            self.strategies[name].takes_part(place, len(NAMES))
            self.strategies[name].watch(model)

    def step(self, gradients: dict[str, list[Tensor | None]], left_out: dict[int, str] | None = None) -> None:
        """A step of gradient descent; a parameter without a gradient is frozen. `left_out` by number of the sum."""
        asks: Everybodys = {}
        for name, model in self.models.items():
            trained = []
            for parameter, gradient in zip(model.parameters(), gradients[name], strict=True):
                parameter.grad = None if gradient is None else gradient.clone()
                trained += [parameter] if gradient is not None else []
            asks[name] = self.strategies[name].average_gradients(Gradients("main", trained, ITEMS[name]))
        _drive(asks, left_out or {})
        for model in self.models.values():
            torch.optim.SGD(model.parameters(), lr=RATE).step()

    def end_round(self, left_out: str | None = None) -> None:
        asks: Everybodys = {name: self.strategies[name].end_of_round(model) for name, model in self.models.items()}
        _drive(asks, {} if left_out is None else {0: left_out})

    def weights(self, name: str) -> list[Tensor]:
        return [parameter.detach().clone() for parameter in self.models[name].parameters()]


def _drive(asks: Everybodys, left_out: dict[int, str]) -> None:
    asked = {name: step for name in asks if (step := next(asks[name], None)) is not None}
    number = 0
    while asked:
        answer = combine([collective for name, collective in asked.items() if name != left_out.get(number)])
        following = {}
        for name in asked:
            try:
                following[name] = asks[name].send([tensor.clone() for tensor in answer])  # type: ignore[attr-defined]
            except StopIteration:
                pass
        asked, number = following, number + 1


def _noise(seed: int, frozen: int | None = None) -> dict[str, list[Tensor | None]]:
    generator = torch.Generator().manual_seed(seed)
    made = {name: [torch.randn(s, generator=generator, dtype=torch.float64) for s in SHAPES] for name in NAMES}
    return {name: [None if n == frozen else one for n, one in enumerate(ones)] for name, ones in made.items()}


# --- SCAFFOLD ---------------------------------------------------------------------------------------------------------


class _ByHand:
    """SCAFFOLD of two steps a round, as plainly as it can be written: everybody's variates in one place."""

    def __init__(self, start: list[Tensor]) -> None:
        self.weights = start
        self.own: list[dict[str, Tensor]] = [{}, {}]  # by parameter and site
        self.items: list[dict[str, float]] = [dict.fromkeys(NAMES, 0.0) for _ in start]

    def round(self, steps: list[dict[str, list[Tensor | None]]], left_out: str | None) -> None:
        moved: list[dict[str, Tensor]] = [{}, {}]
        means: list[dict[str, Tensor]] = [{}, {}]
        for place, start in enumerate(self.weights):
            for name in NAMES:
                gradients = [one for step in steps if (one := step[name][place]) is not None]
                if not gradients:
                    continue
                correction = torch.zeros_like(start)
                if name in self.own[place]:
                    everybodys = sum(self.items[place].values())
                    told = [self.items[place][site] * variate for site, variate in self.own[place].items()]
                    correction = torch.stack(told).sum(0) / everybodys - self.own[place][name]
                moved[place][name] = -RATE * sum(gradient + correction for gradient in gradients)  # type: ignore[assignment]
                means[place][name] = torch.stack(gradients).mean(0)
        counted = [name for name in NAMES if name != left_out]
        for place, moves in enumerate(moved):
            if not moves:
                continue
            items = {name: ITEMS[name] * len(steps) for name in counted}
            mean = sum(moves[name] * items[name] for name in counted) / sum(items.values())
            self.weights[place] = self.weights[place] + mean
            for name in counted:
                self.own[place][name] = means[place][name]
                self.items[place][name] += items[name]


# In each round: who is left out, and which parameter is frozen.
PLANS: dict[str, list[tuple[str | None, int | None]]] = {
    "left out": [(None, None), ("b", None), (None, None), ("b", None), ("a", None), (None, None)],
    "left out first": [("c", None), (None, None), (None, None)],
    "frozen in turns": [(None, None), (None, 0), (None, None), (None, 1), (None, 1), (None, None), (None, 0)],
    "frozen first": [(None, 1), (None, None), (None, 1), (None, None)],
    "both": [(None, None), ("a", 1), (None, 0), ("c", None), ("b", 1), (None, None)],
}


@pytest.mark.parametrize("plan", PLANS)
def test_scaffold_is_that_by_hand(plan: str) -> None:
    sites = _Sites(lambda: SCAFFOLD(2))
    by_hand = _ByHand(sites.weights("a"))
    for number, (left_out, frozen) in enumerate(PLANS[plan]):
        steps = [_noise(2 * number + step, frozen) for step in range(2)]
        for step in steps:
            sites.step(step)
        sites.end_round(left_out)
        by_hand.round(steps, left_out)
        for name in NAMES:
            for place, (weight, expected) in enumerate(zip(sites.weights(name), by_hand.weights, strict=True)):
                assert torch.allclose(weight, expected, rtol=0, atol=1e-12), (number, name, place)
    strategy = sites.strategies["a"].state_dict()
    for place, name in enumerate(("0.weight", "1.weight")):
        items = by_hand.items[place]
        mean = sum(items[site] * variate for site, variate in by_hand.own[place].items()) / sum(items.values())
        told = strategy["shared"]["variates"][name] / strategy["shared"]["total"][name]
        assert torch.allclose(told, mean, rtol=0, atol=1e-12)
        for site in NAMES:
            private = sites.strategies[site].state_dict()["private"]
            assert private["own_items"].get(name, 0.0) == items[site]
            if site in by_hand.own[place]:
                assert torch.allclose(private["own"][name], by_hand.own[place][site], rtol=0, atol=1e-12)


def test_a_gradient_that_is_not_finite_is_in_no_variate() -> None:
    sites = _Sites(lambda: SCAFFOLD(2))
    broken = _noise(0)
    broken["b"][0] = torch.full(SHAPES[0], torch.inf, dtype=torch.float64)
    strategy = sites.strategies["b"]
    model = sites.models["b"]
    for gradients in (broken, _noise(1)):  # a scaled loss overflowed: the step is skipped
        for parameter, gradient in zip(model.parameters(), gradients["b"], strict=True):
            parameter.grad = gradient
        list(strategy.average_gradients(Gradients("main", list(model.parameters()), 2.0)))
    state = strategy.state_dict()["private"]
    assert state["steps"] == {"0.weight": 1, "1.weight": 1}
    assert all(bool(one.isfinite().all()) for one in state["sums"].values())


# --- memory of what could not be told ---------------------------------------------------------------------------------

REMEMBERING: dict[str, Callable[[], Strategy]] = {
    "PowerSGD": lambda: PowerSGD(1, always=True),
    "TopK": lambda: TopK(dSGD(), 0.3),
    "TopK of Payload": lambda: TopK(Payload(dSGD(), "bf16"), 0.3),
    "Payload of TopK": lambda: Payload(TopK(dSGD(), 0.3)),
}


def _memory(sites: _Sites, name: str) -> list[Tensor]:
    """What waits at a site."""
    found = list[Tensor]()
    strategy = sites.strategies[name]
    while strategy is not None:
        if isinstance(strategy, TopK):
            found += [tensor for tensors in strategy.waiting.values() for tensor in tensors]
        if isinstance(strategy, PowerSGD):
            found += strategy.errors.values()
        strategy = getattr(strategy, "strategy", None)  # type: ignore[assignment]
    return [tensor.clone() for tensor in found]


@pytest.mark.parametrize(
    ("strategy", "sums"), [*((name, {0: "b", 1: "b"}) for name in REMEMBERING), ("PowerSGD", {1: "b"})], ids=str
)
def test_what_waited_at_a_site_that_is_left_out_still_waits(strategy: str, sums: dict[int, str]) -> None:
    sites = _Sites(REMEMBERING[strategy])
    sites.step(_noise(1))
    before = {name: _memory(sites, name) for name in NAMES}
    sites.step(_noise(2), sums)
    after = {name: _memory(sites, name) for name in NAMES}
    assert len(before["b"]) >= 2
    assert all(torch.equal(one, other) for one, other in zip(after["b"], before["b"], strict=True))
    assert not all(torch.equal(one, other) for one, other in zip(after["a"], before["a"], strict=True))
    sites.step(_noise(3))
    assert all(torch.equal(one, other) for one, other in zip(sites.weights("a"), sites.weights("b"), strict=True))


@pytest.mark.parametrize("strategy", REMEMBERING)
def test_numbers_that_are_not_finite_are_in_no_memory(strategy: str) -> None:
    sites = _Sites(REMEMBERING[strategy])
    sites.step(_noise(1))
    broken = _noise(2)
    broken["b"][1] = torch.full(SHAPES[1], torch.nan, dtype=torch.float64)
    sites.step(broken, {0: "b", 1: "b"})
    assert all(bool(tensor.isfinite().all()) for tensor in _memory(sites, "b"))
    sites.step(_noise(3))
    for name in NAMES:
        assert all(bool(weight.isfinite().all()) for weight in sites.weights(name))


@pytest.mark.parametrize("strategy", [FedAvg, FedAvgM, FedAdam, FedYogi])
def test_memory_of_the_server_stays_the_same_at_all_sites(strategy: type[FedAvg]) -> None:
    sites = _Sites(lambda: strategy(steps_per_round=1))
    for number in range(4):
        sites.step(_noise(number))
        sites.end_round("b" if number % 2 else None)
        for name in NAMES[1:]:
            assert all(torch.equal(*both) for both in zip(sites.weights("a"), sites.weights(name), strict=True))
    first, *others = [innermost(sites.strategies[name]).state_dict()["shared"] for name in NAMES]
    for other in others:
        for part in first:
            assert all(torch.equal(first[part][name], other[part][name]) for name in first[part])


def test_alone_nothing_is_sent_to_learn_who_was_counted() -> None:
    strategy = TopK(dSGD(), 0.5)
    model = nn.Linear(4, 3)
    strategy.watch(model)
    (ask,) = [next(strategy.average_gradients(Gradients("main", list(model.parameters()), 1.0)))]
    assert ask.tensors[-1].numel() == 0


# --- what the hub takes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("tag", "taken"), [("gradients main", True), ("round main", False)])
def test_where_losses_are_scaled_the_end_of_a_round_is_looked_at_all_the_same(tag: str, taken: bool) -> None:
    """An infinite gradient tells all to lower the scale; weights that are not finite tell nobody anything."""
    hub = Hub("ab", NAMES, CohortConfig(), Ledger(), screened=False)
    for name in NAMES:
        hub.join(hello_of(name, "ab", {}, None))
    for name in NAMES:
        sent = torch.tensor([torch.inf if name == "b" else 1.0])
        hub.take(ask_of(Sum(tag, [sent]), study="ab", sender=name, epoch=0, step=1, number=0), name)
    hub._opening = False
    (answer,) = hub.answer()
    assert answer.tolist() == [torch.inf if taken else 2.0]
