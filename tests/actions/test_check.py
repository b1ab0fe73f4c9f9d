"""Each seeded fault is found, with where it is and what to do; clean projects and the examples are left in peace."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from tests.actions.check_projects import KINDS, blobs, clean_project, training, write_table
from tests.experiments import changed
from weft.actions.checking import CheckReport, Finding, check
from weft.errors import ConfigError

REPOSITORY = Path(__file__).parents[2]
FILES = sorted((REPOSITORY / "examples").glob("**/*.yaml"))
EXAMPLES = [file for file in FILES if "federation:" not in file.read_text()]  # studies: tests/federated


def experiment(folder: Path, **changes: Any) -> Path:
    """Write an experiment on `train.csv` and `validation.csv`, with changes; returns its file."""
    content: dict[str, Any] = {
        "seed": 1,
        "dataset": {
            "table": {"train": "train.csv", "validation": "validation.csv"},
            "inputs": ["a", "b", "c"],
            "targets": ["label"],
        },
        "model": {"MLP": {"in_features": 3, "out_features": 3, "hidden": [16]}},
        "training": training("classification"),
        "run": {"device": "cpu"},
    }
    file = folder / "experiment.yaml"
    file.write_text(yaml.safe_dump(changed(content, **changes)), encoding="utf-8")
    return file


def columns(seed: int = 0, items: int = 60) -> dict[str, Any]:
    """Columns of a clean table: three inputs, three classes."""
    inputs, labels = blobs(np.random.default_rng(seed), items, 3, 3)
    return {"a": inputs[:, 0].copy(), "b": inputs[:, 1].copy(), "c": inputs[:, 2].copy(), "label": labels.copy()}


def tables(folder: Path, train: dict[str, Any] | None = None, validation: dict[str, Any] | None = None) -> None:
    """Write both tables."""
    write_table(folder / "train.csv", columns(0) if train is None else train)
    write_table(folder / "validation.csv", columns(1) if validation is None else validation)


def found(report: CheckReport, name: str, *severities: str) -> Finding:
    """The one finding of this name; it says where, what and what to do."""
    told = [finding for finding in report.findings if finding.check == name]
    assert told, [(finding.check, finding.message) for finding in report.findings]
    assert told[0].severity in (severities or ("error",)), told[0]
    assert told[0].where
    assert told[0].message
    assert told[0].remedy
    return told[0]


def own_model(folder: Path, forward: str, init: str = "") -> dict[str, Any]:
    """A patch with a model of three inputs and three outputs."""
    (folder / "own.py").write_text(
        "import torch\nfrom torch import nn\n\n\nclass Own(nn.Module):\n    def __init__(self):\n"
        "        super().__init__()\n        self.first = nn.Linear(3, 16)\n        self.last = nn.Linear(16, 3)\n"
        f"        {init or 'pass'}\n\n    def forward(self, x):\n        {forward}\n",
        encoding="utf-8",
    )
    return {"patches": ["own.py"], "model": "Own"}


def test_a_clean_table_has_no_findings(tmp_path: Path) -> None:
    tables(tmp_path)
    report = check(experiment(tmp_path))
    assert report.findings == []
    assert report.ok
    assert report.measured["loss_undecided"] == pytest.approx(np.log(3))


# --- labels -----------------------------------------------------------------------------------------------------------


def test_a_label_out_of_range_is_found_with_its_line(tmp_path: Path) -> None:
    train = columns()
    train["label"][7] = 3
    tables(tmp_path, train)
    report = check(experiment(tmp_path))
    finding = found(report, "output size")
    assert finding.evidence == {"outputs": 3, "classes": 4}
    assert not report.ok


def test_a_label_out_of_range_of_a_mask_is_found_with_its_case(tmp_path: Path) -> None:
    file = clean_project(tmp_path, list(KINDS).index("masks in folders"))
    mask = tmp_path / "data" / "train" / "y" / "3.npy"
    np.save(mask, np.load(mask) * 4)
    finding = found(check(file), "label out of range")
    assert "label 4" in finding.message
    assert finding.evidence["outputs"] == 2
    assert "3" in finding.message.rpartition(":")[2]


@pytest.mark.parametrize("values", [[0.0, 1.0, 2.0], [0.5, 1.0, 2.0]])
def test_labels_as_floats_are_found(tmp_path: Path, values: list[float]) -> None:
    inputs, labels = blobs(np.random.default_rng(0), 60, 3, 3)
    np.save(tmp_path / "x.npy", inputs)
    np.save(tmp_path / "y.npy", np.asarray(values)[labels])
    dataset = {"arrays": {"inputs": "x.npy", "targets": "y.npy"}, "split": {"ratio": [0.7, 0.3]}}
    report = check(experiment(tmp_path, dataset=dataset))
    finding = found(report, "float labels", "error" if values[0] else "warning")
    assert "targets" in finding.where
    assert report.ok == (values[0] == 0)


def test_labels_of_0_and_255_are_found_in_masks(tmp_path: Path) -> None:
    file = clean_project(tmp_path, list(KINDS).index("masks in folders"))
    for mask in (tmp_path / "data").glob("*/y/*.npy"):
        np.save(mask, np.load(mask) * 255)
    finding = found(check(file), "label values")
    assert "picture" in finding.message
    assert finding.evidence["values"] == [0, 255]


def test_labels_of_0_and_255_are_found_in_tables(tmp_path: Path) -> None:
    train, validation = columns(0), columns(1)
    for table in (train, validation):
        table["label"] = (table["label"] > 0) * 255
    tables(tmp_path, train, validation)
    finding = found(check(experiment(tmp_path)), "label values")
    assert finding.where == "target 'label'"
    assert "256 classes" in finding.message
    assert finding.remedy == "store 1 instead of 255"
    assert finding.evidence["values"] == [0, 255]


def test_masks_with_a_fraction_are_found(tmp_path: Path) -> None:
    file = clean_project(tmp_path, list(KINDS).index("masks in folders"))
    for mask in (tmp_path / "data").glob("train/y/*.npy"):
        np.save(mask, np.load(mask) * np.float32(0.7))
    assert "0.7" in found(check(file), "float labels").message


def test_labels_that_begin_with_1_are_found(tmp_path: Path) -> None:
    train, validation = columns(0), columns(1)
    for table in (train, validation):
        table["label"] = table["label"] + 1
    tables(tmp_path, train, validation)
    report = check(experiment(tmp_path, model={"MLP": {"in_features": 3, "out_features": 4}}))
    finding = found(report, "label values", "warning")
    assert finding.where == "target 'label'"
    assert finding.remedy == "count classes from 0: subtract 1"
    assert finding.evidence["values"] == [1, 2, 3]


# --- inputs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_in_a_table_is_found_with_its_line(tmp_path: Path, value: float) -> None:
    train = columns()
    train["b"][5] = value
    tables(tmp_path, train)
    report = check(experiment(tmp_path))
    finding = found(report, "data")
    assert "line 7" in finding.message
    assert "'b'" in finding.message
    assert not report.ok


@pytest.mark.parametrize("standardize", [False, True])
def test_nan_in_a_file_is_found_with_its_case(tmp_path: Path, standardize: bool) -> None:
    file = clean_project(tmp_path, list(KINDS).index("masks in folders"))
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    content["dataset"]["standardize"] = standardize
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    image = np.load(tmp_path / "data" / "train" / "x" / "11.npy")
    image[0, 3, 4] = np.nan
    np.save(tmp_path / "data" / "train" / "x" / "11.npy", image)
    finding = found(check(file), "not finite")
    assert finding.evidence == {"samples": ["11"], "values": 1}


def test_a_constant_column_is_found_by_its_name(tmp_path: Path) -> None:
    train = columns()
    train["c"][:] = 4.5
    tables(tmp_path, train)
    finding = found(check(experiment(tmp_path)), "constant input", "warning")
    assert "'c'" in finding.where
    assert "4.5" in finding.message


def test_an_input_that_the_model_ignores_is_found(tmp_path: Path) -> None:
    tables(tmp_path)
    changes = own_model(tmp_path, "return self.last(torch.tanh(self.first(x * torch.tensor([1.0, 0.0, 1.0]))))")
    finding = found(check(experiment(tmp_path, **changes)), "unused input", "warning")
    assert finding.where == "column 'b'"


def test_an_input_that_is_the_answer_is_found(tmp_path: Path) -> None:
    train, validation = columns(0), columns(1)
    train["c"], validation["c"] = train["label"], validation["label"]
    tables(tmp_path, train, validation)
    for standardize in (False, True):
        report = check(experiment(tmp_path, dataset__standardize=standardize))
        assert found(report, "input holds the answer", "warning").where == "column 'c'"


def test_a_validation_split_on_another_scale_is_found(tmp_path: Path) -> None:
    file = clean_project(tmp_path, list(KINDS).index("images in arrays"))
    np.save(tmp_path / "validation_x.npy", np.load(tmp_path / "validation_x.npy") * 255)
    assert "validation" in found(check(file), "other scale", "warning").where


# --- leaks ------------------------------------------------------------------------------------------------------------


def test_the_same_row_in_two_splits_is_found_with_both_places(tmp_path: Path) -> None:
    train, validation = columns(0), columns(1)
    for name in train:
        validation[name][9] = train[name][20]
    tables(tmp_path, train, validation)
    finding = found(check(experiment(tmp_path)), "same item in two splits", "warning")
    assert finding.where == "train, validation"
    assert "line 22" in finding.message
    assert "line 11" in finding.message
    assert len(finding.evidence["items"]) == 1
    for name in train:
        validation[name][:4] = train[name][30:34]
    tables(tmp_path, train, validation)
    assert len(found(check(experiment(tmp_path)), "same item in two splits", "error").evidence["items"]) == 5


def test_the_same_image_in_two_splits_is_found_by_content(tmp_path: Path) -> None:
    file = clean_project(tmp_path, list(KINDS).index("masks in folders"))
    data = tmp_path / "data"
    (data / "validation" / "x" / "2.npy").write_bytes((data / "train" / "x" / "17.npy").read_bytes())
    finding = found(check(file), "same item in two splits", "warning")
    assert finding.evidence["items"] == [["17", "2"]]


def test_rows_that_are_equal_by_chance_are_no_leak(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for name in ("train", "validation"):
        answers = {column: generator.integers(0, 3, 80) for column in "abc"}
        write_table(tmp_path / f"{name}.csv", {**answers, "label": generator.integers(0, 3, 80)})
    report = check(experiment(tmp_path))
    assert {finding.severity for finding in report.findings} <= {"note"}


def test_empty_images_are_no_copies_of_each_other(tmp_path: Path) -> None:
    file = clean_project(tmp_path, list(KINDS).index("masks in folders"))
    for split, item in (("train", 1), ("validation", 4)):
        np.save(tmp_path / "data" / split / "x" / f"{item}.npy", np.zeros((1, 32, 32), np.float32))
        np.save(tmp_path / "data" / split / "y" / f"{item}.npy", np.zeros((32, 32), np.uint8))
    assert {finding.check for finding in check(file).findings} == {"constant samples"}


def test_the_same_group_in_two_splits_is_found(tmp_path: Path) -> None:
    train, validation = columns(0), columns(1)
    train["patient"] = [f"P{number}" for number in range(60)]
    validation["patient"] = ["P3", *(f"Q{number}" for number in range(59))]
    tables(tmp_path, train, validation)
    finding = found(check(experiment(tmp_path, dataset__group="patient")), "same group in two splits")
    assert finding.evidence["groups"] == ["P3"]


def test_a_column_of_patients_that_nobody_named_is_noted(tmp_path: Path) -> None:
    train, validation = columns(0), columns(1)
    train["patient_id"] = [f"P{number // 4}" for number in range(60)]
    validation["patient_id"] = train["patient_id"]
    tables(tmp_path, train, validation)
    finding = found(check(experiment(tmp_path)), "possible group", "note")
    assert "patient_id" in finding.where


@pytest.mark.slow
def test_images_and_label_maps_on_unlike_grids_are_found(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    generator = np.random.default_rng(0)
    for number in range(8):
        image, label = generator.normal(size=(8, 8, 8)), np.zeros((8, 8, 8), np.uint8)
        label[2:5, 2:5, number % 4 : 5] = 1
        affine = np.diag([1.0, 1.0, 2.0 if number == 3 else 1.0, 1.0])
        nibabel.save(nibabel.Nifti1Image(image.astype(np.float32), np.eye(4)), tmp_path / f"image{number}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(label, affine), tmp_path / f"label{number}.nii.gz")
    table = {kind: [f"{kind}{number}.nii.gz" for number in range(8)] for kind in ("image", "label")}
    write_table(tmp_path / "cases.csv", table)
    dataset = {
        "table": {"file": "cases.csv"},
        "inputs": ["image"],
        "targets": ["label"],
        "split": {"ratio": [0.5, 0.5]},
        "transforms": {"base": ["LoadImaged", "EnsureChannelFirstd"]},
    }
    model = {"UNet": {"in_channels": 1, "out_channels": 2, "spatial_dims": 3, "channels": [4, 8]}}
    pytest.importorskip("monai")
    report = check(experiment(tmp_path, dataset=dataset, model=model, training=training("segmentation", batch_size=2)))
    finding = found(report, "geometry", "warning")
    assert finding.evidence["cases"] == {"image3": "voxel size 1×1×1 mm against 1×1×2 mm"}


def test_pictures_and_masks_of_unlike_size_are_found(tmp_path: Path) -> None:
    file = clean_project(tmp_path, list(KINDS).index("masks in folders"))
    mask = tmp_path / "data" / "train" / "y" / "5.npy"
    np.save(mask, np.load(mask)[:31])
    assert found(check(file), "geometry").evidence["cases"] == {"5": "size 32×32 against 31×32"}


def test_items_with_unlike_labels_are_found(tmp_path: Path) -> None:
    train = columns()
    for name in "abc":
        train[name][3] = train[name][5]
    train["label"][3], train["label"][5] = 0, 1
    tables(tmp_path, train)
    finding = found(check(experiment(tmp_path)), "contradictory labels", "warning")
    assert finding.where == "train"
    assert "train.csv line 5, train.csv line 7" in finding.message
    assert finding.evidence["items"] == [["line 5", "line 7"]]


# --- classes ----------------------------------------------------------------------------------------------------------


def test_a_class_missing_from_training_is_an_error(tmp_path: Path) -> None:
    train = columns()
    train["label"] = train["label"] % 2
    tables(tmp_path, train)
    report = check(experiment(tmp_path))
    finding = found(report, "missing class")
    assert finding.where == "train"
    assert finding.evidence["classes"] == ["2"]
    assert not report.ok


def test_a_class_missing_from_validation_is_a_warning(tmp_path: Path) -> None:
    validation = columns(1)
    validation["label"] = validation["label"] % 2
    tables(tmp_path, None, validation)
    report = check(experiment(tmp_path))
    finding = found(report, "missing class", "warning")
    assert finding.where == "validation"
    assert "its scores say nothing" in finding.message
    assert finding.evidence["classes"] == ["2"]
    assert report.ok


def test_imbalance_is_a_warning_unless_the_loss_makes_up_for_it(tmp_path: Path) -> None:
    train, validation = columns(0, 300), columns(1, 300)
    for table in (train, validation):
        table["label"] = (np.arange(300) % 25 == 0).astype(int)
    tables(tmp_path, train, validation)
    assert "96%" in found(check(experiment(tmp_path)), "class imbalance", "warning").message
    weighed = experiment(tmp_path, dataset__samplers={"train": "BalancedSampler"})
    told = [finding for finding in check(weighed).findings if finding.check == "class imbalance"]
    assert [finding.severity for finding in told] == ["note"]


# --- model ------------------------------------------------------------------------------------------------------------


def test_a_wrong_output_size_is_found(tmp_path: Path) -> None:
    tables(tmp_path)
    report = check(experiment(tmp_path, model={"MLP": {"in_features": 3, "out_features": 2}}))
    assert found(report, "output size").evidence == {"outputs": 2, "classes": 3}
    many = check(experiment(tmp_path, model={"MLP": {"in_features": 3, "out_features": 5}}))
    assert found(many, "output size", "warning").evidence == {"outputs": 5, "classes": 3}


def test_shapes_that_do_not_fit_are_found_with_the_layer(tmp_path: Path) -> None:
    tables(tmp_path)
    changes = own_model(tmp_path, "return self.last(self.first(x))", "self.last = nn.Linear(15, 3)")
    finding = found(check(experiment(tmp_path, **changes)), "shapes")
    assert finding.where == "layer 'last', Linear(in_features=15, out_features=3, bias=True)"
    assert "[16, 16]" in finding.message
    assert finding.evidence["way"] == ["first (Linear) -> [16, 16]"]


def test_a_model_of_ours_says_itself_which_size_it_wants(tmp_path: Path) -> None:
    tables(tmp_path)
    finding = found(check(experiment(tmp_path, model={"MLP": {"in_features": 4, "out_features": 3}})), "shapes")
    assert "in_features: 3" in finding.remedy


@pytest.mark.parametrize(
    ("loss", "last"),
    [
        (None, "torch.softmax"),
        ("CrossEntropyLoss", "torch.softmax"),
        (None, "(lambda y, dim: y / y.sum(dim, keepdim=True))"),  # told by the values
    ],
)
def test_softmax_twice_is_found(tmp_path: Path, loss: str | None, last: str) -> None:
    tables(tmp_path)
    changes = own_model(tmp_path, f"return {last}(self.last(self.first(x).relu()).abs() + 0.1, dim=1)")
    if loss is not None:
        changes["training__loss"] = loss
    finding = found(check(experiment(tmp_path, **changes)), "loss scale")
    assert "twice" in finding.message
    assert "logits" in finding.remedy


def test_a_loss_that_wants_log_probabilities_is_found(tmp_path: Path) -> None:
    tables(tmp_path)
    finding = found(check(experiment(tmp_path, training__loss="NLLLoss")), "loss scale")
    assert finding.message == "NLLLoss takes log-probabilities, but the model gives logits"
    assert "LogSoftmax" in finding.remedy
    changes = own_model(tmp_path, "return self.last(self.first(x).relu()).log_softmax(1)")
    assert check(experiment(tmp_path, training__loss="NLLLoss", **changes)).findings == []


def test_a_loss_that_starts_far_off_is_found(tmp_path: Path) -> None:
    tables(tmp_path)
    changes = own_model(tmp_path, "return 1000 * self.last(self.first(x).relu())")
    finding = found(check(experiment(tmp_path, **changes)), "loss at start", "warning")
    assert finding.evidence["expected"] == pytest.approx(np.log(3))


def test_dead_gradients_are_found_by_layer(tmp_path: Path) -> None:
    tables(tmp_path)
    changes = own_model(
        tmp_path, "return self.last(self.first(x).relu())", "nn.init.constant_(self.first.bias, -1000.0)"
    )
    report = check(experiment(tmp_path, **changes))
    dead = found(report, "dead gradients")
    assert dead.where == "first"
    assert dead.evidence["parameters"] == {"first.weight": 0.0, "first.bias": 0.0}
    assert found(report, "unused input").message == "the outputs do not depend on the inputs at all"


def test_a_graph_that_is_cut_is_found(tmp_path: Path) -> None:
    tables(tmp_path)
    changes = own_model(tmp_path, "return self.last(self.first(x).relu().detach())")
    assert "first" in found(check(experiment(tmp_path, **changes)), "unused parameters").where


def test_vanishing_and_exploding_gradients_are_found(tmp_path: Path) -> None:
    tables(tmp_path)
    layers = "self.deep = nn.Sequential(*[m for _ in range(20) for m in (nn.Linear(16, 16), nn.Sigmoid())])"
    changes = own_model(tmp_path, "return self.last(self.deep(self.first(x)))", layers)
    vanishing = found(check(experiment(tmp_path, **changes)), "vanishing gradients", "error", "warning")
    assert vanishing.where.startswith("first, deep.0, deep.2")
    assert "last.weight" not in vanishing.evidence["parameters"]
    assert vanishing.evidence["parameters"]["first.weight"] < 1e-12
    layers = "self.deep = nn.Sequential(*[nn.Linear(16, 16) for _ in range(4)]); self.deep.apply(lambda m: hasattr(m, 'weight') and nn.init.normal_(m.weight, std=10.0))"  # noqa: E501
    changes = own_model(tmp_path, "return self.last(self.deep(self.first(x)))", layers)
    exploding = found(check(experiment(tmp_path, **changes)), "exploding gradients", "error", "warning")
    assert "clip_norm" in exploding.remedy
    assert exploding.evidence["parameters"]["first.weight"] > 1e3


def test_a_layer_that_begins_with_zeros_is_not_dead(tmp_path: Path) -> None:
    tables(tmp_path)
    changes = own_model(tmp_path, "return self.last(self.first(x).tanh())", "nn.init.zeros_(self.last.weight)")
    report = check(experiment(tmp_path, **changes))
    assert [finding for finding in report.findings if "gradients" in finding.check] == []


def test_a_model_that_cannot_learn_by_heart_is_found(tmp_path: Path) -> None:
    tables(tmp_path)
    changes = own_model(tmp_path, "return self.last(self.first(torch.randn_like(x) + 0 * x).relu())")
    finding = found(check(experiment(tmp_path, **changes)), "overfit one batch", "warning")
    assert "cannot be learned by heart" in finding.message
    assert finding.evidence["steps"] > 100
    assert finding.evidence["last"] > 0.5 * finding.evidence["first"]


def test_a_last_batch_of_one_is_found_where_batch_normalisation_cannot_take_it(tmp_path: Path) -> None:
    tables(tmp_path, columns(0, 65))
    model = {"MLP": {"in_features": 3, "out_features": 3, "hidden": [8], "normalization": "batch"}}
    assert "drop_last" in found(check(experiment(tmp_path, model=model)), "batch of one").remedy
    assert check(experiment(tmp_path, model=model, training__drop_last=True)).ok


# --- settings ---------------------------------------------------------------------------------------------------------


def test_a_mode_that_keeps_the_worst_epoch_is_found(tmp_path: Path) -> None:
    tables(tmp_path)
    changes = {"training__metrics": ["accuracy"], "training__monitor": {"metric": "accuracy", "mode": "min"}}
    assert "mode: max" in found(check(experiment(tmp_path, **changes)), "monitor mode").remedy


@pytest.mark.parametrize(
    ("optimizer", "severity", "message"),
    [
        ({"AdamW": {"lr": 3.0}}, "warning", "a learning rate of 3 is absurdly high for AdamW"),
        ({"Adam": {"lr": 1e-12}}, "warning", "a learning rate of 1e-12 is absurdly low for Adam"),
        ({"SGD": {"lr": 0.0}}, "error", "the learning rate is 0: nothing is learned"),
    ],
)
def test_absurd_learning_rates_are_found(
    tmp_path: Path, optimizer: dict[str, Any], severity: str, message: str
) -> None:
    tables(tmp_path)
    finding = found(check(experiment(tmp_path, training__optimizer=optimizer)), "learning rate", severity)
    assert (finding.where, finding.message) == ("training.optimizer", message)


def test_a_learning_rate_that_throws_the_model_off_is_found(tmp_path: Path) -> None:
    train, validation = columns(0), columns(1)
    for table in (train, validation):
        table["a"] *= 300
    tables(tmp_path, train, validation)
    report = check(experiment(tmp_path, training__optimizer={"SGD": {"lr": 5.0}}))
    finding = found(report, "learning rate", "warning", "error")
    assert finding.evidence["learning_rates"] == [5.0]
    assert not finding.evidence["after"] < 1000 * finding.evidence["before"]  # a number too large, or none at all


def test_a_batch_size_that_leaves_no_step_is_found(tmp_path: Path) -> None:
    tables(tmp_path)
    report = check(experiment(tmp_path, training__batch_size=64, training__drop_last=True))
    finding = found(report, "batch size")
    assert finding.where == "training.batch_size"
    assert finding.message.startswith("60 items make no full batch of 64")
    assert finding.remedy == "use a batch_size of at most 60, or remove drop_last"
    assert not report.ok


# --- the report -------------------------------------------------------------------------------------------------------


def test_mistakes_in_the_file_become_findings_with_their_place(tmp_path: Path) -> None:
    tables(tmp_path)
    file = experiment(tmp_path, training__epoch=3, model={"MPL": {}})
    report = check(file)
    assert len(report.findings) == 2
    assert all("experiment.yaml:" in finding.where for finding in report.findings)
    assert "did you mean 'epochs'?" in {finding.remedy for finding in report.findings}
    with pytest.raises(ConfigError):
        check(tmp_path / "experimant.yaml")


def test_a_bad_file_is_found_and_named(tmp_path: Path) -> None:
    file = clean_project(tmp_path, list(KINDS).index("masks in folders"))
    (tmp_path / "data" / "train" / "x" / "7.npy").write_bytes(b"nothing")
    finding = found(check(file), "bad items")
    assert finding.evidence["items"] == ["7"]


def test_estimates_cover_memory_disk_and_time(tmp_path: Path) -> None:
    tables(tmp_path)
    report = check(experiment(tmp_path))
    assert report.estimates["memory"]["parameters"] == 4 * (3 * 16 + 16 + 16 * 3 + 3)
    assert report.estimates["memory"]["total"] > report.estimates["memory"]["optimizer"] > 0
    assert 0 < report.estimates["disk"]["total"] < report.estimates["disk"]["free"]
    assert report.estimates["time"]["steps_per_epoch"] == 4
    assert report.estimates["time"]["total"] > 0


def test_a_check_changes_no_random_state_and_writes_nothing(tmp_path: Path) -> None:
    file = clean_project(tmp_path, list(KINDS).index("own dataset"))
    before = sorted(tmp_path.rglob("*"))
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate(), torch.get_num_threads()
    assert check(file).ok
    after = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate(), torch.get_num_threads()
    assert torch.equal(states[0], after[0])
    assert states[1:] == after[1:]
    assert sorted(path for path in tmp_path.rglob("*") if "__pycache__" not in path.parts) == before


def test_the_first_of_several_folds_is_looked_at(tmp_path: Path) -> None:
    tables(tmp_path)
    split = {"folds": 3, "stratified": True}
    report = check(experiment(tmp_path, dataset__table={"file": "train.csv"}, dataset__split=split))
    assert report.ok
    assert "fold 1 of 3" in report.left_out["other folds"]


def test_a_class_missing_from_the_training_of_another_fold_is_found(tmp_path: Path) -> None:
    train = columns()
    train["label"] = np.arange(60) % 2
    train["label"][10] = 2
    tables(tmp_path, train)
    file = experiment(tmp_path, dataset__table={"file": "train.csv"}, dataset__split={"folds": 5})
    told = [finding for finding in check(file).findings if finding.check == "missing class"]
    assert [finding.evidence["classes"] for finding in told if finding.severity == "error"] == [["2"]]


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_the_examples_have_no_errors_or_warnings(file: Path) -> None:
    pytest.importorskip("sklearn")
    report = check(file)
    assert [finding for finding in report.findings if finding.severity != "note"] == []
    assert report.estimates


@pytest.mark.parametrize("number", range(20))
def test_clean_generated_projects_are_left_in_peace(tmp_path: Path, number: int) -> None:
    report = check(clean_project(tmp_path, number))
    assert [finding for finding in report.findings if finding.severity != "note"] == []
    assert report.estimates
