"""Loading experiments from files, dicts and Python, with overrides, and writing them again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.config.helpers import valid
from weft.config import (
    Component,
    DatasetConfig,
    Experiment,
    ModelConfig,
    TrainingConfig,
    dump_yaml,
    fingerprint,
    json_schema,
    load_experiment,
    resolve,
    to_dict,
)
from weft.config.yamlfile import parse_yaml
from weft.errors import ConfigError


def write(folder: Path, data: dict[str, Any]) -> Path:
    file = folder / "experiment.yaml"
    file.write_text(yaml.safe_dump(data))
    return file


def test_importing_the_room_imports_no_torch() -> None:
    code = "import sys, weft.config; sys.exit('torch' in sys.modules or 'monai' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_file_and_a_dict_give_the_same_experiment(tmp_path: Path) -> None:
    assert load_experiment(write(tmp_path, valid())) == load_experiment(valid())


def test_the_name_is_the_files_where_none_is_written(tmp_path: Path) -> None:
    data = valid(name=None)
    assert load_experiment(write(tmp_path, data)).name == "experiment"


def test_relative_paths_start_from_the_folder_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sub").mkdir()
    file = write(tmp_path / "sub", valid())
    monkeypatch.chdir(tmp_path)
    experiment = load_experiment("sub/experiment.yaml")
    assert experiment.base == file.parent.resolve()
    assert experiment.path(Path("a.csv")) == file.parent.resolve() / "a.csv"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E5", 1e5),
        ("-1.e3", -1000.0),
        (".5", 0.5),
        ("1.0", 1.0),
        ("12", 12),
        ("-3", -3),
        ("0x10", 16),
        ("0o17", 15),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("yes", "yes"),
        ("on", "on"),
        ("no", "no"),
        ("1_000", "1_000"),
        ("12:30", "12:30"),
        ("2024-01-31", "2024-01-31"),
        ("'1e-4'", "1e-4"),
        ("1e", "1e"),
        ("!!str 5", "5"),
        (".inf", float("inf")),
        ("e-4", "e-4"),
        ("0", 0),
        ("0.5", 0.5),
        ("-0.0", -0.0),
    ],
)
def test_scalars_are_read_as_they_look(text: str, value: object) -> None:
    read = parse_yaml(f"key: {text}", None)
    assert not read.problems
    assert read.data["key"] == value
    assert type(read.data["key"]) is type(value)


def test_merged_mappings_are_read_and_own_keys_come_first() -> None:
    read = parse_yaml("base: &base {a: 1, b: 2}\nown: {<<: *base, b: 3}\n", None)
    assert read.data["own"] == {"a": 1, "b": 3}
    assert not read.problems


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc.1 :#-", min_size=1), inner, max_size=3),
    max_leaves=8,
)


@given(arguments=st.dictionaries(st.text("abcdef", min_size=1), PLAIN, max_size=4))
def test_what_is_written_as_yaml_is_read_as_the_same(arguments: dict[str, Any]) -> None:
    experiment = Experiment.model_validate(valid(model={"any.thing": arguments}))
    loaded = load_experiment(parse_yaml(dump_yaml(experiment), None).data, check=False)
    assert loaded == experiment
    assert repr(loaded.model.component.arguments) == repr(experiment.model.component.arguments)


def test_a_written_experiment_is_equal_and_has_the_same_fingerprint(tmp_path: Path) -> None:
    experiment = load_experiment(valid(training__scheduler={"OneCycleLR": {"max_lr": 1}}, run__device="cpu"))
    file = tmp_path / "again.yaml"
    file.write_text(dump_yaml(resolve(experiment)))
    again = load_experiment(file)
    assert again == resolve(experiment)
    assert fingerprint(again) == fingerprint(experiment)


def test_what_is_switched_off_where_the_default_is_not_stays_so_when_it_is_written(tmp_path: Path) -> None:
    """Else a study that compares no weights could not be gone on with: its file would say that it does."""
    cohort = {"compare_weights": None, "largest_update": None}
    sites = {name: {"table": {"file": f"{name}.csv"}} for name in ("north", "south")}
    experiment = load_experiment(valid(federation={"sites": sites, "cohort": cohort}), check=False)
    again = load_experiment(parse_yaml(dump_yaml(experiment), None).data, check=False)
    assert again.federation is not None
    assert (again.federation.cohort.compare_weights, again.federation.cohort.largest_update) == (None, None)
    assert fingerprint(again) == fingerprint(experiment)


def test_the_written_form_holds_defaults(tmp_path: Path) -> None:
    written = to_dict(load_experiment(valid()))
    assert written["training"]["accumulate"] == 1
    assert written["model"] == {"MLP": {"in_features": 30, "out_features": 2, "hidden": [16]}}
    assert "steps" not in written["training"]
    json.dumps(written)


def test_finished_objects_have_no_written_form() -> None:
    experiment = load_experiment(valid(training__loss=torch.nn.CrossEntropyLoss()))
    with pytest.raises(ConfigError, match="give the class and its arguments"):
        dump_yaml(experiment)


# Overrides


@pytest.mark.parametrize(
    ("override", "read", "value"),
    [
        ("training.optimizer.AdamW.lr=3e-4", lambda e: e.training.optimizer.arguments, {"lr": 3e-4}),
        ("training.optimizer=SGD", lambda e: e.training.optimizer.name, "SGD"),
        ("training.optimizer={SGD: {lr: 0.1}}", lambda e: e.training.optimizer.arguments, {"lr": 0.1}),
        ("training.monitor.patience=3", lambda e: e.training.monitor.patience, 3),
        (
            "training.task.classification.labels=multiclass",
            lambda e: e.training.task.arguments,
            {"labels": "multiclass"},
        ),
        ("dataset.split.ratio.0=0.7", lambda e: e.dataset.split.ratio[0], 0.7),
        ("model.MLP.hidden=[8, 8]", lambda e: e.model.component.arguments["hidden"], [8, 8]),
        ("run.output=/tmp/a=b", lambda e: e.run.output, Path("/tmp/a=b")),
        ("run.device=", lambda e: e.run.device, None),
        (
            "dataset.arrays.sklearn.datasets.load_breast_cancer.as_frame=false",
            lambda e: e.dataset.arrays.arguments,
            {"return_X_y": True, "as_frame": False},
        ),
        (
            'dataset.arrays."sklearn.datasets.load_breast_cancer".as_frame=false',
            lambda e: e.dataset.arrays.arguments["as_frame"],
            False,
        ),
    ],
)
@pytest.mark.parametrize("form", ["dict", "experiment"])
def test_overrides_replace_what_is_written(override: str, read: Any, value: object, form: str) -> None:
    if override == "run.device=":
        with pytest.raises(ConfigError, match="expected text, found nothing"):
            load_experiment(valid(), [override])
        return
    source = valid() if form == "dict" else load_experiment(valid())
    assert read(load_experiment(source, [override], check=False)) == value


def test_overrides_leave_the_given_dict_and_experiment_alone() -> None:
    source = valid()
    experiment = load_experiment(source)
    load_experiment(source, ["seed=9", "model.MLP.hidden=[1]"])
    load_experiment(experiment, ["seed=9", "model.MLP.hidden=[1]"])
    assert source == valid()
    assert experiment == load_experiment(valid())


def test_the_last_of_several_overrides_counts() -> None:
    assert load_experiment(valid(), ["seed=1", "seed=2"]).seed == 2


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.epochs.more=1", "is 2, which has no 'more'"),
        ("dataset.split.ratio.7=1", "no entry 7 in a list of 3"),
        ("=3", "expected key.path=value"),
        ("seed", "expected key.path=value"),
        ("training.optimizer.SGD.lr=1", "exactly one name, found 2: AdamW, SGD"),
        ("training.optimizer.lr=1", "exactly one name"),
        ("seed=[", "not valid YAML"),
    ],
)
def test_overrides_that_cannot_be_are_refused(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_experiment(valid(), [override])
    assert any(message in problem.message for problem in caught.value.problems), str(caught.value)
    assert str(caught.value.problems[0].file).startswith("--set ")


# Python

PYTHON = """\
import torch
from torch import nn

from weft.config import Component, DatasetConfig, Experiment, TrainingConfig


class Net(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(30, width), nn.Linear(width, 2))

    def forward(self, x):
        return self.layers(x)


def my_loss(outputs, targets, scale=1.0):
    return scale * nn.functional.cross_entropy(outputs, targets)


training = TrainingConfig(
    task="classification",
    epochs=2,
    batch_size=16,
    optimizer={torch.optim.AdamW: {"lr": 1e-3}},
    loss=Component.of(my_loss, scale=0.5),
)
experiment = Experiment(
    dataset=DatasetConfig(arrays="sklearn.datasets.load_breast_cancer", split={"ratio": (0.8, 0.2)}),
    model={Net: {"width": 8}},
    training=training,
)
"""


def test_a_python_file_may_hold_classes_and_functions(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(PYTHON)
    experiment = load_experiment(file, ["training.epochs=5"])
    assert experiment.name == "mine"
    assert experiment.training.epochs == 5
    namespace = experiment.namespace()
    model = namespace.build(experiment.model.component, "model")
    assert model.layers[0].out_features == 8
    loss = namespace.build(experiment.training.loss, "loss")
    outputs, targets = torch.randn(3, 2), torch.tensor([0, 1, 0])
    assert torch.equal(loss(outputs, targets), 0.5 * torch.nn.functional.cross_entropy(outputs, targets))


def test_a_python_experiment_is_written_as_yaml_that_means_the_same(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(PYTHON)
    experiment = load_experiment(file)
    assert experiment.patches == [Path("mine.py")]
    (tmp_path / "again.yaml").write_text(dump_yaml(experiment))
    again = load_experiment(tmp_path / "again.yaml")
    assert again == experiment
    assert fingerprint(again) == fingerprint(experiment)
    code = f"from weft.config import *; print(fingerprint(load_experiment({str(tmp_path / 'again.yaml')!r})))"
    assert subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip() == fingerprint(experiment)


@pytest.mark.parametrize(
    ("old", "new", "place", "message"),
    [
        ("epochs=2", "epochs=0", "22:12", "at least 1"),
        ("epochs=2", "epoch=2", "22:5", "unknown key 'epoch'"),
        ('"lr": 1e-3', '"lrr": 1e-3', "24:36", "no argument 'lrr'"),
        ('"width": 8', '"widht": 8', "29:18", "no argument 'widht'"),
        ("scale=0.5", "skale=0.5", "25:32", "no argument 'skale'"),
        ("(0.8, 0.2)", "(0.8, 0.1)", "28:80", "the parts sum to 0.9"),
        ("experiment =", "something =", "1:1", "does not define 'experiment'"),
        ("import torch\n", "import torch\nimport no_such_thing\n", "2", "No module named 'no_such_thing'"),
        ("training = ", "training == ", "20", "name 'training' is not defined"),
        ("def my_loss(", "def my_loss(:", "16:13", "not valid Python"),
    ],
)
def test_mistakes_in_a_python_file_are_told_with_their_place(
    tmp_path: Path, old: str, new: str, place: str, message: str
) -> None:
    file = tmp_path / "mine.py"
    file.write_text(PYTHON.replace(old, new, 1))
    with pytest.raises(ConfigError) as caught:
        load_experiment(file)
    told = [problem for problem in caught.value.problems if message in problem.message]
    assert told, str(caught.value)
    assert f"{told[0].line}:{told[0].column}".startswith(place), str(told[0])
    assert str(told[0].file).endswith("mine.py")


def test_sections_can_be_made_in_python() -> None:
    experiment = Experiment(
        name="small",
        seed=3,
        dataset=DatasetConfig.model_validate(valid()["dataset"]),
        model=ModelConfig(component=Component("MLP", {"in_features": 30, "out_features": 2, "hidden": (16,)})),
        training=TrainingConfig.model_validate(valid()["training"]),
    )
    assert load_experiment(experiment) == experiment == load_experiment(valid())


def test_experiments_cannot_be_changed_in_place() -> None:
    experiment = load_experiment(valid())
    with pytest.raises(ValueError, match="frozen"):
        experiment.seed = 4  # type: ignore[misc]


def test_auto_values_are_resolved() -> None:
    resolved = resolve(
        load_experiment(valid(training__scheduler={"OneCycleLR": {"max_lr": 1}}, training__optimizer=None))
    )
    assert resolved.training.scheduler_interval == "step"
    assert resolved.training.monitor.mode == "min"
    assert resolved.training.optimizer == Component("Adam")
    assert resolve(resolved) == resolved
    assert resolve(load_experiment(valid(training__monitor={"metric": "accuracy"}))).training.monitor.mode == "max"


def test_the_schema_for_editors_knows_keys_and_components() -> None:
    schema = json_schema()
    assert set(schema["properties"]) == set(Experiment.model_fields)
    assert "class" in schema["$defs"]["DatasetConfig"]["properties"]
    assert schema["$defs"]["TrainingConfig"]["properties"]["epochs"]["description"]
    assert schema["$defs"]["TrainingConfig"]["additionalProperties"] is False
    json.dumps(schema)


def test_every_key_of_a_file_is_explained_in_the_schema() -> None:
    schema = json_schema()
    sections = {"Experiment": schema, **{name: part for name, part in schema["$defs"].items() if "properties" in part}}
    sections["ModelConfig"] = next(form for form in schema["$defs"]["ModelConfig"]["anyOf"] if "properties" in form)
    lacking = [
        f"{name}.{key}"
        for name, section in sections.items()
        for key, form in section["properties"].items()
        if not form.get("description", "").endswith(".")
    ]
    assert len(sections) > 10
    assert lacking == []
