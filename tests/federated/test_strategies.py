"""What each strategy does: against formulas of its paper, and where it is to be better than a simpler one."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tests.federated.sites import Sites, drive, farthest, random_batches, seeded
from tests.federated.test_properties import cnn, mlp
from weft.engine import Gradients, Strategy
from weft.errors import UsageError
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
    items = [state["private"]["own_items"]["weight"] for state in states]
    assert items == [14.0, 30.0, 7.0]
    mean = sum(count * state["private"]["own"]["weight"] for count, state in zip(items, states)) / sum(items)
    for state in states:
        told = state["shared"]["variates"]["weight"] / state["shared"]["total"]["weight"]
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
        drive(steps)
        applied += 8 * strategies[0][0].weight.grad
    waiting = sum(strategy.errors["main weight"] for _, strategy in strategies)
    assert float((wanted - applied).abs().max()) > 0.1
    assert torch.allclose(applied + waiting, wanted, rtol=0, atol=1e-12)


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
    drive([strategy.average_gradients(Gradients("main", list(model.parameters()), 4))])
    assert not strategy._deltas


def test_rankdad_sends_no_more_parts_than_the_gradient_has() -> None:
    batches = random_batches({"a": [2], "b": [3]}, (5,), 2)
    sites = Sites(seeded(lambda: nn.Linear(5, 4)), lambda: rankDAD(None), _widened(batches))
    sites.run()
    assert sites.sent == (2 + 3) * (5 + 4) * 8 + 2 * (4 + 3) * 8


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
def test_where_losses_are_scaled_one_infinite_site_makes_all_so_and_no_memory_of_it_is_kept(
    strategy: Callable[[], Strategy],
) -> None:
    models = [seeded(cnn)() for _ in range(2)]
    strategies = [strategy() for _ in models]
    scaler = torch.amp.GradScaler("cpu", init_scale=1.0)
    for fails in (False, True):
        steps = []
        for number, (model, each) in enumerate(zip(models, strategies)):
            each.watch(model)
            model.zero_grad()
            model(torch.ones(3, 2, 5, 5, dtype=torch.float64)).square().mean().backward()
            if fails and number == 1:
                model[0].weight.grad[0] = INF
            steps.append(each.average_gradients(Gradients("main", list(model.parameters()), 3, scaler=scaler)))
        before = strategies[0].state_dict()
        drive(steps)
    for model, each in zip(models, strategies):
        assert all(bool(parameter.grad.isnan().all()) for parameter in model.parameters())
        shared = each.state_dict().get("shared", {})
        assert shared.get("steps") == before.get("shared", {}).get("steps")
        assert all(bool(factor.isfinite().all()) for factor in shared.get("factors", {}).values())


@pytest.mark.parametrize("strategy", [lambda: PowerSGD(2), lambda: rankDAD(None)])
def test_elsewhere_it_weighs_nothing(strategy: Callable[[], Strategy]) -> None:
    gradients = []
    for sites in (2, 1):
        models = [seeded(cnn)() for _ in range(sites)]
        steps = []
        for number, model in enumerate(models):
            each = strategy()
            each.watch(model)
            model(torch.ones(3, 2, 5, 5, dtype=torch.float64)).square().mean().backward()
            if number == 1:
                model[0].weight.grad[0] = INF
            steps.append(each.average_gradients(Gradients("main", list(model.parameters()), 3)))
        drive(steps)
        gradients.append([parameter.grad for parameter in models[0].parameters()])
    for with_it, without in zip(*gradients, strict=True):
        assert torch.allclose(with_it, without, atol=1e-12)
        assert bool(with_it.isfinite().all())


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
        drive([strategy.average_gradients(Gradients("main", [model.weight], 4))])
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
    assert _received_by(strategy, model) == [(4, 12), (4, 36), (1,)]  # the last: what belongs to them weighs


def _received_by(strategy: Strategy, model: nn.Module) -> list[tuple[int, ...]]:
    answers = drive([strategy.average_gradients(Gradients("main", list(model.parameters()), 2))])
    return [tuple(tensor.shape) for tensor in answers[-1]]


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
        (lambda: FedProx(-1.0), "mu is -1.0"),
        (lambda: FedProx(math.inf), "mu is inf"),
        (lambda: FedAvgM(-1.0), "learning_rate is -1.0"),
        (lambda: FedAvgM(momentum=1.0), "momentum is 1.0"),
        (lambda: FedAdam(0.0), "learning_rate is 0.0"),
        (lambda: FedAdam(beta1=-0.1), "beta1 is -0.1"),
        (lambda: FedYogi(beta2=2.0), "beta2 is 2.0"),
        (lambda: FedYogi(tau=0.0), "tau is 0.0"),
    ],
)
def test_wrong_arguments_are_refused(wrong: Callable[[], Strategy], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        wrong()
