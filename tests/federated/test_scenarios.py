"""What goes wrong in a study: what costs nothing, what leaves a site out, and what stops it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.federated.lab import SIZES, outcome, simulate_and_die, study
from weft.actions import TrainedRun
from weft.engine.checkpoints import CheckpointFolder
from weft.errors import CohortError, ConfigError, ProtocolError, UsageError
from weft.federated.ledger import read_ledger
from weft.federated.study import simulate

pytest.importorskip("sklearn")

STRATEGIES: list[Any] = [
    "dSGD", {"PowerSGD": {"rank": 2}}, "rankDAD", {"FedAvg": {"steps_per_round": 3}}, "FedAdam", "SCAFFOLD", "FedBN",
    {"TopK": {"strategy": {"component": {"dSGD": {}}}, "share": 0.3}},
]  # fmt: skip


def played(out: Path, *events: dict[str, Any], **changes: Any) -> TrainedRun:
    return simulate(study(**changes), out=out, scenario={"events": list(events)})


def events_of(done: TrainedRun, *kinds: str) -> list[tuple[str, str, int]]:
    rows = read_ledger(done.path / "ledger.jsonl")
    return [(row["event"], row["site"], row["step"]) for row in rows if row["event"] in kinds]


def weights_of(path: Path, site: str) -> dict[str, Any]:
    state = CheckpointFolder(path / "sites" / site / "checkpoints").load_last()
    assert state is not None
    return dict(state["model"])


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    return simulate(study(), out=tmp_path_factory.mktemp("undisturbed") / "study")


# --- what costs nothing -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answers", [False, True])
def test_what_is_damaged_doubled_or_out_of_order_on_its_way_changes_nothing(
    answers: bool, undisturbed: TrainedRun, tmp_path: Path
) -> None:
    faults = ["duplicated", "truncated", "corrupted", "replayed", *([] if answers else ["reordered"])]
    events = [
        {"site": site, "event": fault, "step": step, "answers": answers}
        for step, fault in enumerate(faults, start=1)
        for site in ("north", "west")
    ]
    done = played(tmp_path / "study", *events)
    before, after = outcome(undisturbed.path), outcome(done.path)
    assert after == before
    told = {event for event, _, _ in events_of(done, "ignored", "resent", "refused", "left")}
    assert told == {"ignored", "resent"}


def test_events_that_never_came_or_changed_nothing_are_told_at_the_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "faults.yaml"
    file.write_text(
        "events:\n"
        "  - {site: west, event: slow, step: 2, seconds: 60}\n"
        "  # a comment, so that lines are not numbers\n"
        "  - {site: north, event: leaves, step: 3, exchange: 7}\n"
        "  - {site: south, event: update, step: 5, exchange: 2, times: 2}\n"
    )
    done = simulate(study(training__epochs=1), out=tmp_path / "a", scenario=file)
    assert "(faults.yaml:2) changed nothing: 60 s, and federation.cohort has no deadline" in caplog.text
    missed = (
        "'leaves' at step 3, exchange 7 (faults.yaml:4) never happened: the 2 exchanges of that step: control, gradie"
    )
    assert f"site north missed: {missed}" in caplog.text
    told = {one["place"]: (one["happened"], one["why"][:14]) for one in done.result["scenario"]}
    assert told == {
        "faults.yaml:2": (True, "changed nothin"), "faults.yaml:4": (False, "never happened"),
        "faults.yaml:5": (True, ""),
    }  # fmt: skip
    assert events_of(done, "missed") == [("missed", "north", 3)]
    assert (done.path / "scenario.yaml").read_text() == file.read_text()
    caplog.clear()
    slow = {"site": "west", "event": "slow", "step": 2, "seconds": 60}
    played(tmp_path / "b", slow, training__epochs=1, federation__cohort={"deadline": 30})
    assert "late" in caplog.text
    assert "scenario" not in caplog.text


def test_events_after_an_early_end_and_sites_that_never_came_back_are_told(tmp_path: Path) -> None:
    """Training stops after two epochs of eight steps; rounds of FedAvg are epochs."""
    fedavg: dict[str, Any] = {"federation__strategy": "FedAvg"}
    done = played(
        tmp_path / "early",
        {"site": "north", "event": "truncated", "step": 20},
        {"site": "south", "event": "update", "step": 3},
        training__optimizer={"SGD": {"lr": 0.0}}, training__monitor={"metric": "loss", "mode": "min", "patience": 1},
        **fedavg,
    )  # fmt: skip
    after, no_update = [one["why"] for one in done.result["scenario"]]
    assert after == "never happened: the study took 16 steps"
    assert no_update == ("never happened: nothing was sent that changes weights: the 1 exchange of that step: control")
    assert events_of(done, "planned", "missed") == [("missed", "south", 3), ("missed", "north", 20)]
    away = {"site": "west", "event": "leaves", "step": 2, "returns": 3}
    gone = played(tmp_path / "gone", away, training__epochs=1, **fedavg)
    (told,) = gone.result["scenario"]
    assert told["happened"]
    assert "was to be over after step 3, but the site never came back" in told["why"]


@pytest.mark.slow
def test_what_of_a_scenario_has_happened_is_known_after_a_kill(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"run__checkpoint_every": {"steps": 2}}
    scenario = {
        "events": [
            {"site": "north", "event": "leaves", "step": 2, "returns": 3},
            {"site": "west", "event": "truncated", "step": 1},
            {"site": "west", "event": "truncated", "step": 9},
            {"site": "south", "event": "update", "step": 3, "exchange": 9},
            {"site": "south", "event": "update", "step": 9, "exchange": 9},
        ]
    }
    undisturbed = simulate(study(**settings), out=tmp_path / "undisturbed", scenario=scenario)
    simulate_and_die(study(**settings), tmp_path / "killed", "south", 4, scenario=scenario)
    done = simulate(tmp_path / "killed", ["run.observers=[]"], resume=True)
    told = [
        [{key: one[key] for key in ("words", "happened", "why")} for one in each.result["scenario"]]
        for each in (undisturbed, done)
    ]
    assert told[0] == told[1]
    assert [one["happened"] for one in told[0]] == [True, True, True, False, False]
    assert done.result["events"] == undisturbed.result["events"]


@pytest.mark.parametrize("strategy", ["dSGD", {"FedAvg": {"steps_per_round": 4}}], ids=str)
def test_why_an_event_never_came_is_the_same_after_a_kill_in_its_step(strategy: Any, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"run__checkpoint_every": {"steps": 4}, "training__epochs": 1}
    settings["federation__strategy"] = strategy
    events = [{"site": "south", "event": "update", "step": step, "exchange": 9} for step in (3, 4)]
    scenario = {"events": [*events, {"site": "south", "event": "truncated", "step": 0}]}
    undisturbed = simulate(study(**settings), out=tmp_path / "undisturbed", scenario=scenario)
    simulate_and_die(study(**settings), tmp_path / "killed", "west", 1, scenario=scenario)
    done = simulate(tmp_path / "killed", ["run.observers=[]"], resume=True)
    told = [[one["why"] for one in each.result["scenario"]] for each in (undisturbed, done)]
    assert told[0] == told[1]
    assert all("of that step" in why for why in told[0][:2])
    assert done.result["events"] == undisturbed.result["events"]


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES[1:], ids=str)
def test_nor_with_any_strategy(strategy: Any, tmp_path: Path) -> None:
    undisturbed = simulate(study(federation__strategy=strategy, training__epochs=2), out=tmp_path / "undisturbed")
    events = [
        {"site": "south", "event": fault, "step": step}
        for step in range(12)
        for fault in ("duplicated", "replayed", ("truncated", "corrupted")[step % 2])
    ]
    done = played(tmp_path / "study", *events, federation__strategy=strategy, training__epochs=2)
    assert outcome(done.path) == outcome(undisturbed.path)


def test_a_slow_site_is_waited_for_until_the_deadline(undisturbed: TrainedRun, tmp_path: Path) -> None:
    slow = {"site": "west", "event": "slow", "step": 3, "seconds": 50}
    done = played(tmp_path / "study", slow, federation__cohort={"deadline": 60})
    assert outcome(done.path) == outcome(undisturbed.path)
    late = played(tmp_path / "late", slow | {"seconds": 70}, federation__cohort={"deadline": 60})
    assert events_of(late, "late", "returned") == [("late", "west", 3), ("returned", "west", 3)] or events_of(
        late, "late", "returned"
    ) == [("late", "west", 3), ("returned", "west", 4)]
    assert late.result["model_sha256"] is not None
    assert late.result["model_sha256"] != undisturbed.result["model_sha256"]


# --- sites that drop out ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "strategy", [STRATEGIES[0], *(pytest.param(s, marks=pytest.mark.slow) for s in STRATEGIES[1:])], ids=str
)
def test_a_site_that_died_in_a_step_comes_back_and_goes_on_with_the_others(strategy: Any, tmp_path: Path) -> None:
    inside = strategy in STRATEGIES[:3] or strategy == STRATEGIES[-1]  # what is asked after the agreement on the step
    leaves = {"site": "north", "event": "leaves", "step": 5, "exchange": 2 if inside else None, "returns": 11}
    done = played(tmp_path / "study", leaves, federation__strategy=strategy, training__epochs=4)
    left, returned = events_of(done, "left", "returned")
    assert left[:2] == ("left", "north")
    assert returned[:2] == ("returned", "north")
    assert returned[2] >= 11
    assert done.result["away"] == []
    assert done.scores["validation"]["accuracy"] > 0.8
    if strategy != "FedBN":
        assert done.result["model_sha256"] is not None  # all ended with the same weights
    assert len(weights_of(done.path, "north")) == len(weights_of(done.path, "south"))
    again = played(tmp_path / "again", leaves, federation__strategy=strategy, training__epochs=4)
    assert outcome(again.path) == outcome(done.path)


def test_what_a_site_computed_before_it_died_is_not_lost_to_the_others(tmp_path: Path) -> None:
    """Without a site from the beginning of an epoch, the others do what they do when it has no data left."""
    leaves = {"site": "west", "event": "leaves", "step": 4}
    done = played(tmp_path / "study", leaves)
    assert done.result["away"] == ["west"]
    assert sorted(done.result["sites"]) == ["north", "south"]
    assert len(done.result["sites"]) == 2
    items = sum(site["items"]["validation"] for site in done.result["sites"].values())
    correct = done.scores["validation"]["accuracy"] * items
    assert correct == pytest.approx(round(correct), abs=1e-9)  # counts of the two that were there


@pytest.mark.slow
def test_a_study_without_enough_sites_stops_and_goes_on_when_they_are_back(tmp_path: Path) -> None:
    events = [{"site": name, "event": "leaves", "step": 13, "returns": 20} for name in ("north", "west")]
    with pytest.raises(CohortError, match=r"1 site is left .* without north, west") as caught:
        played(tmp_path / "study", *events, run__checkpoint_every={"steps": 4})
    assert caught.value.exit_code == 75
    stored = json.loads((tmp_path / "study" / "result.json").read_text())
    assert stored["status"] == "stopped"
    (tmp_path / "study" / "scenario.yaml").write_text("events: []\n")
    done = simulate(tmp_path / "study", resume=True)
    assert done.result["status"] == "finished"
    undisturbed = simulate(study(run__checkpoint_every={"steps": 4}), out=tmp_path / "undisturbed")
    assert outcome(done.path) == outcome(undisturbed.path)


@pytest.mark.slow
def test_a_study_that_is_killed_while_a_site_is_away_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"run__checkpoint_every": {"steps": 2}}
    scenario = {"events": [{"site": "north", "event": "leaves", "step": 5, "returns": 13}]}
    undisturbed = simulate(study(**settings), out=tmp_path / "undisturbed", scenario=scenario)
    simulate_and_die(study(**settings), tmp_path / "killed", "south", 4, scenario=scenario)
    done = simulate(tmp_path / "killed", ["run.observers=[]"], resume=True)
    before, after = outcome(undisturbed.path), outcome(done.path)
    assert after["model_sha256"] == before["model_sha256"]
    assert after["scores"] == before["scores"]
    assert after["tables"]["history.csv"] == before["tables"]["history.csv"]


# --- what must not be summed ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("times", "says"),
    [
        (None, "not finite"),
        pytest.param(math.inf, "not finite", marks=pytest.mark.slow),
        (1e30, "times as large"),
        pytest.param(-1e6, "as large", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize(
    "strategy", [STRATEGIES[0], *(pytest.param(s, marks=pytest.mark.slow) for s in STRATEGIES[1:6])], ids=str
)
def test_an_update_that_would_spoil_all_is_left_out_and_its_site_named(
    times: float | None, says: str, strategy: Any, tmp_path: Path
) -> None:
    last = {"site": "west", "event": "update", "step": 3, "times": times}
    done = played(tmp_path / "study", last, federation__strategy=strategy)
    if not isinstance(strategy, str) or strategy in ("dSGD", "rankDAD"):
        (refused,) = [row for row in read_ledger(done.path / "ledger.jsonl") if row["event"] == "refused"]
        assert refused["site"] == "west"
        assert says in refused["reason"]
    assert done.result["model_sha256"] is not None
    assert done.scores["train"]["accuracy"] > 0.8


def test_a_site_whose_loss_is_not_finite_counts_nothing_in_that_step(tmp_path: Path) -> None:
    done = simulate(
        study(training__loss={"tests.federated.lab.NotFiniteOnce": {"items": 7}}, training__epochs=2),
        out=tmp_path / "study",
    )
    failed = events_of(done, "failed")
    assert failed
    assert done.result["model_sha256"] is not None


@pytest.mark.parametrize(
    ("strategy", "event"),
    [
        ({"FedAvg": {"steps_per_round": 3}}, "failed"),
        *(
            pytest.param(strategy, event, marks=pytest.mark.slow)
            for strategy, event in (
                ("dSGD", "refused"), ("rankDAD", "failed"), ({"PowerSGD": {"rank": 2}}, "failed"),
                ({"SCAFFOLD": {"steps_per_round": 3}}, "failed"), ("FedAdam", "failed"), (STRATEGIES[-1], "refused"),
            )
        ),
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("private", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_nor_does_one_whose_gradients_are_not_finite_though_its_loss_is(
    private: bool, strategy: Any, event: str, tmp_path: Path
) -> None:
    """South alone has seven items in a step, the last of its epoch, in which nobody else has any."""
    changes: dict[str, Any] = {"federation__private": ["layers.4.*"]} if private else {}
    done = simulate(
        study(
            training__loss={"tests.federated.lab.GradientNotFiniteOnce": {"items": 7}}, training__epochs=2,
            federation__strategy=strategy, **changes,
        ),
        out=tmp_path / "study",
    )  # fmt: skip
    told = events_of(done, "failed", "refused")
    assert {(kind, site) for kind, site, _ in told} == {("failed" if private else event, "south")}
    assert len(told) == 2  # once an epoch: nothing of it is remembered
    assert done.scores["train"]["accuracy"] > 0.8
    assert (done.result["model_sha256"] is None) == private


# --- who may join, and whose weights are wrong ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "says"),
    [
        pytest.param("version", "has Weft 0.0.0, this study runs", marks=pytest.mark.slow),
        ("experiment", "another one: seed is -1 there and 5 here"),
    ],
)
def test_a_site_with_another_version_or_experiment_is_refused_and_the_others_go_on(
    event: str, says: str, tmp_path: Path
) -> None:
    done = played(tmp_path / "study", {"site": "north", "event": event})
    (refused,) = [row for row in read_ledger(done.path / "ledger.jsonl") if row["event"] == "refused"]
    assert refused["site"] == "north"
    assert says in refused["reason"]
    assert done.result["away"] == ["north"]
    with pytest.raises(CohortError, match="without north"):
        played(tmp_path / "all", {"site": "north", "event": event}, federation__cohort={"minimum_sites": 3})


def test_too_few_sites_because_of_the_scenario_are_a_matter_of_the_scenario(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match="without north") as raised:
        played(
            tmp_path / "study", {"site": "north", "event": "leaves", "step": 3}, federation__cohort={"minimum_sites": 3}
        )
    assert raised.value.hint is not None
    assert "another one" in raised.value.hint


@pytest.mark.slow
def test_a_site_whose_weights_are_not_those_of_the_others_takes_theirs(tmp_path: Path) -> None:
    spoiled = {"site": "south", "event": "weights", "step": 7}
    done = played(tmp_path / "study", spoiled, federation__cohort={"compare_weights": 5})
    assert events_of(done, "differs", "returned") == [("differs", "south", 10), ("returned", "south", 10)]
    assert done.result["model_sha256"] is not None
    unseen = played(tmp_path / "unseen", spoiled, federation__cohort={"compare_weights": None})
    assert unseen.result["model_sha256"] is None


def test_without_a_majority_nobody_knows_whose_weights_are_right(tmp_path: Path) -> None:
    events = [{"site": name, "event": "weights", "step": step} for step, name in enumerate(("south", "west"), start=6)]
    with pytest.raises(ProtocolError, match=r"the weights of the sites differ in epoch 2 after step 10: north has"):
        played(tmp_path / "study", *events, federation__cohort={"compare_weights": 5})


# --- files ------------------------------------------------------------------------------------------------------------


def test_mistakes_in_a_scenario_are_told_with_their_place(tmp_path: Path) -> None:
    file = tmp_path / "faults.yaml"
    file.write_text("events:\n  - {site: east, event: leaves}\n  - {site: west, event: slow, returns: 3}\n")
    with pytest.raises(ConfigError) as caught:
        simulate(study(), out=tmp_path / "study", scenario=file)
    assert "faults.yaml:2" in str(caught.value)
    assert "no site 'east'" in str(caught.value)
    assert "its sites are north, south, west" in str(caught.value)
    assert "a site returns after it has left" in str(caught.value)
    file.write_text("events:\n  - {site: west, event: explodes}\n")
    with pytest.raises(ConfigError, match="leaves"):
        simulate(study(), out=tmp_path / "study", scenario=file)
    assert not (tmp_path / "study").exists()
    with pytest.raises(UsageError, match="scenario that it began with"):
        simulate(study(), out=tmp_path / "study", scenario=file, resume=True)
    assert set(SIZES) == {"north", "south", "west"}


def test_a_study_that_ends_after_some_steps_has_no_later_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the study takes 5 steps: 6 is after its end"):
        played(tmp_path / "study", {"site": "west", "event": "truncated", "step": 6}, training__steps=5)


@pytest.mark.parametrize(
    ("event", "place", "says"),
    [
        ("{site: wst, event: slow, step: 2, seconds: 9}", "2:12", "did you mean 'west'?; its sites are north, south"),
        ("{site: west, event: slow, step: 2}", "2:5", "a site that takes 0 s is not slow"),
        ("{site: west, event: update, step: 2, seconds: 4}", "2:42", "'seconds' says nothing of 'update'"),
        ("{site: west, event: leaves, step: 2, answers: true}", "2:42", "'answers' says nothing of 'leaves'"),
        ("{site: west, event: reordered, step: 2, answers: true}", "2:45", "'answers' says nothing of 'reordered'"),
        ("{site: west, event: version, step: 2}", "2:34", "'step' says nothing of 'version', which happens when the s"),
        ("{site: west, event: leaves, step: 25}", "2:39", "the study takes 24 steps: 25 is after its end"),
        ("{site: west, event: leaves, step: 5, returns: 90}", "2:51", "the study takes 24 steps: 90 is after its end"),
        (
            "{site: west, event: leaves, step: 5, returns: 9}\n  - {site: west, event: update, step: 7}", "3:33",
            "west is not there at step 7: it leaves at step 5 and returns after step 9",
        ),
        (
            "{site: west, event: version}\n  - {site: west, event: update, step: 7}", "3:33",
            "west never joins, because of its event 'version'",
        ),
    ],
)  # fmt: skip
def test_what_can_never_come_is_refused_before_training(event: str, place: str, says: str, tmp_path: Path) -> None:
    file = tmp_path / "faults.yaml"
    file.write_text(f"events:\n  - {event}\n")
    with pytest.raises(ConfigError) as caught:
        simulate(study(), out=tmp_path / "study", scenario=file)
    assert f"faults.yaml:{place}: " in str(caught.value)
    assert says in str(caught.value)
    assert not (tmp_path / "study").exists()


# --- any faults -------------------------------------------------------------------------------------------------------

HARMLESS = st.builds(
    lambda site, event, step, answers: {
        "site": site,
        "event": event,
        "step": step,
        "answers": answers and event != "reordered",
    },
    st.sampled_from(sorted(SIZES)),
    st.sampled_from(["duplicated", "reordered", "truncated", "corrupted", "replayed"]),
    st.integers(0, 16),
    st.booleans(),
) | st.builds(
    lambda site, step, seconds: {"site": site, "event": "slow", "step": step, "seconds": seconds},
    st.sampled_from(sorted(SIZES)),
    st.integers(0, 16),
    st.floats(0.1, 4.9),  # seconds of several events at the same step are added up
)


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events=st.lists(HARMLESS, min_size=1, max_size=12), strategy=st.sampled_from(range(len(STRATEGIES))))
def test_faults_that_lose_nothing_never_change_a_weight(
    events: list[dict[str, Any]], strategy: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    changes: dict[str, Any] = {
        "federation__strategy": STRATEGIES[strategy], "training__epochs": 2, "federation__cohort": {"deadline": 60},
    }  # fmt: skip
    folder = tmp_path_factory.mktemp("any")
    if strategy not in UNDISTURBED:
        UNDISTURBED[strategy] = outcome(simulate(study(**changes), out=folder / "undisturbed").path)
    assert outcome(played(folder / "study", *events, **changes).path) == UNDISTURBED[strategy]


UNDISTURBED: dict[int, dict[str, Any]] = {}
