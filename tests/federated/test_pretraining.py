"""Pretraining: the largest site trains alone first, and all begin with its weights."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.engine.studies import DoubleNet
from tests.federated.lab import outcome, state_of, study
from weft.actions.opening import load, open_experiment_data
from weft.data import make_loader
from weft.engine import Observer, Run, build_run
from weft.engine.events import Step
from weft.errors import CohortError, ConfigError, Stopped
from weft.federated import pretraining
from weft.federated.agreeing import same_weights
from weft.federated.site import site_experiment
from weft.federated.study import simulate

pytest.importorskip("sklearn")
NO_VALIDATION = {"dataset": {}, "federation__pretraining": {"epochs": 2}}


def _all_training(**changes: Any) -> dict[str, Any]:
    """Three sites with training data alone; west and south are the largest."""
    parts = {"north": (0, 30), "south": (30, 80), "west": (80, 130)}
    sites = {
        name: {"class": {"train": {"tests.federated.lab.Rows": {"start": start, "stop": stop}}}}
        for name, (start, stop) in parts.items()
    }
    return study(sites, **(NO_VALIDATION | changes))


def test_all_begin_with_what_the_largest_site_has_trained(tmp_path: Path) -> None:
    own = {"epochs": 2, "batch_size": 5, "optimizer": {"SGD": {"lr": 0.1}}}
    # a learning rate of zero shows what the study began with
    still = {"SGD": {"lr": 0.0}}
    written = _all_training(federation__pretraining=own, training__optimizer=still, training__epochs=1)
    done = simulate(written, out=tmp_path / "study")
    assert done.result["pretraining"] == {"site": "south", "items": 50, "epochs": 2}
    experiment = load(written)
    torch.manual_seed(experiment.seed)
    model = DoubleNet()
    site = site_experiment(experiment, "south")
    loader = make_loader(open_experiment_data(site).splits["train"], batch_size=5, seed=site.seed, shuffle=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for epoch in range(2):
        for batch in loader.epoch(epoch):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(batch.inputs), batch.targets).backward()
            optimizer.step()
    for name in ("north", "south", "west"):
        found = state_of(done.path, name)["model"]
        assert all(torch.equal(found[key], value) for key, value in model.state_dict().items())
    assert done.result["sites"]["north"]["bytes"]["by_kind"]["pretraining"]["messages"] == 2


@pytest.mark.slow
def test_what_is_drawn_afterwards_does_not_depend_on_it(tmp_path: Path) -> None:
    model = {"tests.engine.studies.DoubleNet": {"dropout": 0.5}}
    states = []
    for name, settings in {"with": {"epochs": 1}, "without": None}.items():
        done = simulate(_all_training(model=model, federation__pretraining=settings), out=tmp_path / name)
        states.append(state_of(done.path, "south")["random"])
    assert torch.equal(states[0]["torch"], states[1]["torch"])


class _At(Observer):
    """Does something in a step of the study, or of pretraining."""

    def __init__(self, step: int, name: int) -> None:
        self.step, self.name = step, name

    def on_step(self, step: Step) -> None:
        if step.step == self.step:
            os.kill(os.getpid(), self.name)


def _watched(monkeypatch: pytest.MonkeyPatch, step: int, name: int) -> None:
    def built(*arguments: Any, **settings: Any) -> Run:
        return build_run(*arguments, observers=[_At(step, name)], **settings)

    monkeypatch.setattr(pretraining, "build_run", built)


@pytest.mark.slow
@pytest.mark.parametrize("name", [signal.SIGTERM, signal.SIGKILL])
def test_a_study_that_ends_in_pretraining_does_it_again_to_the_same_bits(
    name: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = _all_training(model={"tests.engine.studies.DoubleNet": {"dropout": 0.3}})
    undisturbed = simulate(written, out=tmp_path / "undisturbed")
    if name == signal.SIGTERM:
        with monkeypatch.context() as patched:
            _watched(patched, 9, name)
            with pytest.raises(Stopped) as caught:
                simulate(written, out=tmp_path / "study")
        assert f"weft federate simulate --resume {tmp_path / 'study'}" in caught.value.hint
    else:
        child = os.fork()
        if child == 0:
            try:
                _watched(monkeypatch, 9, name)
                simulate(written, out=tmp_path / "study")
            finally:
                os._exit(3)
        assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    done = simulate(tmp_path / "study", resume=True)
    assert outcome(done.path) == outcome(undisturbed.path)
    assert done.result["pretraining"] == undisturbed.result["pretraining"]


@pytest.mark.slow
def test_what_follows_goes_on_as_ever(tmp_path: Path) -> None:
    from tests.federated.lab import simulate_and_die

    undisturbed = simulate(_all_training(), out=tmp_path / "undisturbed")
    simulate_and_die(_all_training(), tmp_path / "killed", "south", 2)
    done = simulate(tmp_path / "killed", ["run.observers=[]"], resume=True)
    assert outcome(done.path) == outcome(undisturbed.path)
    assert done.result["pretraining"] == undisturbed.result["pretraining"]


def test_a_site_that_leaves_with_what_it_has_trained_is_missed() -> None:
    """Sums without it are zeros, which nobody is to begin with."""
    model = DoubleNet()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    run: Any = SimpleNamespace(participant=0, state=SimpleNamespace(model=model, average=None))
    steps = same_weights(run, giver=1)
    asked = next(steps)
    with pytest.raises(CohortError, match="has left before it told them"):
        steps.send([torch.zeros_like(tensor) for tensor in asked.tensors])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_it_is_not_exact(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not begin with what one site has trained"):
        simulate(_all_training(federation__exact=True), out=tmp_path / "study")
