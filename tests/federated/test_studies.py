"""Studies: what comes out of one, what it equals, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.engine.studies import DoubleNet, share
from tests.federated.lab import SIZES, distance_to_union, outcome, rows_of, simulate_and_die, state_of, study
from weft.actions import TrainedRun, check, reproduce, train
from weft.actions import open as open_trained
from weft.actions import resume as go_on
from weft.actions.opening import load, open_experiment_data
from weft.errors import ConfigError, DataError, RunDirectoryError, UsageError, WeftError
from weft.federated.site import site_experiment
from weft.federated.study import simulate

pytest.importorskip("sklearn")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    """A study of three sites."""
    return simulate(study(), out=tmp_path_factory.mktemp("study") / "study")


def test_a_study_equals_training_on_the_union_of_the_sites_batches(tmp_path: Path) -> None:
    written = study(dataset__standardize=True, federation__exact=True, training__epochs=10)
    done = simulate(written, out=tmp_path / "study")
    assert distance_to_union(done.path, written, epochs=10) < 1e-12


def test_inputs_are_scaled_by_the_items_of_all_sites(tmp_path: Path) -> None:
    done = simulate(study(dataset__standardize=True, training__epochs=1), out=tmp_path / "study")
    experiment = load(study())
    rows = []
    for name in SIZES:
        data = open_experiment_data(site_experiment(experiment, name))
        rows.append(data.splits["train"].arrays[0].double())  # type: ignore[index]
    union = torch.cat(rows)
    (found,) = json.loads((done.path / "statistics.json").read_text())["standardize"]
    assert np.allclose(found["mean"], union.mean(0), rtol=1e-13, atol=1e-13)
    assert np.allclose(found["scale"], union.std(0, correction=0), rtol=1e-12)


def test_pooled_scores_are_counts_and_not_averages_of_averages(done: TrainedRun) -> None:
    from sklearn.metrics import roc_auc_score

    for split in ("train", "validation", "test"):
        rows = [row for name in SIZES for row in rows_of(done.path / "sites" / name / "scores" / f"{split}.csv")]
        right = [row["target"] == row["prediction"] for row in rows]
        assert done.scores[split]["accuracy"] == sum(right) / len(right)
        exact = roc_auc_score([int(row["target"]) for row in rows], [float(row["probability_1"]) for row in rows])
        assert abs(done.scores[split]["auroc"] - exact) <= done.result["bounds"][split]["auroc"] + 1e-12
    history = rows_of(done.path / "history.csv")
    assert len(history) == 3
    assert all(rows_of(done.path / "sites" / name / "history.csv") == history for name in SIZES)


def test_each_site_is_a_run_of_its_own(done: TrainedRun) -> None:
    written = json.loads((done.path / "result.json").read_text())
    for name, size in SIZES.items():
        site = open_trained(done.path / "sites" / name)
        assert site.result["scores"] == written["sites"][name]["scores"]
        assert sum(done.result["sites"][name]["items"].values()) == size
        assert (site.path / "report.html").exists()
        assert site.result["model_sha256"] == done.result["model_sha256"]
    with pytest.raises(UsageError, match="belongs to a study") as caught:
        go_on(done.path / "sites" / "north")
    assert "weft federate simulate --resume" in caught.value.hint
    with pytest.raises(UsageError, match="belongs to a study"):
        reproduce(done.path / "sites" / "north")


def test_bytes_are_those_of_what_travels(done: TrainedRun) -> None:
    parameters = sum(parameter.numel() for parameter in DoubleNet().parameters())
    for name in SIZES:
        moved = done.result["sites"][name]["bytes"]["by_kind"]["gradients"]
        steps = done.result["steps"]
        assert moved == {"messages": steps, **dict.fromkeys(("sent", "received"), steps * (8 * parameters + 8))}


def test_two_sites_share_no_generator(tmp_path: Path) -> None:
    same = {"arrays": {"tests.engine.studies.share": {"start": 0, "stop": 60}}}
    written = study(
        {"a": same, "b": same, "c": same},
        model={"tests.engine.studies.DoubleNet": {"dropout": 0.5}},
        training__epochs=1,
    )
    torch.manual_seed(99)
    before = torch.get_rng_state()
    done = simulate(written, out=tmp_path / "study")
    assert torch.equal(torch.get_rng_state(), before)
    states = [state_of(done.path, name)["random"] for name in "abc"]
    for first, second in ((0, 1), (1, 2), (0, 2)):
        assert not torch.equal(states[first]["torch"], states[second]["torch"])
    splits = [json.loads((done.path / "sites" / name / "splits.json").read_text())["splits"]["test"] for name in "abc"]
    assert splits[0] != splits[1] != splits[2]  # nor do they divide their items alike


def test_a_site_draws_the_same_numbers_whoever_takes_part(tmp_path: Path) -> None:
    experiment = load(study())
    assert experiment.federation is not None
    fewer = {name: site for name, site in study()["federation"]["sites"].items() if name != "south"}
    assert site_experiment(load(study(fewer)), "west").seed == site_experiment(experiment, "west").seed


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["FedAvg", "SCAFFOLD", {"PowerSGD": {"rank": 2}}, "rankDAD", "FedBN"])
def test_other_strategies_run(strategy: Any, tmp_path: Path) -> None:
    done = simulate(study(federation__strategy=strategy, training__epochs=2), out=tmp_path / "study")
    assert done.scores["validation"]["accuracy"] > 0.8


# --- sites that lack something ----------------------------------------------------------------------------------------


def _tables(folder: Path, parts: dict[str, tuple[int, int]], only: dict[str, str] | None = None) -> None:
    for name, (start, stop) in parts.items():
        inputs, labels = share(start, stop)
        words = np.array(["malignant", "benign"])[labels]
        rows = [
            ",".join(map(str, [*row[:5], word]))
            for row, word in zip(inputs, words, strict=True)
            if word == (only or {}).get(name, word)
        ]
        (folder / f"{name}.csv").write_text("\n".join(["a,b,c,d,e,kind", *rows]) + "\n")


def _table_study(folder: Path, sites: dict[str, Any], **changes: Any) -> dict[str, Any]:
    placed = {
        name: {"table": {key: str(folder / f"{file}.csv") for key, file in table.items()}}
        for name, table in sites.items()
    }
    settings = {
        "dataset": {"inputs": ["a", "b", "c", "d", "e"], "targets": ["kind"], "standardize": True},
        "model": {"MLP": {"in_features": 5, "hidden": [8], "out_features": 2}},
    }
    return study(placed, **settings, **changes)


def test_sites_may_lack_validation_data_or_a_class_or_training_data(tmp_path: Path) -> None:
    parts = {"one": (0, 60), "two": (60, 120), "three": (120, 160), "check": (160, 200), "late": (200, 230)}
    _tables(tmp_path, parts, only={"two": "malignant"})
    sites = {
        "whole": {"train": "one", "validation": "check"},
        "one-sided": {"train": "two"},
        "tested": {"test": "late"},
    }
    done = simulate(_table_study(tmp_path, sites), out=tmp_path / "study", compare=True)
    assert done.result["sites"]["one-sided"]["items"].keys() == {"train"}
    assert done.result["sites"]["tested"]["items"] == {"test": 30}
    rows = rows_of(done.path / "sites" / "whole" / "scores" / "validation.csv")
    right = sum(row["target"] == row["prediction"] for row in rows)
    assert done.scores["validation"]["accuracy"] == right / 40
    assert json.loads((done.path / "statistics.json").read_text())["classes"] == ["benign", "malignant"]
    assert json.loads((done.path / "sites" / "one-sided" / "data.json").read_text())["classes"] == [
        "benign",
        "malignant",
    ]
    assert done.result["comparison"]["alone_by_site"].keys() == {"whole", "one-sided"}


def test_a_per_step_schedule_is_as_long_at_every_site(tmp_path: Path) -> None:
    written = study(training__scheduler={"OneCycleLR": {"max_lr": 0.05}})
    done = simulate(written, out=tmp_path / "study")
    rates = {name: rows_of(done.path / "sites" / name / "steps.csv") for name in SIZES}
    assert len({tuple(row["learning_rate"] for row in rows) for rows in rates.values()}) == 1
    assert float(rates["north"][-1]["learning_rate"]) < 1e-3


# --- going on ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("site", "saves"),
    [
        pytest.param("north", 1, marks=pytest.mark.slow),  # nobody else has saved anything
        pytest.param("south", 3, marks=pytest.mark.slow),
        ("north", 3),  # the end of an epoch, at the step at which the others saved inside it
        pytest.param("west", 7, marks=pytest.mark.slow),  # everybody has finished training
    ],
)
def test_a_killed_study_goes_on_to_the_same_bits(site: str, saves: int, tmp_path: Path) -> None:
    settings = {
        "model": {"tests.engine.studies.DoubleNet": {"dropout": 0.3}},
        "dataset__standardize": True,
        "federation__strategy": {"PowerSGD": {"rank": 1, "warmup_steps": 2}} if saves == 3 else "dSGD",
        "run__checkpoint_every": {"steps": 4, "epochs": 1},
    }
    undisturbed = simulate(study(**settings), out=tmp_path / "undisturbed")
    simulate_and_die(study(**settings), tmp_path / "killed", site, saves)
    assert not (tmp_path / "killed" / "result.json").exists()
    done = simulate(tmp_path / "killed", ["run.observers=[]"], resume=True)
    assert outcome(done.path) == outcome(undisturbed.path)


def test_going_on_with_a_study_that_there_is_not_names_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no study at .*nowhere"):
        simulate(tmp_path / "nowhere", resume=True)


def test_a_finished_study_is_returned_as_it_is(done: TrainedRun) -> None:
    again = simulate(study(), out=done.path, resume=True)
    assert again.result == json.loads((done.path / "result.json").read_text())
    with pytest.raises(UsageError, match="another experiment"):
        simulate(study(training__epochs=2), out=done.path, resume=True)
    with pytest.raises(RunDirectoryError, match="already holds a run"):
        simulate(study(), out=done.path)


# --- comparing --------------------------------------------------------------------------------------------------------


def test_a_study_is_compared_with_one_place_and_with_each_site_alone(tmp_path: Path) -> None:
    done = simulate(study(training__epochs=5), out=tmp_path / "study", compare=True)
    comparison = done.result["comparison"]
    assert comparison["study"] == done.scores
    for split in ("train", "validation", "test"):
        items = {name: site["items"][split] for name, site in done.result["sites"].items()}
        alone = [comparison["alone_by_site"][name][split]["accuracy"] * number for name, number in items.items()]
        assert comparison["alone"][split]["accuracy"] == pytest.approx(sum(alone) / sum(items.values()), abs=1e-12)
    assert comparison["pooled"]["validation"]["accuracy"] > 0.85


# --- what is refused --------------------------------------------------------------------------------------------------

NORMALISED = {"tests.engine.studies.DoubleNet": {"batch_norm": True}}


@pytest.mark.parametrize(
    ("changes", "says", "hint"),
    [
        ({"model": NORMALISED, "federation__exact": True}, "batch normalisation", "GroupNorm"),
        ({"federation__strategy": "FedAvg", "federation__exact": True}, "FedAvg does not give", "dSGD"),
        ({"federation__strategy": {"dSGD": {"aggregate": "median"}}, "federation__exact": True}, "dSGD does not", ""),
        ({"federation__steps_per_round": 3}, "dSGD has no rounds", "FedAvg"),
        (
            {"federation__steps_per_round": 3, "federation__strategy": {"FedAvg": {"steps_per_round": 2}}},
            "3 here and 2 at the strategy",
            "once",
        ),
        ({"federation__strategy": "FedAverage"}, "no strategy named", "FedAvg"),
        ({"federation__strategy": "MLP"}, "strategy", ""),
        ({"federation__cohort": {"minimum_sites": 4}}, "3 sites and stops with fewer than 4", "at most 3"),
        ({"dataset__folder": "."}, "belong to no site", "federation.sites.NAME"),
        ({"model": DoubleNet()}, "shared by all sites", "its class"),
        ({"run__processes": 2}, "one process", "run.processes"),
        ({"training__batch_size": "auto"}, "must be written", "batch_size: 16"),
        ({"federation__sites": {"a": {"arrays": "tests.engine.studies.share"}}}, "at least two sites", ""),
        ({"federation__sites": {"a": {}, "b": {}}}, "no data are given", "table"),
        ({"federation__sites": {"../a": {}, "b": {}}}, "'../a'", ""),
        ({"federation__sites": {"Hub": {}, "b": {}}}, "the name of the hub", "another"),
    ],
)
def test_a_section_that_cannot_work_is_told_and_nothing_is_left(
    changes: dict[str, Any], says: str, hint: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        simulate(study(**changes), out=tmp_path / "study")
    assert hint in str(caught.value)
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize("within", ["FedAvg", {"FedAvg": {"steps_per_round": 2}}])
def test_a_strategy_within_another_that_is_no_component_is_told_with_how_to_write_it(
    within: str | dict[str, Any], tmp_path: Path
) -> None:
    for outer in ("TopK", "Payload"):
        with pytest.raises(UsageError, match=f"strategy within {outer} is .*FedAvg") as caught:
            simulate(study(federation__strategy={outer: {"strategy": within}}), out=tmp_path / "study")
        assert "strategy: {component: {FedAvg: {…}}}" in str(caught.value)
    assert not (tmp_path / "study").exists()


def test_frozen_statistics_are_exact(tmp_path: Path) -> None:
    model = {"component": NORMALISED, "freeze": ["layers.1.*"]}
    done = simulate(study(model=model, federation__exact=True, training__epochs=1), out=tmp_path / "study")
    assert done.result["model_sha256"] is not None  # the same at all sites
    weights = state_of(done.path, "north")["model"]
    assert not weights["layers.1.running_mean"].any()  # as they began: no batch has moved them
    assert bool((weights["layers.1.running_var"] == 1).all())


def test_a_study_is_not_trained_in_one_place_nor_the_other_way_round(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a study of 3 sites") as caught:
        train(study(), out=tmp_path / "run")
    assert "weft federate simulate" in caught.value.hint
    alone = study()
    del alone["federation"]
    alone["dataset"]["arrays"] = {"tests.engine.studies.share": {"start": 0, "stop": 60}}
    with pytest.raises(UsageError, match="is a study: its data lie at its sites"):
        check(study())
    with pytest.raises(UsageError, match="no section 'federation'"):
        simulate(alone, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_is_wrong_at_a_site_is_told_with_its_name(tmp_path: Path) -> None:
    _tables(tmp_path, {"one": (0, 40), "two": (40, 80)})
    text = (tmp_path / "two.csv").read_text().replace("a,b,c,d,e,kind", "a,b,c,d,x,kind")
    (tmp_path / "two.csv").write_text(text)
    sites = {"fine": {"file": "one"}, "odd": {"file": "two"}}
    written = _table_study(tmp_path, sites)
    written["dataset"]["split"] = {"ratio": [0.8, 0.2]}
    with pytest.raises(WeftError) as caught:
        simulate(written, out=tmp_path / "study")
    assert "site odd" in caught.value.message or "two.csv" in caught.value.message
    assert isinstance(caught.value, DataError)
