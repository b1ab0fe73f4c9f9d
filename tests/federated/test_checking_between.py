"""`weft check` of studies: each fault between two sites is found and named with both."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.actions.check_projects import write_table
from tests.federated.checked import (
    ITEMS,
    arrays,
    columns,
    files,
    found,
    study,
    told,
    vectors,
    write,
)
from weft.actions.opening import digest_experiment_data, load
from weft.federated.checking import check

# --- leaks ------------------------------------------------------------------------------------------------------------


def test_rows_that_lie_at_two_sites_are_a_leak(tmp_path: Path) -> None:
    own, other = columns("north"), columns("south")
    mixed = {name: np.concatenate([own[name], other[name][:25]]) for name in own}
    report = check(study(tmp_path, {"north": mixed}))
    finding = found(report, "same item at two sites", "error", "north", "south")
    assert "25 items of south" in finding.message
    assert finding.evidence["leaks"]
    assert finding.remedy


def test_a_table_that_two_sites_name_is_a_leak(tmp_path: Path) -> None:
    file = study(tmp_path, federation__sites__west={"table": {"file": "south.csv"}})
    assert "60 items of west" in found(check(file), "same item at two sites", "error", "south", "west").message


def test_a_site_that_is_a_copy_of_another_is_an_error_even_where_both_are_divided_alike(tmp_path: Path) -> None:
    for name, rows in {"train": slice(0, 40), "validation": slice(40, 60)}.items():
        write_table(tmp_path / f"{name}.csv", {key: values[rows] for key, values in columns("south").items()})
    content = yaml.safe_load(study(tmp_path).read_text(encoding="utf-8"))
    content["dataset"].pop("split")
    table = {"train": "train.csv", "validation": "validation.csv"}
    content["federation"]["sites"] = {name: {"table": table} for name in ("north", "south")}
    finding = found(check(write(tmp_path, content)), "same item at two sites", "error", "north", "south")
    assert not finding.evidence["leaks"]


def test_of_many_sites_with_a_table_in_common_a_few_pairs_are_told_one_by_one(tmp_path: Path) -> None:
    sites = {f"site{number}": {"table": {"file": "south.csv"}} for number in range(6)}
    report = check(study(tmp_path, federation__sites=sites))
    leaks = told(report, "same item at two sites")
    assert [one.severity for one in leaks] == ["error"] * 10 + ["warning"]
    assert leaks[-1].message.startswith("5 more pairs")
    assert {site for one in leaks for site in one.evidence["sites"]} == set(sites)


def test_rows_that_two_sites_train_on_count_twice(tmp_path: Path) -> None:
    tables: dict[str, dict[str, str]] = {}
    shared = {name: values[:10] for name, values in columns("south").items()}
    for name in ("north", "west"):
        own = columns(name)
        write_table(tmp_path / f"{name}_train.csv", {key: np.concatenate([own[key], shared[key]]) for key in own})
        rows = slice(10, 30) if name == "north" else slice(30, 60)
        apart = {key: values[rows] for key, values in columns("south").items()}
        write_table(tmp_path / f"{name}_validation.csv", apart)
        tables[name] = {split: f"{name}_{split}.csv" for split in ("train", "validation")}
    content = yaml.safe_load(study(tmp_path).read_text(encoding="utf-8"))
    content["dataset"].pop("split")
    content["federation"]["sites"] = {name: {"table": table} for name, table in tables.items()}
    finding = found(check(write(tmp_path, content)), "same item at two sites", "warning", "north", "west")
    assert not finding.evidence["leaks"]
    assert finding.evidence["splits"] == [["train", "train", 10]]


def test_equal_inputs_of_few_values_are_chance(tmp_path: Path) -> None:
    tables = {}
    for place, name in enumerate(ITEMS):
        random = np.random.default_rng(place)
        tables[name] = {key: random.integers(0, 3, ITEMS[name]) for key in "abc"} | {"kind": columns(name)["kind"]}
    report = check(study(tmp_path, tables))
    assert {one.severity for one in told(report, "same item at two sites")} == {"note"}


def test_files_that_two_sites_name_are_a_leak_even_where_few_items_can_be_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("weft.federated.checking.sites._LEAST_SECONDS", 0.0)
    monkeypatch.setattr("weft.actions.checking.checks._SECONDS", 1e-3)  # an item of each split, and no file is read
    report = check(files(tmp_path, range(7, 12)))
    assert "5 files" in found(report, "same item at two sites", "error", "north", "south").message


def test_copies_of_files_are_found_by_known_digests_and_files_that_were_not_read_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("weft.federated.checking.sites._LEAST_SECONDS", 0.0)
    monkeypatch.setattr("weft.actions.checking.checks._SECONDS", 1e-9)  # an item of each split, and no file is read
    file = files(tmp_path)
    for number in range(7, 12):
        shutil.copy(tmp_path / "north" / f"{number}.npy", tmp_path / "south" / f"{number + 1}.npy")
    report = check(file)
    assert not told(report, "same item at two sites")
    assert report.left_out["contents of files"].startswith("40 files as large as one of another site could not be read")
    digest_experiment_data(load(file))
    report = check(file)
    assert "5 files" in found(report, "same item at two sites", "error", "north", "south").message
    assert "contents of files" not in report.left_out


def test_files_whose_items_were_looked_at_are_told_once(tmp_path: Path) -> None:
    report = check(files(tmp_path, range(7, 12)))
    assert "5 items" in found(report, "same item at two sites", "error", "north", "south").message


@pytest.mark.parametrize("named", [True, False], ids=["the group", "a column nobody named"])
def test_people_who_occur_at_two_sites_are_told(tmp_path: Path, named: bool) -> None:
    tables = {}
    for number, name in enumerate(ITEMS):
        people = [f"{name[0]}{place // 2}" for place in range(ITEMS[name])]
        tables[name] = columns(name) | {"patient": ["n3", "n4", *people[2:]] if number else people}
    changes = {"dataset__group": "patient", "dataset__split": {"ratio": [0.6, 0.2, 0.2], "grouped": True}}
    report = check(study(tmp_path, tables, **(changes if named else {})))
    finding = found(report, "same group at two sites", "warning", "north", "south", "west")
    assert "north and south 2 (n3, n4)" in finding.message
    assert set(finding.evidence["pairs"]) == {"north and south", "north and west", "south and west"}


def test_sites_that_count_their_people_from_one_are_asked_about_once(tmp_path: Path) -> None:
    tables = {name: columns(name) | {"patient": np.arange(ITEMS[name]) // 2} for name in ITEMS}
    report = check(study(tmp_path, tables, dataset__group="patient", dataset__split={"ratio": [0.6, 0.2, 0.2]}))
    assert not told(report, "same group at two sites")
    found(report, "same names at sites", "note", "north", "south", "west")


# --- sites that are unlike --------------------------------------------------------------------------------------------


def test_sites_of_very_unlike_sizes_are_told(tmp_path: Path) -> None:
    report = check(study(tmp_path, {"west": columns("west", 1000)}))
    assert (
        "600 training items, north 24 (25 times fewer)"
        in found(report, "unlike sizes", "warning", "north", "west").message
    )


def test_a_site_with_so_few_items_that_its_sums_tell_them_is_told(tmp_path: Path) -> None:
    report = check(study(tmp_path, {"north": columns("north", 4)}, dataset__split={"ratio": [0.6, 0.4]}))
    assert "north (2)" in found(report, "few items", "warning", "north").message


@pytest.mark.parametrize(("strategy", "severity"), [("dSGD", "note"), ("FedAvg", "warning")])
def test_a_class_that_a_site_lacks_is_grave_only_where_sites_train_by_themselves(
    tmp_path: Path, strategy: str, severity: str
) -> None:
    one_class = {name: values[columns("west")["kind"] == "kind 0"] for name, values in columns("west").items()}
    report = check(study(tmp_path, {"west": one_class}, federation__strategy=strategy))
    missing = [one for one in told(report, "missing class") if one.where == "west: train"]
    assert [one.severity for one in missing] == [severity]
    assert "kind 1" in missing[0].message
    found(report, "unlike classes", severity, "west")
    assert report.ok


def test_shares_of_classes_that_chance_explains_are_not_told(tmp_path: Path) -> None:
    few = columns("north", 16)
    few["kind"] = np.array(["kind 0"] * 15 + ["kind 1"])
    assert not told(check(study(tmp_path, {"north": few})), "unlike classes")


def test_labels_are_judged_over_all_sites_as_they_are_written(tmp_path: Path) -> None:
    tables = {name: columns(name) | {"kind": np.arange(ITEMS[name]) % 2} for name in ITEMS}
    tables["west"]["kind"] = np.ones(ITEMS["west"], int)  # all of one kind, which is no mistake
    assert not told(check(study(tmp_path, tables)), "label values")
    tables = {name: columns(name) | {"kind": np.arange(ITEMS[name]) % 2 * 255} for name in ITEMS}
    assert "255" in found(check(study(tmp_path, tables)), "label values", "error").message


ROWS = """import torch
from torch.utils.data import Dataset


class Rows(Dataset):
    def __init__(self, seed, kind="float32", labels=(0, 1)):
        make = torch.Generator().manual_seed(seed)
        self.y = torch.tensor(labels)[torch.arange(30) % len(labels)]
        self.x = (torch.rand((30, 3), generator=make) * 9 + self.y[:, None]).to(getattr(torch, kind))

    def __len__(self):
        return 30

    def __getitem__(self, row):
        return self.x[row], self.y[row]


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.last = torch.nn.Linear(3, 2)

    def forward(self, x):
        return self.last(x.float())
"""


def rows(folder: Path, **west: Any) -> Path:
    """A study on a dataset class of the user's, with other arguments at west."""
    (folder / "own.py").write_text(ROWS, encoding="utf-8")
    content = yaml.safe_load(study(folder, patches=["own.py"], model={"Net": {}}).read_text(encoding="utf-8"))
    content["dataset"] = {"split": {"ratio": [0.6, 0.2, 0.2]}}
    content["federation"]["sites"] = {
        name: {"class": {"Rows": {"seed": seed, **(west if name == "west" else {})}}} for seed, name in enumerate(ITEMS)
    }
    return write(folder, content)


def test_labels_that_only_items_tell_are_judged_over_all_sites(tmp_path: Path) -> None:
    assert not told(check(rows(tmp_path, labels=[1])), "label values")
    broken = told(check(rows(tmp_path, labels=[0.0, 0.5])), "float labels")
    assert {one.where.split(":")[0] for one in broken} == {"west"}
    assert "0.5" in broken[0].message


def test_a_class_that_nobody_trains_on_is_an_error(tmp_path: Path) -> None:
    tables: dict[str, Any] = {}
    for name in ITEMS:
        own = columns(name)
        rare = own["kind"] == "kind 1"
        for split, rows in (("train", ~rare), ("validation", rare)):
            write_table(tmp_path / f"{name}_{split}.csv", {key: values[rows] for key, values in own.items()})
        tables[name] = {"table": {split: f"{name}_{split}.csv" for split in ("train", "validation")}}
    content = yaml.safe_load(study(tmp_path).read_text(encoding="utf-8"))
    content["dataset"].pop("split")
    content["federation"]["sites"] = tables
    finding = found(check(write(tmp_path, content)), "missing class", "error")
    assert finding.where == "all sites: train"
    assert finding.evidence["classes"] == ["kind 1"]


def test_classes_that_are_rare_over_all_sites_are_told_once(tmp_path: Path) -> None:
    tables = {}
    for name in ITEMS:
        tables[name] = columns(name, 300)
        tables[name]["kind"][:] = "kind 0"
        tables[name]["kind"][::30] = "kind 1"
    assert found(check(study(tmp_path, tables)), "class imbalance", "warning").where == "all sites: train"


def test_labels_that_are_spelled_in_two_ways_are_an_error(tmp_path: Path) -> None:
    loud = columns("south")
    loud["kind"] = np.array([label.upper().replace(" ", "_") for label in loud["kind"]])
    report = check(study(tmp_path, {"south": loud}))
    finding = found(report, "unlike labels", "error", "north", "south", "west")
    assert "'KIND_0' (south) and 'kind 0' (north, west)" in finding.message
    assert report.left_out["model"].endswith("unlike labels")  # what the model is told of classes would mislead


def test_a_site_none_of_whose_labels_occurs_elsewhere_is_an_error(tmp_path: Path) -> None:
    other = columns("south")
    other["kind"] = np.array([{"kind 0": "well", "kind 1": "ill"}[label] for label in other["kind"]])
    finding = found(check(study(tmp_path, {"south": other})), "unlike labels", "error", "south")
    assert "ill, well" in finding.message


def test_a_site_that_counts_classes_from_one_is_told(tmp_path: Path) -> None:
    tables = {name: columns(name) | {"kind": np.arange(ITEMS[name]) % 2 + (name == "west")} for name in ITEMS}
    finding = found(check(study(tmp_path, tables, model__MLP__out_features=3)), "unlike labels", "warning", "west")
    assert "from 1" in finding.message


def test_a_label_beyond_the_models_outputs_is_an_error(tmp_path: Path) -> None:
    report = check(study(tmp_path, {"west": columns("west", classes=3)}))
    assert "2 outputs, the data have 3 classes" in found(report, "output size", "error").message


def test_targets_that_are_classes_at_some_sites_only_are_an_error(tmp_path: Path) -> None:
    numbers = columns("south") | {"kind": np.linspace(0.5, 2.5, ITEMS["south"])}
    own = "import torch\nfrom weft.tasks import Regression\n\n\nclass Auto(Regression):\n    target_kind = 'auto'\n"
    (tmp_path / "own.py").write_text(own, encoding="utf-8")
    file = study(tmp_path, {"south": numbers}, training__task="Auto", patches=["own.py"], training__metrics=None)
    report = check(file)
    assert "south" in found(report, "unlike labels", "error", "south").message
    assert "do not agree" in report.left_out["data and model"]


@pytest.mark.parametrize("scaled", [True, False])
def test_a_site_with_other_features_is_an_error(tmp_path: Path, scaled: bool) -> None:
    by_site = {name: vectors(name, 4 if name == "north" else 3) for name in ITEMS}
    report = check(arrays(tmp_path, by_site, dataset__standardize=scaled))
    assert "inputs are 4, at most sites 3" in found(report, "unlike inputs", "error", "north").message


def images(site: str, side: int) -> tuple[Any, Any]:
    """Images of a site as arrays."""
    random = np.random.default_rng(len(site) * 7 + side)
    labels = np.arange(ITEMS[site]) % 2
    return (random.normal(size=(ITEMS[site], 1, side, side)) + labels[:, None, None, None]).astype(np.float32), labels


def test_images_of_another_size_are_an_error_only_where_the_model_does_not_take_them(tmp_path: Path) -> None:
    by_site = {name: images(name, 10 if name == "south" else 8) for name in ITEMS}
    pooling = {"SmallCNN": {"in_channels": 1, "out_features": 2, "channels": [4]}}
    report = check(arrays(tmp_path, by_site, dataset__standardize=False, model=pooling))
    assert "1×10×10, at most sites 1×8×8" in found(report, "unlike inputs", "warning", "south").message
    assert report.ok
    (tmp_path / "own.py").write_text(
        "from torch import nn\n\n\ndef flat():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 2))\n",
        encoding="utf-8",
    )
    file = arrays(tmp_path, by_site, dataset__standardize=False, model={"flat": {}}, patches=["own.py"])
    assert "Linear" in found(check(file), "shapes", "error", "south").message


def test_inputs_of_another_dtype_are_told(tmp_path: Path) -> None:
    finding = found(check(rows(tmp_path, kind="float64")), "unlike inputs", "warning", "west")
    assert "float64, at most sites float32" in finding.message


def test_a_column_in_another_unit_at_one_site_is_told_with_both_values(tmp_path: Path) -> None:
    other = columns("west")
    other["b"] = other["b"] * 1000 + 5000
    finding = found(check(study(tmp_path, {"west": other})), "unlike scales", "warning", "west")
    here, elsewhere = finding.message.removeprefix("1 feature: column 'b' lies around ").split(", elsewhere around ")
    assert 5000 < float(here.split(" ± ")[0]) < 7500  # as it is written in the table
    assert 0 < float(elsewhere.split(" ± ")[0]) < 2
    assert "units" in finding.remedy


def test_targets_in_another_unit_at_one_site_are_told(tmp_path: Path) -> None:
    tables = {}
    for name in ITEMS:
        tables[name] = columns(name)
        tables[name]["kind"] = tables[name]["a"] * (1000 if name == "south" else 1)
    file = study(tmp_path, tables, training__task="regression", training__metrics=["mae"],
                 dataset__split={"ratio": [0.6, 0.2, 0.2]}, model__MLP__out_features=1)  # fmt: skip
    assert "the target" in found(check(file), "unlike scales", "warning", "south").message


@pytest.mark.parametrize(
    ("uneven", "sites", "words"),
    [
        ("weight_zero", ("north", "west"), "take part and count nothing"),
        ("wrap", ("north", "west"), "those of north are visited 1.7 times"),
        ("stop", ("south", "west"), "visited 60% of south"),
    ],
)
def test_epochs_of_unlike_lengths_are_told_with_what_becomes_of_them(
    tmp_path: Path, uneven: str, sites: tuple[str, ...], words: str
) -> None:
    finding = found(check(study(tmp_path, federation__uneven=uneven)), "uneven epochs", "note", *sites)
    assert words in finding.message
    assert finding.evidence["batches"] == {"north": 3, "south": 5, "west": 4}
