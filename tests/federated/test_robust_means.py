"""Means that a site which sends anything cannot spoil."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch

from tests.federated.sites import Sites, random_batches, seeded
from tests.federated.test_strategies import line
from weft.engine import Robust, RunResult, Strategy
from weft.engine.collectives import combine
from weft.engine.processes import Place, drive_among_processes
from weft.engine.state import Position
from weft.errors import ProtocolError
from weft.federated import dSGD

NAN, INF = float("nan"), float("inf")


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
