"""Sites that are killed while they save, some of them further than others: all go on from states of the same moment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.federated.lab import outcome, simulate_and_die, study
from weft.engine import CheckpointFolder, Observer
from weft.engine.events import Step
from weft.errors import Stopped
from weft.federated.site import boundaries_in
from weft.federated.study import simulate

pytest.importorskip("sklearn")

SITES = ("north", "south", "west")
STOP: dict[str, Any] = {"tests.federated.test_moving_average.StopInValidation": {"times": 1}}
NORMALISING: dict[str, Any] = {"tests.engine.studies.DoubleNet": {"batch_norm": True}}


class Ends(Observer):
    """Ends a study after its next step, before anything is saved."""

    def on_step(self, step: Step) -> None:
        raise Stopped("at once")


def _saved(path: Path) -> dict[str, list[tuple[int, int, int]]]:
    return {site: sorted(boundaries_in(CheckpointFolder(path / "sites" / site / "checkpoints"))) for site in SITES}


@pytest.mark.parametrize(
    ("strategy", "site"),
    [
        ("FedAvg", "south"),
        *(
            pytest.param(strategy, site, marks=pytest.mark.slow)
            for strategy in ("dSGD", "FedAvg", "SCAFFOLD", {"FedAdam": {"steps_per_round": 3}})
            for site in SITES[:2]
        ),
    ],
    ids=str,
)
def test_a_kill_while_sites_save_the_state_behind_the_last_step_of_an_epoch_mixes_no_states(
    strategy: Any, site: str, tmp_path: Path
) -> None:
    """All save after step 8, the last of the epoch, and again when a signal stops them in validation: the round is over
    then, and running statistics are averaged.
    """
    settings: dict[str, Any] = {
        "federation__strategy": strategy, "run__checkpoint_every": {"steps": 4}, "training__epochs": 2,
        "model": NORMALISING,
    }  # fmt: skip
    simulate_and_die(study(**settings, run__observers=[STOP]), tmp_path / "killed", site, 3)
    saved = _saved(tmp_path / "killed")
    assert saved["west"] == [(0, 4, 0), (0, 8, 0)]
    assert saved[site] == [(0, 4, 0), (0, 8, 0), (0, 8, 1)]
    done = simulate(tmp_path / "killed", ["run.observers=[]"], resume=True)
    assert outcome(done.path) == outcome(simulate(study(**settings), out=tmp_path / "undisturbed").path)


def test_a_kill_in_the_last_save_is_gone_on_from_where_the_only_one_before_was_at_the_same_step(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"run__checkpoint_every": {"steps": 8}, "training__epochs": 1}
    simulate_and_die(study(**settings), tmp_path / "killed", "south", 2)
    assert _saved(tmp_path / "killed") == {
        "north": [(0, 8, 0), (1, 8, 0)], "south": [(0, 8, 0), (1, 8, 0)], "west": [(0, 8, 0)],
    }  # fmt: skip
    done = simulate(tmp_path / "killed", ["run.observers=[]"], resume=True)
    assert outcome(done.path) == outcome(simulate(study(**settings), out=tmp_path / "undisturbed").path)


def test_what_some_had_saved_before_a_study_goes_on_from_earlier_is_not_taken_for_what_they_save_then(
    tmp_path: Path,
) -> None:
    """North has saved step 6 when it is killed, so all go on from step 3; then they end before they save."""
    settings: dict[str, Any] = {"run__checkpoint_every": {"steps": 3}, "training__epochs": 1}
    simulate_and_die(study(**settings), tmp_path / "killed", "north", 2)
    assert _saved(tmp_path / "killed")["north"][-1] == (0, 6, 0)
    with pytest.raises(Stopped, match="at once"):
        simulate(tmp_path / "killed", ['run.observers=["tests.federated.test_same_moment.Ends"]'], resume=True)
    assert _saved(tmp_path / "killed") == {site: [(0, 3, 0)] for site in SITES}
    done = simulate(tmp_path / "killed", ["run.observers=[]"], resume=True)
    assert outcome(done.path) == outcome(simulate(study(**settings), out=tmp_path / "undisturbed").path)


def test_the_newest_state_of_a_step_is_that_of_the_latest_boundary(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, apart=True)
    for epoch, over in ((0, False), (0, True), (1, False)):
        state: dict[str, Any] = {
            "model": {}, "average": None, "best": {"step": None}, "sums": {"buffers_averaged": over},
            "position": {"epoch": epoch, "batch": 0, "step": 8},
        }  # fmt: skip
        folder.save_last(state, 8)
        newest = CheckpointFolder(tmp_path).load_last()
        assert newest is not None
        assert (newest["position"]["epoch"], newest["sums"]["buffers_averaged"]) == (epoch, over)
    assert sorted(folder.boundaries()) == [(0, 0, 8, 1), (1, 0, 8, 0)]  # two are kept
