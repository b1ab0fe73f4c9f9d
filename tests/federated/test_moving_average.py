"""A moving average of the weights is that of what all sites have, also where they train by themselves for a round."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.federated.lab import outcome, study
from weft.actions import TrainedRun
from weft.engine import CheckpointFolder, Observer, Run
from weft.engine.events import Validation
from weft.errors import Stopped
from weft.federated.study import simulate

pytest.importorskip("sklearn")
DECAY = 0.9
AVERAGED: dict[str, Any] = {"training__ema": {"decay": DECAY}}
FEDAVG: Any = {"FedAvg": {"steps_per_round": 3}}
ROUNDED: Any = {"Payload": {"strategy": {"component": FEDAVG}}}


class Weights(Observer):
    """Keeps the common weights at the end of each epoch, of the site that comes to it last."""

    def __init__(self) -> None:
        self.run: Run | None = None

    def on_build(self, run: Any) -> None:
        self.run = run

    def on_validation(self, progress: Validation) -> None:
        assert self.run is not None
        SEEN[self.run.state.position.step] = {
            name: weight.detach().clone() for name, weight in self.run.state.model.named_parameters()
        }


SEEN: dict[int, dict[str, Tensor]] = {}


class StopInValidation(Observer):
    """Sends its process a signal to stop when validation has begun for the nth time.

    Args:
        times: n.
    """

    def __init__(self, times: int) -> None:
        self.times = times

    def on_validation(self, progress: Validation) -> None:
        self.times -= 1
        if self.times == 0:
            os.kill(os.getpid(), signal.SIGTERM)


def _states(path: Path) -> list[dict[str, Any]]:
    states = [CheckpointFolder(site / "checkpoints").load_last() for site in sorted(path.glob("sites/[nsw]*"))]
    return [state for state in states if state is not None]


def _require_common(done: TrainedRun) -> None:
    first, *others = [state["average"] for state in _states(done.path)]
    assert len(others) == 2
    assert all(torch.equal(other[name], first[name]) for other in others for name in first)
    assert done.result["model_sha256"] is not None


@pytest.mark.parametrize(
    "strategy",
    [FEDAVG, *(pytest.param(one, marks=pytest.mark.slow) for one in ("FedAvg", "SCAFFOLD", "FedAdam", ROUNDED))],
    ids=str,
)
def test_it_is_the_same_at_all_sites_and_they_end_with_one_model(strategy: Any, tmp_path: Path) -> None:
    away = {"site": "west", "event": "leaves", "step": 5, "returns": 11}
    done = simulate(
        study(federation__strategy=strategy, **AVERAGED), out=tmp_path / "study", scenario={"events": [away]}
    )
    assert done.result["away"] == []
    _require_common(done)


def test_the_weights_of_a_rounds_end_count_for_all_its_steps(tmp_path: Path) -> None:
    SEEN.clear()
    watched = {"run__observers": [{"tests.federated.test_moving_average.Weights": {}}]}
    done = simulate(study(federation__strategy="FedAvg", **AVERAGED, **watched), out=tmp_path / "study")
    _require_common(done)
    start = simulate(study(training__epochs=1, training__optimizer={"SGD": {"lr": 0.0}}), out=tmp_path / "start")
    expected = _states(start.path)[0]["model"]
    before = 0
    for step in sorted(SEEN)[: done.result["epochs"]]:
        kept = DECAY ** (step - before)
        expected = {name: kept * weight + (1 - kept) * SEEN[step][name] for name, weight in expected.items()}
        before = step
    average = _states(done.path)[0]["average"]
    assert before == done.result["steps"]
    for name, weight in expected.items():
        assert torch.allclose(average[name], weight, rtol=0, atol=1e-12)


@pytest.mark.slow
def test_running_statistics_of_the_average_are_those_of_all_sites(tmp_path: Path) -> None:
    model = {"tests.engine.studies.DoubleNet": {"batch_norm": True}}
    done = simulate(study(model=model, training__epochs=1, **AVERAGED), out=tmp_path / "study")
    _require_common(done)
    for state in _states(done.path):
        statistics = [name for name in state["average"] if name.endswith(("running_mean", "running_var"))]
        assert len(statistics) == 2
        for name in statistics:
            assert torch.equal(state["average"][name], state["model"][name])
            assert len(state["average"][name].unique()) > 1  # they have moved from where they began


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["FedAvg", FEDAVG], ids=str)
def test_a_stop_in_validation_takes_no_round_twice(strategy: Any, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"federation__strategy": strategy, **AVERAGED}
    undisturbed = simulate(study(**settings), out=tmp_path / "undisturbed")
    watching = [{"tests.federated.test_moving_average.StopInValidation": {"times": 2}}]
    stopping = study(**settings, run__observers=watching)
    with pytest.raises(Stopped):
        simulate(stopping, out=tmp_path / "stopped")
    done = simulate(tmp_path / "stopped", ["run.observers=[]"], resume=True)
    before, after = outcome(undisturbed.path), outcome(done.path)
    assert all(after[part] == before[part] for part in ("scores", "tables", "model_sha256"))  # one message was more
