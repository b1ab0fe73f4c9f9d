"""Components: found in order, checked against signatures, built; patches under names of their own."""

from __future__ import annotations

import functools
import importlib.util
import pickle
import subprocess
import sys
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import nn

from weft.config import KINDS, Component, DatasetConfig, Namespace, components_of, label_key, load_patch
from weft.config.annotations import mismatch
from weft.config.catalog import SOURCES, members, module_if_there
from weft.config.signatures import annotations_of, parameters_of
from weft.config.supplied import known_values
from weft.config.yamlfile import read_yaml
from weft.data.chain import build_chain
from weft.errors import ConfigError

PATCH = """\
import torch

class Twice:
    def __init__(self, factor=2):
        self.factor = factor

    def __call__(self, item):
        return item * self.factor

class MLP(torch.nn.Module):
    def __init__(self, size):
        super().__init__()
        self.size = size

    class Inner(torch.nn.Module):
        pass

def add(item, amount: int = 1):
    return item + amount
"""


@pytest.fixture
def patch(tmp_path: Path) -> Path:
    file = tmp_path / "transforms.py"
    file.write_text(PATCH)
    return file


def messages(problems: list[Any]) -> str:
    return " | ".join(problem.message for problem in problems)


# Looking up


def test_names_are_looked_up_in_patches_then_weft_then_torch(patch: Path) -> None:
    import weft.nets

    assert Namespace().find(Component("MLP"), "model") is weft.nets.MLP
    assert Namespace((patch,)).find(Component("MLP"), "model") is load_patch(patch).MLP
    assert Namespace().find(Component("Linear"), "model") is nn.Linear
    assert Namespace().find(Component("torch.nn.Linear"), "model") is nn.Linear


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("optimizer", "AdamW"),
        ("scheduler", "OneCycleLR"),
        ("loss", "CrossEntropyLoss"),
        ("task", "classification"),
        ("task", "Classification"),
        ("sampler", "RandomSampler"),
        ("sampler", "BalancedSampler"),
        ("dataset", "TensorDataset"),
        ("strategy", "FedAvg"),
        ("strategy", "dSGD"),
    ],
)
def test_each_kind_has_its_names(kind: str, name: str) -> None:
    assert callable(Namespace().find(Component(name), kind))


def test_weft_metrics_are_found_by_name() -> None:
    assert Namespace().find(Component("accuracy"), "metric") == "accuracy"  # type: ignore[comparison-overlap]


def test_looking_up_a_name_of_torch_does_not_import_monai() -> None:
    code = (
        "import sys\nfrom weft.config import Component, Namespace\n"
        "for name, kind in [('Linear', 'model'), ('CrossEntropyLoss', 'loss'), ('AdamW', 'optimizer')]:\n"
        "    Namespace().find(Component(name), kind)\n"
        "sys.exit('monai' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.skipif(importlib.util.find_spec("monai") is None, reason="needs MONAI")
def test_monai_comes_before_torch_and_after_weft() -> None:
    import monai.losses
    import monai.networks.nets
    import monai.transforms

    import weft.nets

    names = Namespace()
    assert names.find(Component("UNet"), "model") is weft.nets.UNet
    assert names.find(Component("SegResNet"), "model") is monai.networks.nets.SegResNet
    assert names.find(Component("DiceCELoss"), "loss") is monai.losses.DiceCELoss
    assert names.find(Component("RandFlipd"), "transform") is monai.transforms.RandFlipd
    assert not names.check(Component("RandCropByPosNegLabeld", {"spatial_size": [8, 8], "num_samples": 2}), "transform")
    wrong = names.check(Component("Spacingd", {"pixdims": [1, 1, 1]}), "transform")
    assert "no argument 'pixdims'" in messages(wrong)


def test_an_unknown_name_is_told_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="no optimizer named 'adamv'.*\n.*did you mean 'Adam"):
        Namespace().find(Component("adamv"), "optimizer")


def test_an_import_error_inside_a_users_module_is_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_module_of_mine.py").write_text("1 / 0\n")
    (tmp_path / "needy_module_of_mine.py").write_text("import no_such_package\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match="cannot be imported: ZeroDivisionError"):
        Namespace().find(Component("broken_module_of_mine.Net"), "model")
    with pytest.raises(ConfigError, match="install 'no_such_package'"):
        Namespace().find(Component("needy_module_of_mine.Net"), "model")


def test_classes_functions_partials_and_objects_are_components() -> None:
    assert Component.parse(nn.Linear).name == "torch.nn.modules.linear.Linear"
    assert Component.parse({nn.Linear: {"in_features": 1}}).arguments == {"in_features": 1}
    bound = Component.parse(functools.partial(nn.Linear, in_features=1))
    assert bound.target is nn.Linear
    assert bound.arguments == {"in_features": 1}
    finished = nn.Linear(1, 1)
    assert Namespace().build(Component.parse(finished), "model") is finished
    assert Component.of("Linear", in_features=1) == Component("Linear", {"in_features": 1})


# Building


def test_what_weft_supplies_comes_after_what_is_written() -> None:
    parameters = [nn.Parameter(torch.zeros(2))]
    optimizer = Namespace().build(Component("SGD", {"lr": 0.5, "fused": False}), "optimizer", parameters, fused=True)
    assert optimizer.defaults["lr"] == 0.5
    assert optimizer.defaults["fused"] is False


def test_functions_of_losses_and_transforms_are_the_object_itself(patch: Path) -> None:
    names = Namespace((patch,))
    assert names.build(Component("add", {"amount": 3}), "transform")(4) == 7
    assert names.build(Component("Twice"), "transform")(4) == 8
    loss = names.build(Component("torch.nn.functional.cross_entropy", {"label_smoothing": 0.1}), "loss")
    assert loss(torch.zeros(1, 2), torch.tensor([0])).item() == pytest.approx(0.6931, abs=1e-3)


def test_lists_become_tensors_where_the_signature_asks_for_one() -> None:
    loss = Namespace().build(Component("CrossEntropyLoss", {"weight": [1, 2.5]}), "loss")
    assert torch.equal(loss.weight, torch.tensor([1.0, 2.5]))


def test_nested_components_are_built_and_objects_are_passed_on() -> None:
    arguments = {"args": 1}
    del arguments
    transformer = Component(
        "TransformerEncoder",
        {
            "encoder_layer": {
                "component": {
                    "TransformerEncoderLayer": {
                        "d_model": 8,
                        "nhead": 2,
                        "activation": {"object": "torch.nn.functional.gelu"},
                    }
                }
            },
            "num_layers": 1,
        },
    )
    built = Namespace().build(transformer, "model")
    assert built.layers[0].activation is torch.nn.functional.gelu
    wrong = Namespace().check(
        Component(
            "TransformerEncoder",
            {"encoder_layer": {"component": {"TransformerEncoderLayer": {"nheads": 2}}}, "num_layers": 1},
        ),
        "model",
    )
    assert "no argument 'nheads'" in messages(wrong)
    assert wrong[0].path == ("TransformerEncoder", "encoder_layer", "component", "TransformerEncoderLayer", "nheads")


def test_what_the_object_refuses_is_told_with_its_name() -> None:
    with pytest.raises(ConfigError, match="SGD could not be built: ValueError: Invalid learning rate"):
        Namespace().build(Component("SGD", {"lr": -1.0}), "optimizer", [nn.Parameter(torch.zeros(1))])


# Checking


@pytest.mark.parametrize(
    ("annotation", "good", "bad"),
    [
        (int, [1, -1], [1.0, True, "1", None, [1]]),
        (float, [1, 1.5], [True, "1", None]),
        (bool, [True], [1, 0, "true", None]),
        (str, ["a"], [1, None, ["a"]]),
        (float | None, [1.0, None], ["1e-4", False]),
        (Literal["a", "b"], ["a"], ["c", 1]),
        (list[int], [[1], (1, 2), []], [["a"], [1.0], 1, "1"]),
        (tuple[float, float], [[0.9, 0.999]], [[0.9], [1, 2, 3], 0.9]),
        (tuple[int, ...], [[1, 2, 3]], [["a"], 3]),
        (dict[str, int], [{"a": 1}], [{"a": "b"}, [1]]),
        (torch.Tensor, [[1.0], 2], ["a", True]),
        (Any, [1, "a", None], []),
        (object, [1, "a", None], []),
        (nn.Module, [1, "a"], []),
    ],
)
def test_only_clear_contradictions_to_an_annotation_are_mistakes(
    annotation: Any, good: list[Any], bad: list[Any]
) -> None:
    assert [value for value in good if mismatch(annotation, value)] == []
    assert [value for value in bad if not mismatch(annotation, value)] == []


def test_arguments_that_weft_supplies_are_not_missing() -> None:
    names = Namespace()
    assert names.check(Component("AdamW"), "optimizer") == []
    assert names.check(Component("OneCycleLR", {"max_lr": 1.0}), "scheduler") == []
    assert names.check(Component("RandomSampler"), "sampler") == []
    assert names.check(Component("CosineAnnealingLR"), "scheduler") == []
    assert "needs the argument T_max" in messages(names.check(Component("CosineAnnealingLR"), "scheduler", known=()))
    assert "needs the argument step_size" in messages(names.check(Component("StepLR"), "scheduler"))


class Crop:
    """A transform of dicts that needs to know the label, as several of MONAI's do."""

    def __init__(self, keys: list[str], label_key: str, margin: int = 2) -> None:
        self.keys = keys
        self.label_key = label_key

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        return item


class Plain:
    """A transform whose defaults mean something, or nothing."""

    def __init__(self, keys: Any = ("image",), label_key: Any = None) -> None:
        self.keys = keys
        self.label_key = label_key

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        return item


@pytest.mark.parametrize(
    ("dataset", "label"),
    [
        ({"table": {"file": "a.csv"}, "inputs": ["image"], "targets": ["mask"]}, "mask"),
        ({"table": {"file": "a.csv"}, "inputs": ["image"], "targets": ["mask", "age"]}, None),
        ({"table": {"file": "a.csv"}, "inputs": ["image"]}, None),
        ({"folder": "pairs"}, "targets"),
        ({"arrays": {"inputs": "x.npy", "targets": "y.npy"}}, "targets"),
        ({"class": "Pairs"}, "targets"),
        ({"class": "Pairs", "inputs": ["image"], "targets": ["mask"]}, "mask"),
    ],
)
def test_checking_and_building_supply_a_transform_with_the_same(dataset: dict[str, Any], label: str | None) -> None:
    section = DatasetConfig.model_validate(dataset)
    assert label_key(section) == label
    known = {"keys": ["image"], **({"label_key": label} if label else {})}
    problems = Namespace().check(Component.of(Crop), "transform", known_values("transform", section))
    if label is None:
        assert "Crop needs the argument label_key" in messages(problems)
        with pytest.raises(ConfigError, match="Crop needs the argument label_key"):
            build_chain([Component.of(Crop)], Namespace(), known)
    else:
        assert problems == []
        (built,) = build_chain([Component.of(Crop)], Namespace(), known).transforms
        assert (built.keys, built.label_key) == (["image"], label)
        (written,) = build_chain([Component.of(Crop, label_key="own")], Namespace(), known).transforms
        assert written.label_key == "own"
    (plain,) = build_chain([Component.of(Plain)], Namespace(), known).transforms
    assert (plain.keys, plain.label_key) == (("image",), None)


def test_nested_transforms_are_supplied_with_nothing_and_checked_so() -> None:
    nested = Component.of(Plain, keys=[{"component": Component.of(Crop, label_key="mask")}])
    assert "Crop needs the argument keys" in messages(Namespace().check(nested, "transform"))
    with pytest.raises(ConfigError, match="Crop needs the argument keys"):
        Namespace().build(nested, "transform")


def test_any_argument_is_accepted_where_the_signature_does() -> None:
    assert Namespace().check(Component("dict", {"a": 1}, dict), "model") == []

    class Free:
        def __init__(self, first: int, **others: object) -> None: ...

    assert Namespace().check(Component.of(Free, first=1, anything="x"), "model") == []
    assert "needs the argument first" in messages(Namespace().check(Component.of(Free, anything="x"), "model"))


# Listing


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_can_be_listed(kind: str, patch: Path) -> None:
    listed = components_of(kind, Namespace((patch,)))
    assert len({entry.name for entry in listed}) == len(listed)
    assert all(entry.kind == kind for entry in listed)


def test_a_listed_component_tells_arguments_and_defaults(patch: Path) -> None:
    listed = {entry.name: entry for entry in components_of("optimizer")}
    assert "Optimizer" not in listed
    (rate,) = [argument for argument in listed["AdamW"].arguments if argument.name == "lr"]
    assert (rate.kind, rate.default, rate.required) == ("a number or Tensor", "0.001", False)
    assert not any(argument.name == "params" for argument in listed["AdamW"].arguments)
    models = {entry.name: entry for entry in components_of("model", Namespace((patch,)))}
    assert models["MLP"].origin == "patch"
    assert models["SmallCNN"].origin == "weft"
    assert models["Linear"].origin == "torch"
    metrics = {entry.name for entry in components_of("metric")}
    assert metrics >= {"accuracy", "auroc", "dice"}
    assert not any(name[:1].isupper() for name in metrics)
    assert [entry.name for entry in components_of("task")] == ["classification", "regression", "segmentation"]


def test_defaults_are_listed_as_a_file_would_have_them(tmp_path: Path) -> None:
    defaults = {
        "nothing": None, "yes": True, "count": 3, "rate": 1e-05, "endless": float("inf"), "lowest": -float("inf"),
        "word": "sum", "spaces": "a, b: c", "number": "1", "empty": "", "no": "null", "pair": (0.9, 0.999),
        "nested": ("relu", {"inplace": True, "slope": None}), "enum": Kind.mean,
    }  # fmt: skip
    patch = tmp_path / "mine.py"
    arguments = ", ".join(f"{name}=given[{name!r}]" for name in defaults)
    patch.write_text(
        "import torch\nfrom tests.config.test_components import Kind\n"
        f"inf = float('inf')\ngiven = {defaults | {'enum': None}}\ngiven['enum'] = Kind.mean\n"
        f"class Mine(torch.nn.Module):\n    def __init__(self, {arguments}):\n        super().__init__()\n"
    )
    (entry,) = [one for one in components_of("model", Namespace((patch,))) if one.name == "Mine"]
    file = tmp_path / "listed.yaml"
    file.write_text("".join(f"{one.name}: {one.default}\n" for one in entry.arguments))
    expected = defaults | {"pair": [0.9, 0.999], "nested": ["relu", {"inplace": True, "slope": None}], "enum": "mean"}
    assert read_yaml(file).data == expected
    assert entry.arguments[0].default == "null"
    assert {one.name: one.default for one in entry.arguments}["word"] == "sum"


class Kind(StrEnum):
    """A default that is a name."""

    mean = "mean"


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_no_library_contradicts_its_own_annotations_as_they_are_read_here(kind: str) -> None:
    wrong = []
    for source in SOURCES[kind]:
        module = module_if_there(source.module)
        for name, value in members(source, module) if module is not None else []:
            annotations = annotations_of(value)
            for argument, parameter in (parameters_of(value, kind) or {}).items():
                known = argument in annotations and parameter.default not in (parameter.empty, None)
                if known and mismatch(annotations[argument], parameter.default):
                    wrong.append((name, argument, annotations[argument], parameter.default))
    assert not wrong


# Patches


def test_two_patches_of_the_same_name_do_not_collide(tmp_path: Path) -> None:
    for name, value in (("a", 1), ("b", 2)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "transforms.py").write_text(f"def value(item):\n    return {value}\n")
    first, second = (load_patch(tmp_path / name / "transforms.py") for name in "ab")
    assert (first.value(0), second.value(0)) == (1, 2)
    assert first.__name__ != second.__name__
    both = Namespace((tmp_path / "b" / "transforms.py", tmp_path / "a" / "transforms.py"))
    assert both.build(Component("value"), "transform")(0) == 2


def test_a_patch_leaves_no_trace_beside_it_and_is_loaded_again_when_it_changes(patch: Path) -> None:
    first = load_patch(patch)
    assert load_patch(patch) is first
    patch.write_text(PATCH.replace("factor=2", "factor=3"))
    assert load_patch(patch).Twice().factor == 3
    assert [entry.name for entry in patch.parent.iterdir()] == ["transforms.py"]


def test_objects_of_a_patch_are_unpickled_in_a_process_that_never_loaded_it(patch: Path, tmp_path: Path) -> None:
    (tmp_path / "object.bin").write_bytes(pickle.dumps(load_patch(patch).Twice(5)))
    code = f"import pickle; print(pickle.load(open({str(tmp_path / 'object.bin')!r}, 'rb'))(2))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "10", done.stderr


@pytest.mark.slow
def test_objects_of_a_patch_reach_loader_workers_that_are_spawned(patch: Path) -> None:
    twice = load_patch(patch).Twice(3)
    loader = torch.utils.data.DataLoader(
        [1, 2], collate_fn=_Collate(twice), num_workers=1, multiprocessing_context="spawn"
    )
    assert list(loader) == [3, 6]


class _Collate:
    def __init__(self, function: Any) -> None:
        self.function = function

    def __call__(self, batch: list[int]) -> int:
        return int(self.function(batch[0]))


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("x = 1\ny = (\n", 2, "is not valid Python"),
        ("x = 1\nraise ValueError('no')\n", 2, "ValueError: no"),
        ("import math\ndef f():\n    return math.nothing\nf()\n", 3, "has no attribute 'nothing'"),
        ("import no_such_package\n", 1, "No module named"),
    ],
)
def test_an_error_in_a_patch_names_file_and_line(tmp_path: Path, text: str, line: int, message: str) -> None:
    file = tmp_path / "mine.py"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_patch(file)
    (problem,) = caught.value.problems
    assert (problem.line, problem.file) == (line, file)
    assert message in problem.message


def test_a_broken_patch_is_told_once_and_hides_nothing_else(tmp_path: Path) -> None:
    from tests.config.helpers import valid
    from weft.config import load_experiment

    (tmp_path / "mine.py").write_text("1 / 0\n")
    data = valid(patches=["mine.py"], model={"NetOfThePatch": {}}, training__optimizer={"AdamW": {"lrr": 1}})
    with pytest.raises(ConfigError) as caught:
        load_experiment(data, base=tmp_path)
    assert [problem.message for problem in caught.value.problems] == [
        "AdamW has no argument 'lrr'",
        "ZeroDivisionError: division by zero",
    ]
