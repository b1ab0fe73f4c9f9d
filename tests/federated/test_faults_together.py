"""Faults that meet: with rates, private parts, running statistics, checkpoints and scores, and after a kill."""

from __future__ import annotations

import json
import math
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.federated.lab import outcome, rows_of, simulate_and_die, state_of, study
from weft.actions import TrainedRun
from weft.engine import Observer
from weft.engine.events import Step
from weft.errors import CohortError, RunDirectoryError, Stopped
from weft.federated import simulation, snapshots
from weft.federated.agreeing import told_by_all
from weft.federated.ledger import Ledger, away_after, read_ledger
from weft.federated.study import simulate

pytest.importorskip("sklearn")

FEDAVG: dict[str, Any] = {"FedAvg": {"steps_per_round": 4}}
AWAY = {"site": "west", "event": "leaves", "step": 5, "returns": 11}
BATCH_NORM: dict[str, Any] = {"tests.engine.studies.DoubleNet": {"batch_norm": True}}


def played(out: Path, *events: dict[str, Any], **changes: Any) -> TrainedRun:
    return simulate(study(**changes), out=out, scenario={"events": list(events)})


def events_of(path: Path) -> list[tuple[str, str, int, int]]:
    rows = read_ledger(path / "ledger.jsonl")
    return [(row["event"], row["site"], row["epoch"], row["step"]) for row in rows]


# --- scores -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [8, pytest.param(0, marks=pytest.mark.slow)])
def test_a_site_whose_update_was_left_out_is_scored_all_the_same(step: int, tmp_path: Path) -> None:
    """A round's update is the last thing that is asked before validation and, in the end, the final scores."""
    spoiled = {"site": "west", "event": "update", "step": step}
    done = played(tmp_path / "study", spoiled, federation__strategy="FedAvg", training__epochs=1)
    assert ("refused" in dict.fromkeys(event for event, *_ in events_of(done.path))) == (step == 8)
    for split in ("train", "validation", "test"):
        sites = done.result["sites"].values()
        items = sum(site["items"][split] for site in sites)
        correct = sum(site["items"][split] * site["scores"][split]["accuracy"] for site in sites)
        assert done.scores[split]["accuracy"] == pytest.approx(correct / items, abs=1e-12)


@pytest.mark.parametrize("left_out", [["west"], pytest.param([], marks=pytest.mark.slow)], ids=str)
def test_an_infinite_loss_at_a_site_hides_no_items_and_stops_no_study(left_out: list[str], tmp_path: Path) -> None:
    written = study(
        training__epochs=1,
        training__loss={"tests.federated.lab.NotFiniteOnce": {"items": 7, "scored": True}},  # north has as many
    )
    for name in left_out:
        del written["federation"]["sites"][name]
    done = simulate(written, out=tmp_path / "study")
    assert done.scores["validation"]["loss"] == math.inf
    sites = done.result["sites"].values()
    correct = sum(site["items"]["validation"] * site["scores"]["validation"]["accuracy"] for site in sites)
    items = sum(site["items"]["validation"] for site in sites)
    assert done.scores["validation"]["accuracy"] == pytest.approx(correct / items, abs=1e-12)


# --- before training --------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"dataset__standardize": True}, {"federation__pretraining": {"epochs": 1}}])
def test_faults_at_step_0_come_when_all_have_agreed(changes: dict[str, Any], tmp_path: Path) -> None:
    events: list[dict[str, Any]] = [
        {"site": "north", "event": "leaves", "step": 0, "returns": 3},
        {"site": "west", "event": "weights", "step": 0},
        {"site": "south", "event": "slow", "step": 0, "exchange": 2, "seconds": 70},
    ]
    cohort = {"deadline": 60, "minimum_sites": 2, "compare_weights": 2}
    with pytest.raises(CohortError, match="1 site is left in epoch 1 after step 0, without north, south"):
        played(tmp_path / "few", *events, training__epochs=1, federation__cohort=cohort, **changes)
    done = played(tmp_path / "study", *events[:1], training__epochs=1, federation__cohort=cohort, **changes)
    assert ("left", "north", 1, 0) in events_of(done.path)
    assert ("returned", "north", 1, 3) in events_of(done.path)
    assert done.result["model_sha256"] is not None


def test_an_answer_without_a_site_is_not_taken_for_one_of_all() -> None:
    steps = told_by_all("splits", 5, of=3)
    asked = next(steps)
    with pytest.raises(CohortError, match="2 of 3 sites have told their splits"):
        steps.send([torch.cat([part, part]) for part in asked.tensors])


# --- what a site that comes back takes --------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("scheduler", [{"ExponentialLR": {"gamma": 0.5}}, {"CosineAnnealingLR": {}}], ids=str)
@pytest.mark.parametrize("interval", ["epoch", "step"])
def test_it_goes_on_with_the_learning_rate_of_the_others(
    scheduler: dict[str, Any], interval: str, tmp_path: Path
) -> None:
    away = {"site": "north", "event": "leaves", "step": 9, "returns": 17}  # misses the change of an epoch
    done = played(
        tmp_path / "study", away, training__epochs=4, federation__strategy="FedAvg", training__scheduler=scheduler,
        training__scheduler_interval=interval,
    )  # fmt: skip
    rates = [state_of(done.path, site)["optimizers"]["main"]["param_groups"][0]["lr"] for site in ("north", "south")]
    assert rates[0] == rates[1]
    undisturbed = simulate(
        study(
            training__epochs=4, federation__strategy="FedAvg", training__scheduler=scheduler,
            training__scheduler_interval=interval,
        ),
        out=tmp_path / "undisturbed",
    )  # fmt: skip
    told = [[row["learning_rate"] for row in rows_of(one.path / "history.csv")] for one in (done, undisturbed)]
    assert told[0] == told[1]


@pytest.mark.parametrize("strategy", ["dSGD", pytest.param("FedAvg", marks=pytest.mark.slow)])
def test_nothing_of_what_stays_at_a_site_is_in_what_another_is_told(
    strategy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[dict[str, Any]] = []

    def noted(state: dict[str, Any]) -> list[torch.Tensor]:
        told.append(state)
        return snapshots.flattened(state)

    monkeypatch.setattr(simulation, "flattened", noted)
    done = played(
        tmp_path / "study", AWAY | {"step": 9}, federation__strategy=strategy,
        federation__private=["layers.4.*"], training__optimizer={"Adam": {"lr": 0.01}}, training__ema={"decay": 0.9},
    )  # fmt: skip
    (snapshot,) = told
    shared = {"layers.0.weight", "layers.0.bias"}
    assert set(snapshot["model"]) == set(snapshot["best_weights"]) == shared
    assert set(snapshot.get("average", shared)) == shared
    moments = snapshot["optimizers"]["main"]["state"]  # by the number of the parameter: 2 and 3 are private
    assert set(moments) == ({0, 1} if strategy == "dSGD" else set())
    own = [state_of(done.path, site)["model"]["layers.4.weight"] for site in ("north", "west")]
    assert not torch.equal(*own)


@pytest.mark.slow
def test_it_is_scored_with_the_statistics_of_the_best_epoch_that_it_missed(tmp_path: Path) -> None:
    away = {"site": "west", "event": "leaves", "step": 5, "returns": 19}
    done = played(tmp_path / "study", away, model=BATCH_NORM, training__optimizer={"SGD": {"lr": 0.5}})
    assert done.result["best_epoch"] == 2  # over at step 16
    assert len({site["model_sha256"] for site in done.result["sites"].values()}) == 1
    assert done.result["model_sha256"] is not None


# --- a kill -----------------------------------------------------------------------------------------------------------


class StopAt(Observer):
    """Sends its process a signal to stop after a step.

    Args:
        step: which, of the first site that comes to it.
    """

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, step: Step) -> None:
        if step.step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.slow
def test_a_study_whose_sites_have_unlike_numbers_of_batches_goes_on_from_anywhere(tmp_path: Path) -> None:
    """North has no batches left after step 4 of an epoch, south has eight."""
    settings: dict[str, Any] = {"run__checkpoint_every": {"epochs": 3}}
    undisturbed = simulate(study(**settings), out=tmp_path / "undisturbed")
    stopping = study(**settings, run__observers=[{"tests.federated.test_faults_together.StopAt": {"step": 7}}])
    with pytest.raises(Stopped):
        simulate(stopping, out=tmp_path / "stopped")
    done = simulate(tmp_path / "stopped", ["run.observers=[]"], resume=True)
    assert outcome(done.path) == outcome(undisturbed.path)


@pytest.mark.slow
@pytest.mark.parametrize("saves", [5, 8, 16])
def test_and_after_a_kill(saves: int, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"run__checkpoint_every": {"steps": 1}}
    undisturbed = simulate(study(**settings), out=tmp_path / "undisturbed")
    simulate_and_die(study(**settings), tmp_path / "killed", "south", saves)
    done = simulate(tmp_path / "killed", ["run.observers=[]"], resume=True)
    assert outcome(done.path) == outcome(undisturbed.path)


@pytest.mark.slow
@pytest.mark.parametrize("saves", [4, 6, 7, 8, 11])
@pytest.mark.parametrize("strategy", [{"PowerSGD": {"rank": 2}}, FEDAVG], ids=["PowerSGD", "FedAvg"])
def test_a_kill_about_when_a_site_comes_back_changes_no_bit(
    strategy: dict[str, Any], saves: int, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"federation__strategy": strategy, "run__checkpoint_every": {"steps": 2}}
    undisturbed = played(tmp_path / "undisturbed", AWAY, **settings)
    simulate_and_die(study(**settings), tmp_path / "killed", "south", saves, scenario={"events": [AWAY]})
    done = simulate(tmp_path / "killed", ["run.observers=[]"], resume=True)
    assert done.result["model_sha256"] == undisturbed.result["model_sha256"]
    assert done.scores == undisturbed.scores
    assert done.result["events"] == undisturbed.result["events"]  # nothing that is done again is counted twice
    assert events_of(done.path) == events_of(undisturbed.path)


@pytest.mark.slow
def test_a_site_that_comes_back_once_more_begins_with_what_it_had_then(tmp_path: Path) -> None:
    """North, the first that saves, has saved step 6 when south is killed; all go on from step 5, without it."""
    away = {"site": "north", "event": "leaves", "step": 4, "exchange": 2, "returns": 5}
    settings: dict[str, Any] = {
        "federation__strategy": {"PowerSGD": {"rank": 2}}, "run__checkpoint_every": {"steps": 1},
        "model": {"tests.engine.studies.DoubleNet": {"dropout": 0.2}}, "training__epochs": 2,
    }  # fmt: skip
    undisturbed = played(tmp_path / "undisturbed", away, **settings)
    simulate_and_die(study(**settings), tmp_path / "killed", "south", 6, scenario={"events": [away]})
    done = simulate(tmp_path / "killed", ["run.observers=[]"], resume=True)
    assert outcome(done.path) == outcome(undisturbed.path)
    assert events_of(done.path) == events_of(undisturbed.path)


@pytest.mark.slow
def test_a_site_leaves_at_the_same_exchange_in_a_study_that_goes_on_right_there(tmp_path: Path) -> None:
    """Digests are the first exchange of a step after which they are compared, and the first of what goes on."""
    away = {"site": "north", "event": "leaves", "step": 5, "exchange": 1, "returns": 6}
    settings: dict[str, Any] = {
        "run__checkpoint_every": {"steps": 1}, "federation__cohort": {"compare_weights": 1}, "training__epochs": 1,
    }  # fmt: skip
    undisturbed = played(tmp_path / "undisturbed", away, **settings)
    simulate_and_die(study(**settings), tmp_path / "killed", "west", 5, scenario={"events": [away]})
    done = simulate(tmp_path / "killed", ["run.observers=[]"], resume=True)
    assert outcome(done.path) == outcome(undisturbed.path)  # bytes and messages of digests, too


@pytest.mark.slow
def test_a_study_that_is_killed_while_a_late_site_waits_for_the_next_round_goes_on(tmp_path: Path) -> None:
    late = {"site": "west", "event": "slow", "step": 11, "seconds": 90}
    settings: dict[str, Any] = {
        "federation__strategy": {"FedAvg": {"steps_per_round": 10}}, "run__checkpoint_every": {"steps": 1},
        "federation__cohort": {"deadline": 60},
    }  # fmt: skip
    undisturbed = played(tmp_path / "undisturbed", late, **settings)
    simulate_and_die(study(**settings), tmp_path / "killed", "south", 16, scenario={"events": [late]})
    done = simulate(tmp_path / "killed", ["run.observers=[]"], resume=True)
    assert outcome(done.path)["model_sha256"] == undisturbed.result["model_sha256"]
    assert events_of(done.path) == events_of(undisturbed.path)


@pytest.mark.slow
@pytest.mark.parametrize("exchange", [4, 5])
def test_a_site_that_dies_while_final_scores_are_taken_does_so_after_a_kill_too(exchange: int, tmp_path: Path) -> None:
    """In the last step all agree that it is over, score, pool the epoch's sums, and save; then training is scored."""
    gone = {"site": "west", "event": "leaves", "step": 8, "exchange": exchange}
    settings: dict[str, Any] = {"training__epochs": 1}
    undisturbed = played(tmp_path / "undisturbed", gone, **settings)
    assert undisturbed.result["away"] == ["west"]
    simulate_and_die(study(**settings), tmp_path / "killed", "west", 1, scenario={"events": [gone]})
    done = simulate(tmp_path / "killed", ["run.observers=[]"], resume=True)
    assert outcome(done.path) == outcome(undisturbed.path)
    assert done.result["events"] == undisturbed.result["events"]


@pytest.mark.slow
def test_what_a_site_had_sent_when_it_left_is_that_of_the_time_from_which_the_study_goes_on(tmp_path: Path) -> None:
    """West has left twice when north is killed in its second save; all go on from the first one, where it was away."""
    away = [AWAY | {"step": 2, "returns": 5}, AWAY | {"step": 6, "returns": 10}]
    settings: dict[str, Any] = {"run__checkpoint_every": {"steps": 4}, "training__epochs": 2}
    undisturbed = played(tmp_path / "undisturbed", *away, **settings)
    simulate_and_die(study(**settings), tmp_path / "killed", "north", 2, scenario={"events": away})
    done = simulate(tmp_path / "killed", ["run.observers=[]"], resume=True)
    assert outcome(done.path) == outcome(undisturbed.path)


@pytest.mark.slow
def test_a_site_that_was_refused_when_the_study_began_does_not_take_part_when_it_goes_on(tmp_path: Path) -> None:
    """Its scenario is changed meanwhile, so that nothing would refuse it any more."""
    refused = {"site": "south", "event": "version"}
    settings: dict[str, Any] = {"run__checkpoint_every": {"steps": 2}, "training__epochs": 1}
    undisturbed = played(tmp_path / "undisturbed", refused, **settings)
    simulate_and_die(study(**settings), tmp_path / "killed", "north", 2, scenario={"events": [refused]})
    (tmp_path / "killed" / "scenario.yaml").write_text("events: []\n")
    done = simulate(tmp_path / "killed", ["run.observers=[]"], resume=True)
    assert outcome(done.path) == outcome(undisturbed.path)
    assert done.result["away"] == ["south"]


@pytest.mark.slow
def test_a_study_that_goes_on_without_a_site_is_compared_with_the_data_of_all(tmp_path: Path) -> None:
    gone = {"site": "west", "event": "leaves", "step": 5}
    settings: dict[str, Any] = {"run__checkpoint_every": {"steps": 2}, "training__epochs": 2}
    undisturbed = simulate(study(**settings), out=tmp_path / "undisturbed", scenario={"events": [gone]}, compare=True)
    simulate_and_die(study(**settings), tmp_path / "killed", "south", 4, scenario={"events": [gone]})
    done = simulate(tmp_path / "killed", ["run.observers=[]"], resume=True, compare=True)
    told = [json.dumps(one.result["comparison"], sort_keys=True) for one in (done, undisturbed)]  # some are not numbers
    assert told[0] == told[1]
    assert done.result["away"] == ["west"]


# --- a disk that refuses ----------------------------------------------------------------------------------------------


def test_a_ledger_that_cannot_be_written_is_an_error_with_words(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "gone" / "ledger.jsonl")
    with pytest.raises(RunDirectoryError, match="cannot write .*ledger.jsonl: No such file") as caught:
        ledger.note("left", "north", epoch=1, step=7)
    assert "create it or choose another" in caught.value.hint


def test_a_ledger_is_whole_again_after_a_line_that_was_cut_off(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    for event, epoch, step in (("joined", 0, 0), ("left", 0, 5), ("returned", 1, 10), ("left", 1, 12)):
        ledger.note(event, "north", epoch=epoch, step=step)  # type: ignore[arg-type]
    with (tmp_path / "ledger.jsonl").open("a") as file:
        file.write('{"event": "ret')
    rows = list(read_ledger(tmp_path / "ledger.jsonl"))
    assert [row["epoch"] for row in rows] == [1, 1, 2, 2]  # as in the tables of the study
    assert [away_after(rows[:events]) for events in range(5)] == [set(), set(), {"north"}, set(), {"north"}]
    ledger.go_back(3)
    ledger.note("late", "north", epoch=1, step=11)
    assert [event for event, *_ in events_of(tmp_path)] == ["joined", "left", "returned", "late"]
