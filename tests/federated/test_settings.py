"""Settings of `federation:` that cannot work, or not as meant, are told before training, by both commands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.federated.checked import columns, study, told
from weft.errors import ConfigError, DataError, UsageError
from weft.federated.checking import check
from weft.federated.study import simulate


def five(folder: Path, **changes: Any) -> Path:
    """A study of five sites."""
    file = study(folder, **changes)
    content = yaml.safe_load(file.read_text())
    for name in ("east", "isle"):
        table = columns("north")
        (folder / f"{name}.csv").write_text(
            "a,b,c,kind\n" + "".join(f"{a},{b},{c},{kind}\n" for a, b, c, kind in zip(*table.values(), strict=True))
        )
        content["federation"]["sites"].setdefault(name, {"table": {"file": f"{name}.csv"}})
    file.write_text(yaml.safe_dump(content))
    return file


def robust(aggregate: str, **arguments: Any) -> dict[str, Any]:
    """A strategy whose mean some sites cannot spoil."""
    return {"FedAvg": {"aggregate": aggregate, **arguments}}


@pytest.mark.parametrize(
    ("changes", "key", "says"),
    [
        ({"strategy": robust("krum")}, "strategy", "among 5 or more, but the study has 3"),
        ({"strategy": robust("krum", tolerated=0)}, "", ""),
        ({"strategy": robust("trimmed_mean", tolerated=2)}, "strategy", "2 sites .* among 5 or more, but"),
        ({"strategy": robust("median", tolerated=2)}, "strategy", "among 5 or more, but the study has 3"),
        ({"strategy": {"TopK": {"strategy": {"component": robust("krum")}}}}, "strategy", "among 5 or more, but the"),
        ({"cohort": {"minimum_sites": 4}}, "cohort.minimum_sites", "3 sites and stops with fewer than 4"),
        ({"private": ["nothing.*"]}, "private", "no parameter of the model has a name like"),
        (
            {"minimum_cells": 200, "monitored": True}, "minimum_cells",
            "no site has 200 items of each class in validation: .* and training follows one of them",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_before_training_with_its_place(
    changes: dict[str, Any], key: str, says: str, tmp_path: Path
) -> None:
    monitored = changes.pop("monitored", False)
    further = {"training__monitor": {"metric": "auroc"}} if monitored else {}
    file = study(tmp_path, **{f"federation__{name}": value for name, value in changes.items()}, **further)
    if not says:
        assert simulate(file, out=tmp_path / "study").result["status"] == "finished"
        return
    with pytest.raises(ConfigError, match=says) as caught:
        simulate(file, out=tmp_path / "study")
    (problem,) = caught.value.problems
    assert ".".join(map(str, problem.path)) == f"federation.{key}"
    assert problem.line is not None
    assert key.rpartition(".")[2] in file.read_text().splitlines()[problem.line - 1]
    assert not (tmp_path / "study").exists()
    assert any(one.severity == "error" and key in one.where for one in check(file).findings)


@pytest.mark.parametrize("aggregate", ["median", "krum"])
def test_the_median_of_two_sites_is_their_mean_and_refused_only_where_one_is_tolerated(
    aggregate: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = study(tmp_path, federation__strategy=robust(aggregate, tolerated=0), training__epochs=1)
    content = yaml.safe_load(file.read_text())
    del content["federation"]["sites"]["west"]
    file.write_text(yaml.safe_dump(content))
    simulate(file, out=tmp_path / "study")
    assert "of two sites is their mean" in caplog.text
    assert "keeps" not in caplog.text
    (found,) = told(check(file), "robust mean")
    assert found.severity == "warning"
    content["federation"]["strategy"] = robust(aggregate)
    file.write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError, match="keeps 1 site .* but the study has 2"):
        simulate(file, out=tmp_path / "another")


def test_the_median_of_two_sites_that_train_is_told_where_others_do_not(tmp_path: Path) -> None:
    file = study(tmp_path, federation__strategy=robust("median", tolerated=0))
    content = yaml.safe_load(file.read_text())
    del content["dataset"]["split"]
    for number, (name, site) in enumerate(content["federation"]["sites"].items()):
        site["table"] = {"train" if number < 2 else "test": f"{name}.csv"}
    file.write_text(yaml.safe_dump(content))
    (found,) = told(check(file), "robust mean")
    assert found.severity == "warning"
    assert "only 2 have training data" in found.message


def test_only_sites_that_train_count_in_a_robust_mean(tmp_path: Path) -> None:
    file = five(tmp_path, federation__strategy=robust("krum"))
    content = yaml.safe_load(file.read_text())
    del content["dataset"]["split"]
    for number, (name, site) in enumerate(content["federation"]["sites"].items()):
        site["table"] = {"train" if number < 4 else "test": f"{name}.csv"}
    file.write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError, match="among 5 or more, but only 4 have training data"):
        simulate(file, out=tmp_path / "study")
    assert "only 4" in told(check(file), "robust mean")[0].message


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"strategy": robust("median")}, "federation.cohort.minimum_sites: median .* goes on with 2; write"),
        ({"strategy": robust("trimmed_mean", tolerated=0)}, "trims nothing"),
        ({"strategy": {"FedAvg": {"tolerated": 2}}}, "tolerated: 2 says nothing with aggregate: sum"),
        (
            {"strategy": {"dSGD": {"aggregate": "median"}}, "cohort": {"minimum_sites": 3}},
            "federation.uneven: median .* in 2 of 5 steps of an epoch fewer have items left; write uneven: wrap",
        ),
        ({"cohort": {"minimum_sites": 3, "deadline": 5}}, "one that misses the deadline of 5 s ends it"),
        ({"cohort": {"compare_weights": 70}}, "compared after 70 steps, but the study takes 10; write at most 10"),
        ({"strategy": "FedAvg", "steps_per_round": 9}, "steps_per_round: a round of 9 steps ends with its epoch"),
        ({"minimum_cells": 1}, "1 changes nothing"),
        ({"minimum_cells": 5, "metrics": ["accuracy"]}, "no score of this study comes from bins .accuracy."),
        ({"minimum_cells": 200}, "no site has 200 items of each class in test"),
        ({"sites": {name: {"table": {"file": f"{name[:5]}.csv"}} for name in ("north", "north2", "south", "west")}},
         "north, north2 name the same data"),
    ],
)  # fmt: skip
def test_what_is_dubious_is_told_and_trained(
    changes: dict[str, Any], says: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    further = {"training__metrics": changes.pop("metrics")} if "metrics" in changes else {}
    file = study(tmp_path, **{f"federation__{name}": value for name, value in changes.items()}, **further)
    simulate(file, out=tmp_path / "study")
    warned = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert any(re.search(says, message) for message in warned), caplog.text


def test_a_study_that_is_as_it_should_be_is_told_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    simulate(study(tmp_path), out=tmp_path / "study")
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_words_that_there_are_not_are_told_with_the_nearest_and_their_place(tmp_path: Path) -> None:
    file = study(tmp_path, federation__strategy={"dSGD": {"aggregate": "mediann"}})
    with pytest.raises(ConfigError) as caught:
        simulate(file, out=tmp_path / "study")
    (problem,) = caught.value.problems
    assert problem.line is not None
    assert "expected one of sum, median, trimmed_mean, krum, found 'mediann'" in problem.message
    assert "median" in problem.hint


def test_an_argument_that_a_strategy_refuses_is_told_with_its_place(tmp_path: Path) -> None:
    file = study(tmp_path, federation__strategy={"FedAvg": {"steps_per_round": 0}})
    with pytest.raises(UsageError, match=r"study.yaml:\d+:\d+: federation.strategy: steps_per_round is 0"):
        simulate(file, out=tmp_path / "study")


@pytest.mark.parametrize(
    ("sites", "hint"),
    [
        ({"site a": {"table": {"file": "north.csv"}}}, "letters, digits, - and _"),
        ([{"north": {"table": {"file": "north.csv"}}}], "The sites by name"),
    ],
)
def test_sites_that_are_written_wrong_are_told_how_to_write_them(sites: Any, hint: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="federation.sites") as caught:
        simulate(study(tmp_path, federation__sites=sites), out=tmp_path / "study")
    assert hint in str(caught.value)


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ({"kind 0": "Kind 0", "kind 1": "Kind 1"}, "'Kind 0' .west. and 'kind 0' .north, south."),
        ({"kind 0": "0", "kind 1": "1"}, "west has 0, 1: none of these labels occurs at another site"),
    ],
)
def test_labels_that_sites_write_in_unlike_ways_are_told_before_training_too(
    written: dict[str, str], says: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = columns("west")
    table["kind"] = np.array([written[kind] for kind in table["kind"]])
    file = study(tmp_path, {"west": table}, training__epochs=1)
    with pytest.raises(DataError, match="2 outputs per item, but the data have 4 classes"):
        simulate(file, out=tmp_path / "study")
    assert re.search(says, caplog.text)


def test_labels_that_a_site_itself_tells_apart_are_no_slips(tmp_path: Path) -> None:
    tables = {}
    for name in ("north", "south", "west"):
        tables[name] = columns(name)
        signs = {"kind 0": "Rh+", "kind 1": "Rh-"}
        tables[name]["kind"] = np.array([signs[kind] for kind in tables[name]["kind"]])
    assert not told(check(study(tmp_path, tables)), "unlike labels")
