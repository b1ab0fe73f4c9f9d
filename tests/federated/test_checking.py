"""`weft check` of studies: what it tells of a sound one, of a fault at one site, and of what the study asks for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import weft
from tests.cli.lab import good
from tests.cli.lab import weft as command
from tests.federated.checked import (
    ITEMS,
    NORMALISING,
    columns,
    files,
    found,
    serious,
    study,
    told,
    write,
)
from weft.errors import UsageError
from weft.federated.checking import check
from weft.federated.study import simulate

REPOSITORY = Path(__file__).parents[2]
STUDIES = sorted((REPOSITORY / "examples").glob("*_study.yaml"))

# --- a sound study ----------------------------------------------------------------------------------------------------


def test_a_sound_study_is_told_of_with_its_sites_and_what_they_send(tmp_path: Path) -> None:
    file = study(tmp_path)
    outcome = good("check", file)
    assert "0 errors, 0 warnings" in outcome.last_line
    for word in ("north", "south", "west", "each site sends", "one mean and scale", "time: ", "memory: ", "disk: "):
        assert word in outcome.out
    report = good("check", file, "--json").json
    assert report["ok"]
    assert set(report["looked_at"]) == {
        f"{site}: {split}" for site in ITEMS for split in ("train", "validation", "test")
    }
    for name, site in report["study"]["sites"].items():
        assert sum(site["items"].values()) == ITEMS[name]
        assert (
            site["bytes"]["sent"] > report["study"]["bytes"]["epoch"]["sent"] > report["study"]["bytes"]["step"]["sent"]
        )
    plain = good("check", plain_file(tmp_path), "--json").json
    assert set(plain) == set(report) - {"study"}
    assert set(plain["estimates"]) == set(report["estimates"])
    time = report["estimates"]["time"]
    assert time["steps_per_epoch"] == 5
    assert time["epoch"] > (3 + 5 + 4) * time["seconds_per_step"]  # sites take turns in one process
    assert not (tmp_path / "runs").exists()


def plain_file(folder: Path) -> Path:
    """An experiment on the table of one site."""
    content = yaml.safe_load((folder / "study.yaml").read_text(encoding="utf-8"))
    content["dataset"]["table"] = content.pop("federation")["sites"]["south"]["table"]
    file = folder / "plain.yaml"
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    return file


def test_looking_at_a_study_moves_no_random_generator(tmp_path: Path) -> None:
    file = study(tmp_path)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    assert weft.check(file).ok
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(UsageError, match="is a study"):
        weft.train(file)


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.stem)
def test_the_examples_are_left_in_peace(file: Path) -> None:
    report = check(file)
    if told(report, "data") and "WEFT_SHARED_DATA" in told(report, "data")[0].remedy:
        pytest.skip("the data set of this example is not here")
    assert serious(report) == []


def test_the_first_fold_is_looked_at(tmp_path: Path) -> None:
    report = check(study(tmp_path, dataset__split={"folds": 4, "stratified": True}))
    assert report.left_out["other folds"] == (
        "of folds 2 to 4 only how items are divided, classes and batches were looked at"
    )
    assert serious(report) == []


# --- one site ---------------------------------------------------------------------------------------------------------


def test_a_site_whose_data_cannot_be_read_is_named_and_the_others_are_looked_at(tmp_path: Path) -> None:
    file = study(tmp_path)
    (tmp_path / "north.csv").write_text("a,b,c,kind\n1,2,three,kind 0\n", encoding="utf-8")
    report = check(file)
    assert "three" in found(report, "data", "error", "north").message
    assert {name.split(":")[0] for name in report.looked_at} == {"south", "west"}
    assert report.left_out["data of north"]
    assert [one.check for one in report.findings if one.severity == "error"] == ["data"]
    assert command("check", file).code == 1
    (tmp_path / "north.csv").unlink()
    found(check(file), "experiment", "error", "north")


def test_what_is_wrong_alike_at_several_sites_is_one_finding_with_all_of_them(tmp_path: Path) -> None:
    tables = {name: columns(name, 3) for name in ("north", "west")}
    report = check(study(tmp_path, tables, dataset__split={"ratio": [0.6, 0.2, 0.2]}))
    assert found(report, "data", "error", "north", "west").evidence["sites"] == ["north", "west"]


@pytest.mark.parametrize("scaled", [True, False])
def test_values_that_are_not_finite_are_told_with_their_site_alone(tmp_path: Path, scaled: bool) -> None:
    file = files(tmp_path, dataset__standardize=scaled)
    for number in range(3, 20):
        spoiled = np.load(tmp_path / "south" / f"{number}.npy")
        spoiled[0, 2, 4] = np.nan
        np.save(tmp_path / "south" / f"{number}.npy", spoiled)
    report = check(file)
    assert "south.csv line" in told(report, "not finite")[0].message
    assert {one.where.split(":")[0] for one in told(report, "not finite")} == {"south"}
    assert report.left_out["model"].endswith("not finite")
    assert not told(report, "data")
    assert report.study["normalised"] == ({"north": 12} if scaled else None)  # south's would spoil all others


def test_a_column_that_is_constant_at_one_site_is_told(tmp_path: Path) -> None:
    flat = columns("north")
    flat["c"][:] = 5
    assert "column 'c'" in found(check(study(tmp_path, {"north": flat})), "constant input", "warning", "north").where


def test_a_leak_between_the_splits_of_a_site_is_told(tmp_path: Path) -> None:
    repeated = {name: np.concatenate([values, values[:20]]) for name, values in columns("south").items()}
    report = check(study(tmp_path, {"south": repeated}))
    assert {one.where.split(":")[0] for one in told(report, "same item in two splits")} == {"south"}
    assert not told(report, "same item at two sites")


def test_a_last_batch_of_one_item_at_a_site_is_told_where_it_cannot_be_trained_on(tmp_path: Path) -> None:
    tables = {"north": columns("north", 41)}  # 25 of them to train on
    normal = {"MLP": {"in_features": 3, "out_features": 2, "hidden": [8], "normalization": "batch"}}
    report = check(study(tmp_path, tables, model=normal, training__batch_size=8))
    assert "one item" in found(report, "batch of one", "error", "north").message


def test_a_sampler_that_fails_at_one_site_is_told_with_it(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "class Rare:\n    def __init__(self, targets):\n        self.targets = targets\n"
        "        if len(targets) < 25:\n            raise ValueError('too few items to draw from')\n\n"
        "    def __iter__(self):\n        return iter(range(len(self.targets)))\n\n"
        "    def __len__(self):\n        return len(self.targets)\n",
        encoding="utf-8",
    )
    file = study(tmp_path, patches=["own.py"], dataset__samplers={"train": {"Rare": {}}})
    assert "too few items" in found(check(file), "batches", "error", "north").message


def test_a_site_without_a_full_batch_is_told(tmp_path: Path) -> None:
    file = study(tmp_path, training__batch_size=27, training__drop_last=True)
    report = check(file)
    assert "no full batch" in found(report, "batch size", "error", "north").message


# --- the study --------------------------------------------------------------------------------------------------------


def test_what_exact_refuses_is_told_with_its_hint(tmp_path: Path) -> None:
    file = study(tmp_path, model=NORMALISING, federation__exact=True)
    finding = [one for one in told(check(file), "exact") if "batch normalisation" in one.message]
    assert "GroupNorm" in finding[0].remedy
    assert not check(study(tmp_path, federation__exact=True, federation__strategy="FedAvg")).ok
    warned = check(study(tmp_path, model=NORMALISING))
    assert found(warned, "batch normalisation", "warning").evidence["layers"]


def test_what_a_strategy_cannot_do_is_told(tmp_path: Path) -> None:
    report = check(study(tmp_path, federation__steps_per_round=3))
    assert "has no rounds" in found(report, "strategy", "error").message
    report = check(study(tmp_path, federation__private=["nothing.like.it"]))
    assert "no parameter" in found(report, "private", "error").message


def test_a_study_that_could_never_begin_is_an_error(tmp_path: Path) -> None:
    report = check(study(tmp_path, federation__cohort={"minimum_sites": 4}))
    assert "3 sites and stops with fewer than 4" in found(report, "cohort", "error").message


@pytest.mark.parametrize(
    ("aggregate", "tolerated", "enough"), [("krum", 1, 5), ("median", 1, 3), ("trimmed_mean", 2, 5)]
)
def test_a_robust_mean_over_too_few_sites_is_told(tmp_path: Path, aggregate: str, tolerated: int, enough: int) -> None:
    file = study(tmp_path, federation__strategy={"FedAvg": {"aggregate": aggregate, "tolerated": tolerated}})
    report = check(file)
    if enough <= len(ITEMS):
        assert "the study goes on with 2" in found(report, "robust mean", "warning").message
        assert "minimum_sites: 3" in found(report, "robust mean", "warning").remedy
    else:
        assert f"among {enough} or more, but the study has 3" in found(report, "robust mean", "error").message


def test_a_warm_up_that_lasts_as_long_as_the_study_is_told(tmp_path: Path) -> None:
    report = check(study(tmp_path, federation__strategy={"PowerSGD": {"warmup_steps": 10}}))
    assert "all 10 steps" in found(report, "warm-up", "warning").message
    assert not told(check(study(tmp_path, federation__strategy={"PowerSGD": {"warmup_steps": 9}})), "warm-up")


def test_sites_whose_classes_are_rarer_than_minimum_cells_are_told(tmp_path: Path) -> None:
    report = check(study(tmp_path, federation__minimum_cells=5))
    assert "5 items of a class at north (test, validation)" in found(report, "minimum cells", "note", "north").message


def test_nothing_to_train_on_is_an_error(tmp_path: Path) -> None:
    content = yaml.safe_load(study(tmp_path).read_text(encoding="utf-8"))
    content["dataset"] |= {"standardize": False}
    content["dataset"].pop("split")
    content["federation"]["sites"] = {name: {"table": {"test": f"{name}.csv"}} for name in ITEMS}
    report = check(write(tmp_path, content))
    assert "weft federate evaluate" in found(report, "no training split", "error").remedy


@pytest.mark.parametrize(
    "changes",
    [
        {"federation__strategy": "dSGD", "training__evaluate_every": 2},
        {"federation__strategy": {"PowerSGD": {"rank": 1, "warmup_steps": 3}}, "federation__uneven": "wrap"},
        pytest.param(
            {"federation__strategy": {"SCAFFOLD": {"steps_per_round": 3}}, "model": NORMALISING, "training__steps": 7},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"federation__pretraining": {"epochs": 1}, "training__accumulate": 2, "run__score_train": "epochs"},
            marks=pytest.mark.slow,
        ),
    ],
    ids=["dSGD", "PowerSGD", "SCAFFOLD", "pretraining"],
)
def test_what_sites_are_told_to_send_is_what_they_send(tmp_path: Path, changes: dict[str, Any]) -> None:
    file = study(tmp_path, **changes)
    report = check(file)
    assert report.ok, report.findings
    result = simulate(file, out=tmp_path / "done").result
    for name, site in result["sites"].items():
        expected, moved = report.study["sites"][name]["bytes"], site["bytes"]
        off = 100 if "federation__pretraining" in changes else 0  # bytes of a text that says who begins
        assert abs(expected["sent"] - moved["sent"]) <= off
        assert abs(expected["received"] - moved["received"]) <= off
    assert report.study["bytes"]["steps"] == result["steps"]


def test_what_is_normalised_together_and_where_training_begins_is_told(tmp_path: Path) -> None:
    report = check(study(tmp_path, federation__pretraining={"epochs": 1}))
    assert report.study["normalised"] == {"north": 24, "south": 36, "west": 30}
    assert report.study["pretraining"] == {"site": "south", "items": 36}
    assert json.dumps(report.as_dict())
    assert check(study(tmp_path, dataset__standardize=False)).study["normalised"] is None
