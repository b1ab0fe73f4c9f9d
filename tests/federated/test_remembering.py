"""What the hub remembers is kept with the states of the sites: a study that goes on refuses what it would have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.federated.lab import outcome, simulate_and_die, study
from weft.config import CohortConfig
from weft.errors import CheckpointError, Stopped
from weft.federated.hub import Hub
from weft.federated.ledger import Ledger, read_ledger
from weft.federated.remembering import HubMemory
from weft.federated.study import simulate
from weft.runs import RunDirectory

pytest.importorskip("sklearn")


@pytest.mark.parametrize(
    ("strategy", "beside"),
    [("dSGD", False), pytest.param({"PowerSGD": {"rank": 2}}, True, marks=pytest.mark.slow)],
    ids=str,
)
def test_an_absurd_update_right_after_a_study_went_on_is_refused_as_it_would_have_been(
    strategy: Any, beside: bool, tmp_path: Path
) -> None:
    """In step 6 only south has items left: what is usual, the hub knows from the steps before alone."""
    absurd = {"site": "south", "event": "update", "step": 6, "times": 1e9}
    settings: dict[str, Any] = {
        "federation__strategy": strategy, "run__checkpoint_every": {"steps": 1}, "training__epochs": 1,
        "run__checkpoint_async": beside,
    }  # fmt: skip
    undisturbed = simulate(study(**settings), out=tmp_path / "undisturbed", scenario={"events": [absurd]})
    refused = [(row["event"], row["site"], row["step"]) for row in read_ledger(undisturbed.path / "ledger.jsonl")]
    assert ("refused", "south", 6) in refused
    simulate_and_die(study(**settings), tmp_path / "killed", "west", 6, scenario={"events": [absurd]})
    done = simulate(tmp_path / "killed", ["run.observers=[]"], resume=True)
    assert outcome(done.path) == outcome(undisturbed.path)
    assert done.result["events"] == undisturbed.result["events"]


def _hub() -> Hub:
    return Hub("ab", ["north", "south"], CohortConfig(), Ledger())


def test_memory_is_that_of_the_boundary_where_a_study_goes_on(tmp_path: Path) -> None:
    directory, hub = RunDirectory(tmp_path), _hub()
    memory = HubMemory(directory, hub, keep=3)
    states = {}
    for step in range(1, 6):
        hub.load_state_dict(
            {"usual": {"gradients main": step / 3}, "left_out": [], "lost": ["north"] * (step % 2), "place": [step, 3]}
        )
        states[step] = hub.state_dict()
        memory.note((0, step, 0))
        hub.load_state_dict({"usual": {}, "left_out": ["south"], "lost": [], "place": [9, 1]})
        memory.note((0, step, 0))  # the next site saves there
    other = _hub()
    HubMemory(directory, other, keep=3).go_back((0, 4, 0))
    assert other.state_dict() == states[4]
    again = HubMemory(directory, other, keep=3)
    again.go_back((0, 4, 0))
    again.note((1, 5, 0))
    assert [(row["epoch"], row["step"]) for row in json.loads((tmp_path / "hub.json").read_text())] == [
        (0, 3), (0, 4), (1, 5),
    ]  # fmt: skip


def test_sites_that_save_again_at_a_boundary_after_further_exchanges_replace_what_they_saved(tmp_path: Path) -> None:
    hub = _hub()
    memory = HubMemory(RunDirectory(tmp_path), hub, keep=3)
    memory.note((0, 8, 1))
    hub.load_state_dict({"usual": {"round main": 3.0}, "left_out": [], "lost": [], "place": [8, 2]})
    hub.number += 1
    memory.note((0, 8, 1))
    other = _hub()
    HubMemory(RunDirectory(tmp_path), other, keep=3).go_back((0, 8, 1))
    assert other.state_dict() == hub.state_dict()
    assert len(json.loads((tmp_path / "hub.json").read_text())) == 1


@pytest.mark.slow
def test_a_stop_in_validation_right_after_a_save_keeps_what_the_hub_learnt_of_the_rounds_end(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"federation__strategy": "FedAvg", "run__checkpoint_every": {"steps": 8}}
    undisturbed = simulate(study(**settings), out=tmp_path / "undisturbed")
    assert undisturbed.result["steps"] == 3 * 8  # so all save before the end of the round, and again when they stop
    stop = [{"tests.federated.test_moving_average.StopInValidation": {"times": 2}}]
    with pytest.raises(Stopped):
        simulate(study(**settings, run__observers=stop), out=tmp_path / "stopped")
    done = simulate(tmp_path / "stopped", ["run.observers=[]"], resume=True)
    known, expected = (json.loads((run.path / "hub.json").read_text()) for run in (done, undisturbed))
    assert known[-2:] == expected[-2:]  # at the last save in a round, and at the end


@pytest.mark.slow
def test_what_was_refused_at_the_end_of_a_round_stays_told_where_a_study_goes_on_from_there(tmp_path: Path) -> None:
    """It was before the save of that step, so it does not happen again."""
    absurd = {"site": "south", "event": "update", "step": 3, "times": 1e9}
    settings: dict[str, Any] = {
        "federation__strategy": {"FedAvg": {"steps_per_round": 3}}, "run__checkpoint_every": {"steps": 1},
        "training__epochs": 1,
    }  # fmt: skip
    undisturbed = simulate(study(**settings), out=tmp_path / "undisturbed", scenario={"events": [absurd]})
    assert undisturbed.result["events"]["refused"] == 1
    simulate_and_die(study(**settings), tmp_path / "killed", "west", 3, scenario={"events": [absurd]})
    done = simulate(tmp_path / "killed", ["run.observers=[]"], resume=True)
    assert outcome(done.path) == outcome(undisturbed.path)
    assert done.result["events"] == undisturbed.result["events"]


@pytest.mark.parametrize("content", [None, "[", "{}", "[{}]", '[{"epoch": 0, "step": 3}]', "[]", "[1]"])
def test_a_memory_that_is_not_whole_is_an_error_with_words(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "hub.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"hub.json does not tell what the hub remembered: ") as caught:
        HubMemory(RunDirectory(tmp_path), _hub(), keep=3).go_back((0, 3, 0))
    assert "backup" in caught.value.hint
