"""`weft profile`: every step is accounted for, what is measured is what trains, and advice follows from the numbers."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.data.helpers import global_states
from tests.engine.runs import build, last_weights, small_experiment, trained, untimed
from weft.actions import profile, train
from weft.actions.advice import advise
from weft.actions.profiling import PhaseTime, Profile
from weft.config import Component
from weft.engine import drive_alone, training
from weft.engine.phases import PHASES, Clock, measured
from weft.errors import UsageError
from weft.runs import RunDirectory

QUIET = {"progress": False, "tensorboard": False}


class Slow:
    """Items that take their time."""

    def __init__(self, count: int = 24, seconds: float = 0.01) -> None:
        self.count, self.seconds = count, seconds

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        time.sleep(self.seconds)
        return torch.full((30,), float(row)), torch.tensor(row % 2)


def slow(**changes: Any) -> Any:
    parts = {name: Component.of(Slow, count=count) for name, count in {"train": 24, "validation": 8}.items()}
    return small_experiment({"class": parts}, batch_size=4, **changes)


@pytest.mark.parametrize("changes", [{}, {"accumulate": 3, "clip_norm": 1.0}, {"precision": "fp16", "ema": {}}])
def test_a_measured_run_is_the_same_to_the_bit(changes: dict[str, Any]) -> None:
    plain, _ = trained(small_experiment(**changes))
    run = build(small_experiment(**changes))
    clock = Clock(torch.device("cpu"))
    clock.begin()
    with measured(run, clock):
        drive_alone(training(run))
    assert all(torch.equal(tensor, last_weights(plain)[name]) for name, tensor in last_weights(run).items())
    assert untimed(run) == untimed(plain)
    assert len(clock.steps) == run.state.position.step
    for step in clock.steps:
        assert {"loading", "forward", "backward", "rest", "step"} <= set(step)
        assert sum(step.get(name, 0.0) for name in PHASES) == pytest.approx(step["step"])
    assert sum("optimizer" in step for step in clock.steps) == len(clock.steps) - run.state.sums.skipped_steps
    assert run.train is not None
    assert "epoch" not in vars(run.train)
    assert "training_step" not in vars(run.task)
    assert not any(optimizer._optimizer_step_pre_hooks for optimizer in run.state.optimizers.values())


def test_waiting_for_data_is_seen_and_told() -> None:
    before = global_states()
    found = profile(slow(run={"num_workers": 0}), steps=6)
    assert global_states() == before
    assert found.phases["loading"].share > 0.5
    assert found.phases["loading"].median >= 0.04
    assert sum(found.phases[name].share for name in found.phases if name != "step") == pytest.approx(1.0)
    assert found.phases["step"].share == pytest.approx(1.0)
    assert found.seconds_per_step > 0.04
    assert found.validation is not None
    assert found.validation > 0.08
    assert found.memory > 2**20
    assert found.hints[0].startswith("loading takes ")
    assert "run.num_workers: 4" in found.hints[0]
    assert Profile.from_dict(json.loads(json.dumps(found.as_dict()))) == found


def test_a_schedule_that_is_shorter_than_the_profile_is_no_hindrance() -> None:
    """24 items in batches of 4 are 6 steps an epoch; a schedule of a cycle raises after its last step."""
    found = profile(slow(epochs=1, scheduler={"OneCycleLR": {"max_lr": 0.1}}, run={"num_workers": 0}), steps=5)
    assert found.seconds_per_step > 0


def test_a_long_validation_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("weft.actions.profiling._VALIDATION_SECONDS", 0.01)
    found = profile(slow(run={"num_workers": 0}, evaluation_batch_size=1), steps=2)
    assert found.validation is not None
    assert found.validation > 0.07  # eight items of 0.01 s each, one of which was scored


def test_nothing_is_written_but_the_trace(tmp_path: Path) -> None:
    experiment = small_experiment(run={"output": tmp_path / "runs"})
    profile(experiment, steps=2, trace=tmp_path / "trace.json")
    assert [path.name for path in tmp_path.iterdir()] == ["trace.json"]
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert any("addmm" in str(event.get("name")) for event in events)


def test_a_run_keeps_its_profile_and_shows_it(tmp_path: Path) -> None:
    run = train(slow(epochs=2, run={**QUIET, "num_workers": 2}), out=tmp_path / "run")
    waited = run.result["loading"]
    assert 0 < waited["seconds"] <= waited["of_training_seconds"]
    page = (run.path / "report.html").read_text()
    assert "were waiting for data" in page
    assert "measured by weft profile" not in page
    found = profile(run.path, steps=3)
    assert found.num_workers == 2
    directory = RunDirectory.open(run.path)
    assert Profile.from_dict(directory.read_json(directory.profile_file)) == found
    assert "A step, measured by weft profile" in (run.path / "report.html").read_text()


def test_several_processes_need_a_file() -> None:
    with pytest.raises(UsageError, match="need an experiment file"):
        profile(small_experiment(run={"processes": 2}))


def measured_as(**changes: Any) -> Profile:
    """A profile with nothing to remark, and changes of it."""
    shares = {"loading": 0.02, "forward": 0.4, "backward": 0.5, "optimizer": 0.05, "rest": 0.03}
    shares |= changes.pop("shares_of_step", {})
    found = Profile("made", "cpu", 1, 1, 0, 64, 1, False, 50, seconds_per_step=0.1, steps_per_epoch=10)
    found.phases = {name: PhaseTime(share / 10, share / 10, share) for name, share in shares.items()}
    found.shares = {"validation": 0.1, "checkpoints": 0.01}
    for name, value in changes.items():
        setattr(found, name, value)
    return found


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, "nothing stands out: forward and backward pass are 90% of a step"),
        ({"shares_of_step": {"loading": 0.6}}, "run.cache: memory, or disk"),
        ({"shares_of_step": {"loading": 0.6}, "num_workers": 3}, "more than 3 loader processes"),
        ({"shares_of_step": {"loading": 0.6}, "in_memory": True}, "lie in memory already"),
        ({"shares_of_step": {"transfer": 0.3}}, "moving batches to cpu takes 30% of a step"),
        ({"shares_of_step": {"exchange": 0.4}, "processes": 4}, "the exchange among 4 processes takes 40% of a step"),
        ({"shares_of_step": {"optimizer": 0.4}}, "training.fused: true"),
        ({"seconds_per_step": 0.0004, "batch_size": 4}, "a step of 4 items takes 0.4 ms"),
        ({"shares": {"validation": 0.5}}, "training.evaluate_every"),
        ({"shares": {"checkpoints": 0.3}, "checkpoint": 2.0}, "checkpoints 30% of the time (2 s each)"),
    ],
)
def test_advice(changes: dict[str, Any], told: str) -> None:
    hints = advise(small_experiment(), measured_as(**changes))
    assert len(hints) == 1
    assert told in hints[0]
