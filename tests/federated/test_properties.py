"""What holds of strategies whatever the data: order of sites, splitting a site, and what equals what."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.federated.sites import Batches, Sites, farthest, random_batches, seeded
from weft.engine import Strategy
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
from weft.federated.wrapping import Wrapper

ALL: dict[str, Callable[[], Strategy]] = {
    "dSGD": dSGD,
    "dSGD, median": lambda: dSGD("median"),
    "dSGD, trimmed mean": lambda: dSGD("trimmed_mean"),
    "dSGD, Krum": lambda: dSGD("krum"),
    "FedAvg": lambda: FedAvg(2),
    "FedAvg, Krum": lambda: FedAvg(2, "krum"),
    "FedProx": lambda: FedProx(0.1, 2),
    "FedAvgM": lambda: FedAvgM(steps_per_round=2),
    "FedAdam": lambda: FedAdam(steps_per_round=2),
    "FedYogi": lambda: FedYogi(steps_per_round=2),
    "FedBN": lambda: FedBN(2),
    "SCAFFOLD": lambda: SCAFFOLD(2),
    "PowerSGD": lambda: PowerSGD(1, warmup_steps=1),
    "rankDAD": lambda: rankDAD(1),
    "bf16": lambda: Payload(dSGD()),
    "top-k": lambda: TopK(FedAvg(2), 0.3),
}


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 2))


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 4, 3, groups=2), nn.Tanh(), nn.AdaptiveAvgPool2d(2),
        nn.Flatten(), nn.Linear(16, 2),
    )  # fmt: skip


def volumes() -> nn.Module:
    return nn.Sequential(nn.Conv3d(1, 6, 2), nn.Tanh(), nn.Conv3d(6, 4, 2), nn.Tanh(), nn.Flatten(), nn.Linear(4, 2))


def signals() -> nn.Module:
    return nn.Sequential(nn.Conv1d(2, 6, 3), nn.Tanh(), nn.Conv1d(6, 8, 3), nn.Tanh(), nn.Flatten(), nn.Linear(8, 2))


NETWORKS = {
    "MLP": (mlp, (5,)),
    "signals": (signals, (2, 5)),
    "images": (cnn, (2, 5, 5)),
    "volumes": (volumes, (1, 3, 3, 3)),
}
sizes = st.lists(
    st.lists(st.integers(0, 7), min_size=4, max_size=4), min_size=1, max_size=4
).filter(lambda sites: all(sum(step) > 0 for step in zip(*sites)))  # fmt: skip


def trained(strategy: Callable[[], Strategy], batches: dict[str, Batches], make: Callable[[], nn.Module] = mlp) -> dict:
    """The first site's weights."""
    return next(iter(Sites(seeded(make), strategy, batches).run().values()))


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=4, deadline=None)
@given(sizes=sizes, order=st.randoms(use_true_random=False), seed=st.integers(0, 1000))
def test_no_strategy_depends_on_the_order_of_sites(name: str, sizes: list[list[int]], order: object, seed: int) -> None:
    batches = random_batches({f"site-{number}": steps for number, steps in enumerate(sizes)}, (5,), 2, seed)
    shuffled = list(batches.values())
    order.shuffle(shuffled)
    others = {f"site-{number}": steps for number, steps in enumerate(shuffled)}
    tolerance = 1e-2 if name == "bf16" else 1e-9  # a bit of rounding apart, numbers may round to neighbours
    assert farthest(trained(ALL[name], batches), trained(ALL[name], others)) < tolerance


@settings(max_examples=8, deadline=None)
@given(sizes=sizes, at=st.integers(1, 6), seed=st.integers(0, 1000))
def test_dsgd_does_not_depend_on_splitting_a_site(sizes: list[list[int]], at: int, seed: int) -> None:
    whole = random_batches({f"site-{number}": steps for number, steps in enumerate(sizes)}, (5,), 2, seed)
    first = whole["site-0"]
    head = [None if b is None else (b[0][:at], b[1][:at]) for b in first]
    tail = [None if b is None or len(b[0]) <= at else (b[0][at:], b[1][at:]) for b in first]
    split = {**whole, "site-0": head, "site-00": tail}
    assert farthest(trained(dSGD, whole), trained(dSGD, split)) < 1e-12


@settings(max_examples=8, deadline=None)
@given(sizes=sizes, seed=st.integers(0, 1000))
def test_fedavg_with_one_step_of_gradient_descent_is_dsgd(sizes: list[list[int]], seed: int) -> None:
    batches = random_batches({f"site-{number}": steps for number, steps in enumerate(sizes)}, (5,), 2, seed)
    expected = trained(dSGD, batches)
    for strategy in (lambda: FedAvg(1), lambda: FedAvgM(momentum=0, steps_per_round=1), lambda: FedProx(0.5, 1)):
        assert farthest(trained(strategy, batches), expected) < 1e-12


def _spoiled(batches: dict[str, Batches], how: str) -> dict[str, Batches]:
    """Batches whose first step gives zero, or rank-deficient, gradients."""
    if how == "random":
        return batches

    def first(batch: tuple[torch.Tensor, torch.Tensor] | None) -> tuple[torch.Tensor, torch.Tensor] | None:
        if batch is None:
            return None
        inputs = torch.zeros_like(batch[0])
        if how == "deficient":  # only one input is ever there
            inputs[:, 0] = batch[0][:, 0]
        return inputs, batch[1]

    return {name: [first(steps[0]), *steps[1:]] for name, steps in batches.items()}


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("first", ["random", "zero", "deficient"])
@settings(max_examples=3, deadline=None)
@given(sizes=sizes, seed=st.integers(0, 1000))
def test_powersgd_at_full_rank_is_dsgd(network: str, first: str, sizes: list[list[int]], seed: int) -> None:
    make, shape = NETWORKS[network]
    batches = random_batches({f"site-{number}": steps for number, steps in enumerate(sizes)}, shape, 2, seed)
    batches = _spoiled(batches, first)
    full = trained(lambda: PowerSGD(100, always=True), batches, make)
    assert farthest(full, trained(dSGD, batches, make)) < 1e-11


@pytest.mark.parametrize("network", NETWORKS)
@settings(max_examples=4, deadline=None)
@given(sizes=sizes, seed=st.integers(0, 1000))
def test_rankdad_at_full_rank_is_dsgd(network: str, sizes: list[list[int]], seed: int) -> None:
    make, shape = NETWORKS[network]
    batches = random_batches({f"site-{number}": steps for number, steps in enumerate(sizes)}, shape, 2, seed)
    full = trained(lambda: rankDAD(None, 0.0), batches, make)
    assert farthest(full, trained(dSGD, batches, make)) < 1e-11


@settings(max_examples=5, deadline=None)
@given(sizes=sizes, seed=st.integers(0, 1000))
def test_topk_of_all_is_dense(sizes: list[list[int]], seed: int) -> None:
    batches = random_batches({f"site-{number}": steps for number, steps in enumerate(sizes)}, (5,), 2, seed)
    for strategy in (dSGD, lambda: SCAFFOLD(2), lambda: PowerSGD(2)):
        dense, thinned = trained(strategy, batches), trained(lambda make=strategy: TopK(make(), 1.0), batches)
        assert farthest(dense, thinned) == 0


@pytest.mark.parametrize("name", ALL)
def test_two_runs_in_one_process_do_not_share_a_random_generator(name: str) -> None:
    batches = random_batches({"a": [4, 3, 4, 2], "b": [5, 0, 2, 6]}, (5,), 2)
    alone = trained(ALL[name], batches)
    torch.manual_seed(99)
    before = torch.get_rng_state()
    others = random_batches({"a": [2, 6, 1, 4]}, (5,), 2, seed=8)
    trained(ALL[name], others)
    assert torch.equal(before, torch.get_rng_state())
    assert farthest(trained(ALL[name], batches), alone) == 0


@pytest.mark.parametrize("name", ALL)
def test_what_is_called_shared_in_a_state_is_the_same_at_all_sites(name: str) -> None:
    """A site that comes back is sent the shared state of another; never what is private."""
    batches = random_batches({"a": [4, 3, 4, 2, 1], "b": [5, 0, 2, 6, 2], "c": [1, 2, 3, 0, 0]}, (5,), 2)
    sites = Sites(seeded(mlp), ALL[name], batches)
    sites.run()
    first, *others = (flat(strategy.state_dict().get("shared", {})) for strategy in sites.strategies.values())
    for other in others:
        assert first.keys() == other.keys()
        assert all(torch.equal(first[key], other[key]) for key in first)


def flat(state: object, path: str = "") -> dict[str, torch.Tensor]:
    """Tensors of nested dicts, by path; numbers become tensors."""
    if isinstance(state, dict):
        parts = [flat(value, f"{path}/{key}") for key, value in state.items()]
        return {key: tensor for part in parts for key, tensor in part.items()}
    return {path: torch.as_tensor(state)}


class Reloaded(Wrapper):
    """Begins each step and round from its saved state, which lies in main memory."""

    def begin(self) -> None:
        self.strategy.load_state_dict(_in_main_memory(self.strategy.state_dict()))


def _in_main_memory(state: object) -> object:
    if isinstance(state, dict):
        return {key: _in_main_memory(value) for key, value in state.items()}
    return state.cpu().clone() if isinstance(state, torch.Tensor) else state


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("name", ALL)
def test_a_strategy_that_is_saved_and_loaded_at_every_step_is_the_same(name: str, device: str) -> None:
    batches = random_batches({"a": [4, 3, 4, 2], "b": [5, 0, 2, 6]}, (5,), 2)
    expected = trained(ALL[name], batches)
    for steps in batches.values():
        steps[:] = [None if batch is None else (batch[0].to(device), batch[1].to(device)) for batch in steps]
    make = seeded(mlp)
    weights = Sites(lambda: make().to(device), lambda: Reloaded(ALL[name]()), batches).run()["a"]
    on_cpu = {key: weight.cpu() for key, weight in weights.items()}
    assert farthest(on_cpu, expected) <= (0 if device == "cpu" else 1e-2 if name == "bf16" else 1e-9)
