"""SCAFFOLD's mean variate is that of the sites' own, also when one of them was away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.federated.lab import outcome, simulate_and_die, study
from weft.engine import CheckpointFolder
from weft.federated.study import simulate

pytest.importorskip("sklearn")

# It tells two rounds after its save at step 8, and is back for the round that ends with step 18.
AWAY = {"site": "west", "event": "leaves", "step": 13, "returns": 16}
SCAFFOLD: Any = {"SCAFFOLD": {"steps_per_round": 2}}


def _strategies(path: Path) -> list[dict[str, Any]]:
    states = [CheckpointFolder(site / "checkpoints").load_last() for site in sorted(path.glob("sites/[nsw]*"))]
    return [state["strategy"] for state in states if state is not None]


def _differs(path: Path) -> float:
    """How far the mean of the sites' own variates is from the one that all have."""
    states = _strategies(path)
    assert len(states) == 3
    private = [state["private"].get("strategy", state)["private"] for state in states]  # within a wrapper, or not
    most = 0.0
    for name, variate in states[0]["shared"]["variates"].items():
        items = [one["own_items"][name] for one in private]
        assert states[0]["shared"]["total"][name] == sum(items)
        own = [count * one["own"][name] for count, one in zip(items, private)]
        most = max(most, float((torch.stack(own).sum(0) - variate).abs().max()))
    return most


@pytest.mark.parametrize(
    "events",
    [[AWAY], pytest.param([AWAY, AWAY | {"site": "north", "step": 17, "returns": 18}], marks=pytest.mark.slow)],
)
def test_a_site_that_comes_back_has_its_part_in_the_mean_again(events: list[dict[str, Any]], tmp_path: Path) -> None:
    done = simulate(study(federation__strategy=SCAFFOLD), out=tmp_path / "study", scenario={"events": events})
    assert done.result["away"] == []
    assert _differs(done.path) < 1e-10
    assert done.result["model_sha256"] is not None
    (shared, *others) = [state["shared"] for state in _strategies(done.path)]
    assert shared["renewed"] == []
    for name, variate in shared["variates"].items():
        assert all(torch.equal(one["variates"][name], variate) for one in others)


REFUSED = {"site": "west", "event": "update", "step": 6, "times": 1e30}  # of a round: the hub leaves it out


@pytest.mark.parametrize(
    "events",
    [
        [REFUSED],
        pytest.param([REFUSED | {"times": None}, REFUSED | {"site": "south", "step": 8}], marks=pytest.mark.slow),
        # It is back for the round that ends with step 18, at whose end north is left out; then of the one at whose end
        # the mean begins anew, after which it does once more.
        pytest.param([AWAY, REFUSED | {"site": "north", "step": 18}], marks=pytest.mark.slow),
        pytest.param([AWAY, REFUSED | {"step": 18}], marks=pytest.mark.slow),
        pytest.param([AWAY, REFUSED | {"site": "north", "step": 20}], marks=pytest.mark.slow),
        pytest.param([AWAY, REFUSED | {"step": 20}], marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("thinned", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_site_whose_round_was_left_out_keeps_the_variate_that_the_mean_has_of_it(
    thinned: bool, events: list[dict[str, Any]], tmp_path: Path
) -> None:
    strategy = {"TopK": {"strategy": {"component": SCAFFOLD}, "share": 1.0}} if thinned else SCAFFOLD
    settings: dict[str, Any] = {"federation__strategy": strategy, "training__epochs": 4}
    done = simulate(study(**settings), out=tmp_path / "study", scenario={"events": events})
    assert done.result["events"]["refused"] == len([event for event in events if event["event"] == "update"])
    assert _differs(done.path) < 1e-9
    assert done.result["model_sha256"] is not None


@pytest.mark.slow
@pytest.mark.parametrize("saves", [5, 9, 10])
def test_a_kill_while_the_mean_begins_anew_changes_no_bit(saves: int, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"federation__strategy": SCAFFOLD, "run__checkpoint_every": {"steps": 2}}
    undisturbed = simulate(study(**settings), out=tmp_path / "undisturbed", scenario={"events": [AWAY]})
    simulate_and_die(study(**settings), tmp_path / "killed", "south", saves, scenario={"events": [AWAY]})
    done = simulate(tmp_path / "killed", ["run.observers=[]"], resume=True)
    assert outcome(done.path)["model_sha256"] == undisturbed.result["model_sha256"]
    assert done.scores == undisturbed.scores


@pytest.mark.slow
def test_thinned_variates_travel_whole_where_the_mean_begins_anew(tmp_path: Path) -> None:
    thinned = {"TopK": {"strategy": {"component": SCAFFOLD}, "share": 0.1}}
    away = AWAY | {"step": 18, "returns": 20}  # the mean begins anew in the last round
    done = simulate(study(federation__strategy=thinned), out=tmp_path / "study", scenario={"events": [away]})
    for state in _strategies(done.path):
        assert all(bool((variate != 0).all()) for variate in state["shared"]["variates"].values())
    assert _differs(done.path) < 1e-10  # what was left out before is not told once more
