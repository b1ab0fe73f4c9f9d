"""What the hub remembers is kept with the states of the sites: a study that goes on refuses what it would have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.federated.lab import outcome, simulate_and_die, study
from weft.config import CohortConfig
from weft.errors import CheckpointError
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
        hub.load_state_dict({"usual": {"gradients main": step / 3}, "left_out": [], "lost": ["north"] * (step % 2)})
        states[step] = hub.state_dict()
        memory.note(0, step)
        hub.load_state_dict({"usual": {}, "left_out": ["south"], "lost": []})
        memory.note(0, step)  # the next site saves there
    other = _hub()
    HubMemory(directory, other, keep=3).go_back(0, 4)
    assert other.state_dict() == states[4]
    again = HubMemory(directory, other, keep=3)
    again.go_back(0, 4)
    again.note(1, 5)
    assert [(row["epoch"], row["step"]) for row in json.loads((tmp_path / "hub.json").read_text())] == [
        (0, 3), (0, 4), (1, 5),
    ]  # fmt: skip


@pytest.mark.parametrize("content", [None, "[", "{}", "[{}]", '[{"epoch": 0, "step": 3}]', "[]", "[1]"])
def test_a_memory_that_is_not_whole_is_an_error_with_words(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "hub.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"hub.json does not tell what the hub remembered: ") as caught:
        HubMemory(RunDirectory(tmp_path), _hub(), keep=3).go_back(0, 3)
    assert "backup" in caught.value.hint
