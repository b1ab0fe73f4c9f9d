"""What each strategy does: against formulas of its paper, and where it is to be better than a simpler one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from tests.federated.sites import Sites, farthest, random_batches, seeded
from tests.federated.test_properties import cnn, mlp
from weft.engine import Gradients, RunResult, Strategy
from weft.engine.collectives import Robust, combine
from weft.engine.processes import Place, drive_among_processes
from weft.engine.state import Position
from weft.errors import ProtocolError, UsageError
from weft.federated import (
    SCAFFOLD,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedBN,
    FedProx,
    FedYogi,
    Payload,
    PowerSGD,
    TopK,
    dSGD,
    rankDAD,
)
from weft.federated.powersgd import orthonormal

NAN, INF = float("nan"), float("inf")


def line() -> nn.Module:
    return nn.Linear(3, 2, bias=False)


# Over rounds


def _moves(strategy: Callable[[], Strategy], rounds: int = 4) -> tuple[list[Tensor], list[Tensor]]:
    """Weights after each round of two local steps, and the mean move of each round."""
    batches = random_batches({"a": [4] * 8, "b": [6] * 8}, (3,), 2)
    after, means = [seeded(line)().weight.detach()], []
    for number in range(1, rounds + 1):
        part = {name: steps[: 2 * number] for name, steps in batches.items()}
        after.append(Sites(seeded(line), strategy, part).run()["a"]["weight"])
        last = {name: steps[2 * number - 2 : 2 * number] for name, steps in batches.items()}
        start = after[-2]

        def begin(start: Tensor = start) -> nn.Module:
            model = seeded(line)()
            with torch.no_grad():
                model.weight.copy_(start)
            return model

        means.append(Sites(begin, lambda: FedAvg(2), last).run()["a"]["weight"] - start)
    return after, means


def test_fedavgm_is_momentum_over_mean_moves() -> None:
    after, means = _moves(lambda: FedAvgM(0.5, 0.8, steps_per_round=2))
    velocity = torch.zeros(2, 3, dtype=torch.float64)
    for before, now, mean in zip(after, after[1:], means):
        velocity = 0.8 * velocity + mean
        assert torch.allclose(now, before + 0.5 * velocity, rtol=0, atol=1e-12)


@pytest.mark.parametrize("strategy", [FedAdam, FedYogi])
def test_fedadam_and_fedyogi_are_algorithm_2_of_their_paper(strategy: type[FedAdam]) -> None:
    after, means = _moves(lambda: strategy(0.1, 0.9, 0.99, 1e-2, steps_per_round=2))
    first, second = torch.zeros(2, 3, dtype=torch.float64), torch.full((2, 3), 1e-4, dtype=torch.float64)
    for before, now, mean in zip(after, after[1:], means):
        first = 0.9 * first + 0.1 * mean
        if strategy is FedAdam:
            second = 0.99 * second + 0.01 * mean**2
        else:
            second = second - 0.01 * mean**2 * torch.sign(second - mean**2)
        assert torch.allclose(now, before + 0.1 * first / (second.sqrt() + 1e-2), rtol=0, atol=1e-12)


def _unlike_sites(rounds: int, steps: int) -> tuple[dict[str, list[tuple[Tensor, Tensor] | None]], Tensor]:
    """Sites whose data pull elsewhere, the same batch in every step; and the weights that are best for all of them."""
    generator = torch.Generator().manual_seed(2)
    batches, rows = {}, []
    for name, size, slope in (("a", 8, 2.0), ("b", 24, -1.0)):
        inputs = torch.randn(size, 3, generator=generator, dtype=torch.float64)
        inputs = inputs * torch.tensor([1.5, 1.0, 0.5] if name == "a" else [0.8, 1.2, 1.0])
        targets = slope * inputs[:, :2] + torch.randn(size, 2, generator=generator, dtype=torch.float64)
        batches[name] = [(inputs, targets)] * (rounds * steps)
        rows.append((inputs, targets))
    inputs, targets = (torch.cat(parts) for parts in zip(*rows))
    return batches, torch.linalg.lstsq(inputs, targets).solution.T


def _slowly(parameters: object) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.05)


def test_scaffold_reaches_the_pooled_optimum_where_fedavg_drifts() -> None:
    batches, best = _unlike_sites(rounds=60, steps=10)
    ends = {}
    for strategy in (FedAvg, SCAFFOLD):
        sites = Sites(seeded(line), lambda make=strategy: make(10), batches, make_optimizer=_slowly)
        ends[strategy] = float((sites.run()["a"]["weight"] - best).abs().max())
    assert ends[FedAvg] > 1e-2
    assert ends[SCAFFOLD] < 1e-8


def test_scaffolds_mean_variate_is_that_of_the_sites_also_when_one_pauses() -> None:
    batches = random_batches({"a": [4, 4, 0, 0, 4, 2], "b": [5, 5, 5, 5, 5, 5], "c": [0, 0, 3, 3, 0, 1]}, (3,), 2)
    sites = Sites(seeded(line), lambda: SCAFFOLD(2), batches)
    sites.run()
    states = [strategy.state_dict() for strategy in sites.strategies.values()]
    items = [state["private"]["own_items"]["main"] for state in states]
    assert items == [14.0, 30.0, 7.0]
    mean = sum(count * state["private"]["own"]["weight"] for count, state in zip(items, states)) / sum(items)
    for state in states:
        told = state["shared"]["variates"]["weight"] / state["shared"]["total"]["main"]
        assert torch.allclose(told, mean, rtol=0, atol=1e-12)


def test_fedprox_holds_sites_near_the_start_of_the_round() -> None:
    batches, _ = _unlike_sites(rounds=1, steps=20)
    start = seeded(line)().state_dict()

    def distance(mu: float) -> float:
        weights = Sites(seeded(line), lambda: FedProx(mu, 20), batches, make_optimizer=_slowly).run()["a"]
        return farthest(weights, start)

    plain = Sites(seeded(line), lambda: FedAvg(20), batches, make_optimizer=_slowly).run()["a"]
    assert distance(0.0) == farthest(plain, start)
    assert distance(10.0) < distance(1.0) < distance(0.0)


def test_fedbn_leaves_sites_their_normalisation_and_nothing_else() -> None:
    def normalised() -> nn.Module:
        return nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 2))

    batches = random_batches({"a": [4, 4], "b": [6, 6]}, (5,), 2)
    weights = Sites(seeded(normalised), lambda: FedBN(2), batches).run()
    unlike = [name for name in weights["a"] if not torch.equal(weights["a"][name], weights["b"][name])]
    assert unlike == ["1.weight", "1.bias", "1.running_mean", "1.running_var", "3.weight", "3.bias"]
    assert FedBN().buffers == "private"


# Factors


def test_powersgd_loses_nothing_in_the_long_run() -> None:
    """What was applied and what still waits at the sites are together what dSGD would have applied."""
    applied, wanted = torch.zeros(8, 5, dtype=torch.float64), torch.zeros(8, 5, dtype=torch.float64)
    generator = torch.Generator().manual_seed(1)
    strategies = []
    for _ in range(2):
        model = seeded(lambda: nn.Linear(5, 8, bias=False))()
        strategies.append((model, PowerSGD(1)))
        strategies[-1][1].watch(model)
    for _ in range(6):
        steps = []
        for model, strategy in strategies:
            model.weight.grad = torch.randn(8, 5, generator=generator, dtype=torch.float64)
            wanted += 4 * model.weight.grad
            steps.append(strategy.average_gradients(Gradients("main", list(model.parameters()), 4)))
        _drive(steps)
        applied += 8 * strategies[0][0].weight.grad
    waiting = sum(strategy.errors["main weight"] for _, strategy in strategies)
    assert float((wanted - applied).abs().max()) > 0.1
    assert torch.allclose(applied + waiting, wanted, rtol=0, atol=1e-12)


def _drive(steps: Sequence[Iterator[object]]) -> list[list[Tensor]]:
    """Drive exchanges together to their end; the answers."""
    answers: list[list[Tensor]] = []
    asked = [next(step) for step in steps]
    while asked:
        answers.append(combine(asked))
        following = []
        for step in steps:
            try:
                following.append(step.send(answers[-1]))
            except StopIteration:
                pass
        asked = following
    return answers


@pytest.mark.parametrize("strategy", [lambda: PowerSGD(1), lambda: PowerSGD(1, warmup_steps=2), lambda: rankDAD(1)])
def test_low_rank_learns_from_a_first_gradient_of_zero(strategy: Callable[[], Strategy]) -> None:
    batches = random_batches({"a": [6] * 60, "b": [6] * 60}, (5,), 2)
    truth = torch.randn(5, 2, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    for steps in batches.values():
        steps[:] = [None if batch is None else (batch[0], batch[0] @ truth) for batch in steps]
        steps[0] = (torch.zeros(6, 5, dtype=torch.float64), torch.zeros(6, 2, dtype=torch.float64))
    inputs = torch.randn(50, 5, generator=torch.Generator().manual_seed(5), dtype=torch.float64)

    def error(weights: dict[str, Tensor]) -> float:
        model = seeded(lambda: nn.Sequential(nn.Linear(5, 8), nn.Linear(8, 6), nn.Linear(6, 2)))()
        model.load_state_dict(weights)
        return float((model(inputs) - inputs @ truth).square().mean().detach())

    make = seeded(lambda: nn.Sequential(nn.Linear(5, 8), nn.Linear(8, 6), nn.Linear(6, 2)))
    assert error(Sites(make, strategy, batches).run()["a"]) < error(make().state_dict()) / 5


def test_rankdad_adds_no_hooks_when_watching_again_and_keeps_no_deltas() -> None:
    model, strategy = seeded(mlp)(), rankDAD(None)
    strategy.watch(model)
    strategy.watch(model)
    assert sum(len(layer._forward_hooks) for layer in model.modules()) == 3
    inputs = torch.randn(4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    model(inputs).square().mean().backward()
    assert len(strategy._deltas) == 3
    _drive([strategy.average_gradients(Gradients("main", list(model.parameters()), 4))])
    assert not strategy._deltas


def test_rankdad_sends_no_more_parts_than_the_gradient_has() -> None:
    batches = random_batches({"a": [2], "b": [3]}, (5,), 2)
    sites = Sites(seeded(lambda: nn.Linear(5, 4)), lambda: rankDAD(None), _widened(batches))
    sites.run()
    assert sites.sent == (2 + 3) * (5 + 4) * 8 + 2 * (4 + 2) * 8


def _widened(batches: dict) -> dict:
    return {
        name: [(inputs, torch.cat([targets, targets], 1)) for inputs, targets in steps]
        for name, steps in batches.items()
    }


def test_rankdad_notices_weights_that_are_used_elsewhere_too() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(5, 8), nn.Linear(5, 2)

        def forward(self, inputs: Tensor) -> Tensor:
            outputs: Tensor = self.last(self.first(inputs) @ self.first.weight)
            return outputs

    batches = random_batches({"a": [3, 3], "b": [2, 4]}, (5,), 2)
    exact = Sites(seeded(Tied), dSGD, batches).run()["a"]
    assert farthest(Sites(seeded(Tied), lambda: rankDAD(None, 0.0), batches).run()["a"], exact) < 1e-12


def test_layers_that_rankdad_does_not_know_travel_as_they_are() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.memory, self.last = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 2)

        def forward(self, inputs: Tensor) -> Tensor:
            outputs: Tensor = self.last(self.memory(inputs)[0][:, -1])
            return outputs

    batches = random_batches({"a": [3, 3], "b": [2, 0]}, (6, 3), 2)
    exact = Sites(seeded(Recurrent), dSGD, batches).run()["a"]
    assert farthest(Sites(seeded(Recurrent), lambda: rankDAD(None, 0.0), batches).run()["a"], exact) < 1e-12


@pytest.mark.parametrize("strategy", [lambda: PowerSGD(1), lambda: rankDAD(1)])
def test_one_site_that_is_not_finite_makes_all_so_and_no_memory_of_it_is_kept(strategy: Callable[[], Strategy]) -> None:
    models = [seeded(cnn)() for _ in range(2)]
    strategies = [strategy() for _ in models]
    for fails in (False, True):
        steps = []
        for number, (model, each) in enumerate(zip(models, strategies)):
            each.watch(model)
            model.zero_grad()
            model(torch.ones(3, 2, 5, 5, dtype=torch.float64)).square().mean().backward()
            if fails and number == 1:
                model[0].weight.grad[0] = INF
            steps.append(each.average_gradients(Gradients("main", list(model.parameters()), 3)))
        before = strategies[0].state_dict()
        _drive(steps)
    for model, each in zip(models, strategies):
        assert all(bool(parameter.grad.isnan().all()) for parameter in model.parameters())
        shared = each.state_dict().get("shared", {})
        assert shared.get("steps") == before.get("shared", {}).get("steps")
        assert all(bool(factor.isfinite().all()) for factor in shared.get("factors", {}).values())


# Robust means


def _answer(kind: str, values: list[float], tolerated: int = 1, weights: list[float] | None = None) -> list[float]:
    weights = weights or [1.0] * len(values)
    asked = [
        Robust("x", [torch.tensor([value]), torch.tensor([weight], dtype=torch.float64)], kind, tolerated)
        for value, weight in zip(values, weights)
    ]
    return [float(tensor) for tensor in combine(list(asked))]


@pytest.mark.parametrize("bad", [1e30, -1e30, NAN, INF])
@pytest.mark.parametrize("kind", ["median", "trimmed_mean", "krum"])
def test_robust_means_survive_one_site_that_sends_anything(kind: str, bad: float) -> None:
    mean, weight = _answer(kind, [1.0, 2.0, bad, 1.5, 1.25])
    assert 1.0 <= mean <= 2.0
    assert weight == (4.0 if bad != bad or bad == INF else 5.0)


def test_robust_means_are_what_their_names_say() -> None:
    assert _answer("median", [5.0, 1.0, 2.0])[0] == 2.0
    assert _answer("median", [5.0, 1.0, 2.0, 4.0])[0] == 3.0
    assert _answer("trimmed_mean", [100.0, 1.0, 2.0, 6.0, -50.0])[0] == 3.0
    assert _answer("trimmed_mean", [9.0, 1.0, 2.0, 3.0, 4.0], tolerated=0)[0] == pytest.approx(3.8)
    assert _answer("trimmed_mean", [9.0, 1.0])[0] == 5.0  # none can be left out of two
    assert _answer("krum", [1.0, 1.1, 5.0, 1.3, -4.0])[0] == pytest.approx(1.1)
    assert _answer("krum", [1.0, 3.0])[0] == 2.0
    assert _answer("krum", [7.0])[0] == 7.0


def test_sites_without_data_have_no_say_in_robust_means() -> None:
    assert _answer("median", [0.0, 3.0, 0.0], weights=[0.0, 2.0, 0.0]) == [3.0, 2.0]
    assert _answer("median", [1.0, 3.0], weights=[0.0, 0.0]) == [0.0, 0.0]
    mean, weight = _answer("median", [NAN, INF])
    assert mean != mean
    assert weight == 0.0


@pytest.mark.parametrize("aggregate", ["median", "trimmed_mean", "krum"])
def test_a_site_that_sends_nonsense_does_not_keep_the_others_from_learning(aggregate: str) -> None:
    sizes = {name: [8] * 30 for name in "abcde"}
    batches = random_batches(sizes, (3,), 2)
    truth = torch.tensor([[1.0, 2.0, 3.0], [-1.0, 0.5, 2.0]], dtype=torch.float64)
    for name, steps in batches.items():
        steps[:] = [(x[0], x[0] @ truth.T * (-1e6 if name == "c" else 1.0)) for x in steps if x is not None]

    def fits(strategy: Callable[[], Strategy]) -> bool:
        weights = Sites(seeded(line), strategy, batches).run()["a"]["weight"]
        return bool((weights - truth).abs().max() < 0.7)

    assert fits(lambda: dSGD(aggregate))
    assert not fits(dSGD)


def test_processes_of_one_run_refuse_robust_means() -> None:
    def steps() -> Iterator[Robust]:
        yield Robust("gradients main", [torch.ones(2), torch.ones(1, dtype=torch.float64)])
        return RunResult("finished", 1, 1, 0.0)

    with pytest.raises(ProtocolError, match=r"gradients main.*median.*\n.*aggregate: sum"):
        drive_among_processes(steps(), Place(0, 2, 0, "torchrun"), Position)


# What travels

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
    assert _bytes(lambda: SCAFFOLD(1)) == steps * sites * ways * (8 * parameters + 8)
    assert _bytes(lambda: Payload(dSGD(), "bf16")) == steps * sites * ways * (2 * parameters + 8)
    assert _bytes(lambda: Payload(dSGD(), "fp32"), double=True) < _bytes(dSGD, double=True) * 0.51
    assert _bytes(lambda: PowerSGD(2)) < dense / 10
    assert _bytes(rankDAD) < dense / 3
    assert _bytes(lambda: TopK(dSGD(), 0.01)) < dense / 10
    assert _bytes(lambda: TopK(Payload(dSGD()), 0.01)) < _bytes(lambda: TopK(dSGD(), 0.01))


def test_rounded_payloads_cannot_overflow_and_keep_weights_whole() -> None:
    (asked,) = _asked(Payload(dSGD(), "fp16"), torch.tensor([[1e6, 3.0, 1e-3]]), weight=100_001)
    gradients, weight = asked.tensors
    assert float(weight) == 100_001
    assert float(gradients[0, 0]) == pytest.approx(100_001e6, rel=1e-3)
    assert float(gradients[0, 1]) == pytest.approx(300_003, rel=1e-3)
    (asked,) = _asked(Payload(dSGD(), "bf16"), torch.tensor([[1e6, 3.0, NAN]]), weight=2)
    assert bool(asked.tensors[0].isnan()[0, 2])
    assert float(asked.tensors[0][0, 0]) == float(torch.tensor(2e6).bfloat16())


def _asked(strategy: Strategy, gradient: Tensor, weight: float) -> list:
    model = nn.Linear(gradient.shape[1], len(gradient), bias=False)
    strategy.watch(model)
    model.weight.grad = gradient.clone()
    step = strategy.average_gradients(Gradients("main", list(model.parameters()), weight))
    asked = [next(step)]
    _drive([_resumed(step, asked[0])])
    return asked


def _resumed(step: Iterator[object], first: object) -> Iterator[object]:
    answer = yield first
    while True:
        try:
            answer = yield step.send(answer)
        except StopIteration:
            return


def test_topk_sends_the_largest_and_then_what_waited() -> None:
    strategy = TopK(dSGD(), 1 / 3)
    (asked,) = _asked(strategy, torch.tensor([[1.0, -5.0, 3.0]]), weight=1)
    assert asked.tensors[0].tolist() == [[0.0, -5.0, 0.0]]
    (asked,) = _asked(strategy, torch.tensor([[1.0, 1.0, 0.0]]), weight=1)
    assert asked.tensors[0].tolist() == [[0.0, 0.0, 3.0]]
    (asked,) = _asked(strategy, torch.tensor([[1.0, NAN, 0.0]]), weight=1)  # nothing of it is used, nor kept
    (asked,) = _asked(strategy, torch.tensor([[0.0, 0.0, 0.0]]), weight=1)
    assert asked.tensors[0].tolist() == [[2.0, 0.0, 0.0]]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: dSGD("mean"), "aggregate is 'mean'"),
        (lambda: FedAvg(aggregate="krum", tolerated=-1), "tolerated is -1"),
        (lambda: FedAvg(0), "steps_per_round is 0"),
        (lambda: PowerSGD(0), "rank is 0"),
        (lambda: rankDAD(0), "rank is 0"),
        (lambda: TopK(dSGD(), 0.0), "share of top-k is 0.0"),
        (lambda: Payload(dSGD(), "int8"), "numbers are 'int8'"),
    ],
)
def test_wrong_arguments_are_refused(wrong: Callable[[], Strategy], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        wrong()


def test_a_basis_spans_what_it_was_made_from_and_is_filled_up_at_random() -> None:
    first, second = torch.eye(6, dtype=torch.float64)[:2]
    for columns in ([first, 2 * first, first + second], [0 * first, 0 * first, first + second], [0 * first] * 3):
        matrix = torch.stack(columns, dim=1)
        bases = [orthonormal(matrix, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
        assert torch.equal(bases[0], bases[1])
        assert not torch.allclose(bases[0].abs(), bases[2].abs())
        for basis in bases:
            assert torch.allclose(basis.T @ basis, torch.eye(3, dtype=torch.float64), atol=1e-12)
            assert torch.allclose(basis @ (basis.T @ matrix), matrix, atol=1e-12)


def test_powersgd_hears_of_a_gradient_in_a_corner() -> None:
    """Inputs that are always zero (the border of an image) and dead units: unit vectors would miss the rest."""
    model, strategy = nn.Linear(5, 8, bias=False), PowerSGD(1)
    strategy.watch(model)
    applied = torch.zeros(8, 5)
    for step in range(4):
        model.weight.grad = torch.zeros(8, 5)
        model.weight.grad[-1, -1] = float(step > 0)
        _drive([strategy.average_gradients(Gradients("main", [model.weight], 4))])
        applied += model.weight.grad
    assert float(applied[-1, -1]) == pytest.approx(3.0)


@pytest.mark.parametrize("strategy", [FedAvg, SCAFFOLD, FedBN])
def test_a_site_whose_loss_was_not_finite_does_not_take_the_step(strategy: type[FedAvg]) -> None:
    model, each = nn.Linear(5, 8), strategy()
    each.watch(model)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, NAN)
    assert list(each.average_gradients(Gradients("main", list(model.parameters()), 0.0))) == []
    assert all(parameter.grad is None for parameter in model.parameters())


def test_rankdad_takes_deltas_of_convolutions_by_position() -> None:
    model, strategy = nn.Conv2d(4, 12, 3), rankDAD(None)
    strategy.watch(model)
    inputs = torch.randn(2, 4, 3, 4, generator=torch.Generator().manual_seed(0))
    model(inputs).square().sum().backward()
    (deltas,) = strategy._deltas.values()
    assert deltas is not None
    expected = 2 * model(inputs).detach()
    assert torch.allclose(deltas[0], expected.permute(0, 2, 3, 1).reshape(4, 12))
    assert _received_by(strategy, model) == [(4, 12), (4, 36)]


def _received_by(strategy: Strategy, model: nn.Module) -> list[tuple[int, ...]]:
    answers = _drive([strategy.average_gradients(Gradients("main", list(model.parameters()), 2))])
    return [tuple(tensor.shape) for tensor in answers[-1]]
