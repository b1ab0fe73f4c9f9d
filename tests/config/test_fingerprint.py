"""Fingerprints: equal for equal experiments in any order and process, different when anything that matters differs."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.config.helpers import valid
from weft.config import Component, Experiment, canonical_json, fingerprint, load_experiment, load_patch, resolve
from weft.config.source import definition_digest, normalised
from weft.errors import ConfigError

LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
    | st.sampled_from([0, 1, 0.0, -0.0, 1.0, "1", "1.0", "true", "null", "", True, False, None])
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("ab.", max_size=3), inner, max_size=4),
    max_leaves=12,
)


def same(first: Any, second: Any) -> bool:
    """Whether two values are equal, types and signs of zero included."""
    if isinstance(first, dict) and isinstance(second, dict):
        return set(first) == set(second) and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(map(same, first, second))
    if isinstance(first, float) and isinstance(second, float):
        return first == second and math.copysign(1, first) == math.copysign(1, second)
    return type(first) is type(second) and bool(first == second)


def reordered(value: Any) -> Any:
    """The same value with the keys of mappings in reverse order."""
    if isinstance(value, dict):
        return {key: reordered(value[key]) for key in reversed(value)}
    return [reordered(entry) for entry in value] if isinstance(value, list) else value


@given(first=VALUES, second=VALUES)
def test_canonical_texts_are_equal_exactly_when_values_are(first: Any, second: Any) -> None:
    assert (canonical_json(first) == canonical_json(second)) == same(first, second)


@given(value=VALUES)
def test_the_order_of_keys_does_not_matter(value: Any) -> None:
    assert canonical_json(reordered(value)) == canonical_json(value)
    json.loads(canonical_json(value))


DIFFERENT = [
    None,
    True,
    False,
    0,
    1,
    0.0,
    -0.0,
    1.0,
    -1,
    "",
    "0",
    "1",
    "1.0",
    "true",
    "null",
    [],
    {},
    [0],
    [1],
    [[]],
    [{}],
    [None],
    {"a": 1},
    {"a": 1.0},
    {"a": {"b": 1}},
    {"a.b": 1},
    {"a": {}},
    {"a": []},
    {"a": None},
    {"": 1},
    {1: 1},
    {"1": 1},
    ["a", "b"],
    ["ab"],
    ["a,b"],
    '["a","b"]',
    float("inf"),
    float("-inf"),
    "inf",
    2**64,
    float(2**64),
    "i",
    ["i", "1"],
    ["s", "1"],
    "é",
    "e\u0301",
]


def test_values_that_look_alike_have_different_texts() -> None:
    texts = [canonical_json(value) for value in DIFFERENT]
    assert len(set(texts)) == len(texts)


def test_nan_and_objects_are_refused() -> None:
    for value in (float("nan"), [float("nan")], {"a": {"b": np.float64("nan")}}):
        with pytest.raises(ConfigError, match="NaN"):
            canonical_json(value)
    with pytest.raises(ConfigError, match="not plain data"):
        canonical_json(object())


def test_tuples_paths_and_numpy_numbers_count_as_what_they_stand_for() -> None:
    assert canonical_json((1, 2)) == canonical_json([1, 2])
    assert canonical_json(Path("a/b")) == canonical_json("a/b")
    assert canonical_json(np.float64(0.5)) == canonical_json(0.5)
    assert canonical_json(np.int64(3)) == canonical_json(3)


# Experiments


def of(**changes: Any) -> str:
    return fingerprint(load_experiment(valid(**changes), check=False))


BASE = of()

CHANGES: dict[str, dict[str, Any]] = {
    "seed": {"seed": 4},
    "epochs": {"training__epochs": 3},
    "steps": {"training__steps": 10},
    "learning rate": {"training__optimizer": {"AdamW": {"lr": 2e-3}}},
    "optimizer": {"training__optimizer": {"Adam": {"lr": 1e-3}}},
    "weight decay": {"training__optimizer": {"AdamW": {"lr": 1e-3, "weight_decay": 0.1}}},
    "layers": {"model": {"MLP": {"in_features": 30, "out_features": 2, "hidden": [17]}}},
    "order of layers": {"model": {"MLP": {"in_features": 30, "out_features": 2, "hidden": [16, 8]}}},
    "model": {"model": {"torch.nn.Linear": {"in_features": 30, "out_features": 2}}},
    "precision": {"training__precision": "bf16"},
    "compile": {"training__compile": True},
    "fused": {"training__fused": True},
    "channels_last": {"training__channels_last": True},
    "batch_norm": {"training__batch_norm": "local"},
    "deterministic": {"training__deterministic": False},
    "scheduler": {"training__scheduler": {"OneCycleLR": {"max_lr": 0.1}}},
    "metrics": {"training__metrics": ["accuracy", "auroc"]},
    "argument of a metric": {"training__metrics": ["accuracy", {"calibration_error": {"bins": 10}}]},
    "loss": {"training__loss": "CrossEntropyLoss"},
    "argument of the loss": {"training__loss": {"CrossEntropyLoss": {"label_smoothing": 0.1}}},
    "split": {"dataset__split": {"ratio": [0.7, 0.3]}},
    "seed of the split": {"dataset__split": {"ratio": [0.7, 0.15, 0.15], "seed": 3}},
    "folds": {"dataset__split": {"folds": 5}},
    "fold": {"dataset__split": {"folds": 5}, "fold": 1},
    "standardize": {"dataset__standardize": True},
    "shape": {"dataset__shape": [1, 30]},
    "limit": {"dataset__load_limit": 10},
    "freeze": {"model": {"component": valid()["model"], "freeze": ["layers.*"]}},
    "ema": {"training__ema": {"decay": 0.99}},
    "monitor": {"training__monitor": {"metric": "accuracy"}},
    "sampler": {"dataset__samplers": {"train": "BalancedSampler"}},
    "data": {"dataset__arrays": {"sklearn.datasets.load_digits": {"return_X_y": True}}},
}


def test_every_change_that_matters_changes_the_fingerprint() -> None:
    prints = {name: of(**changes) for name, changes in CHANGES.items()}
    assert len({BASE, *prints.values()}) == len(CHANGES) + 1, prints


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "other"},
        {"run": {"device": "cpu", "num_workers": 3, "output": "elsewhere", "progress": False}},
        {"training__accumulate": 1},
        {"training__monitor": {"mode": "min"}},
        {"training__optimizer": {"torch.optim.AdamW": {"lr": 1e-3}}},
        {"training__optimizer": {"AdamW": {"lr": 1e-3, "weight_decay": 0.01}}},
        {"training__optimizer": {torch.optim.AdamW: {"lr": 1e-3}}},
        {"training__task": "Classification"},
        {"training__task": "weft.tasks.Classification"},
        {"model": {"component": {"MLP": {"hidden": (16,), "out_features": 2, "in_features": 30}}}},
        {"dataset__split": {"ratio": [0.7, 0.15, 0.15], "stratified": False}},
        {"dataset__arrays": {"sklearn.datasets.load_breast_cancer": {"return_X_y": True, "as_frame": False}}},
    ],
    ids=str,
)
def test_what_does_not_matter_leaves_the_fingerprint_alone(changes: dict[str, Any]) -> None:
    assert of(**changes) == BASE


@settings(max_examples=60)
@given(first=VALUES, second=VALUES)
def test_one_changed_argument_changes_the_fingerprint(first: Any, second: Any) -> None:
    assume(all(not _is_reference(value) for value in (first, second)))
    prints = [of(model={"builtins.dict": {"x": value}}) for value in (first, second)]
    assert (prints[0] == prints[1]) == same(first, second)


def _is_reference(value: Any) -> bool:
    return isinstance(value, dict) and len(value) == 1 and set(value) <= {"component", "object"}


@settings(max_examples=30)
@given(arguments=st.dictionaries(st.text("abc", min_size=1), VALUES, max_size=4))
def test_the_order_in_which_an_experiment_is_written_does_not_matter(arguments: dict[str, Any]) -> None:
    data = valid(model={"builtins.dict": arguments})
    first = load_experiment(data, check=False)
    second = load_experiment(reordered(data), check=False)
    assert fingerprint(first) == fingerprint(second)


def test_another_process_with_another_hash_seed_finds_the_same(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(CODE)
    data = valid(patches=["mine.py"], model={"Net": {"sizes": [1, 2.5, {"b": {}, "a": None}]}})
    (tmp_path / "data.json").write_text(json.dumps(data))
    program = (
        "import json, sys\nfrom weft.config import *\n"
        f"data = json.load(open({str(tmp_path / 'data.json')!r}))\n"
        f"print(fingerprint(load_experiment(data, base={str(tmp_path)!r}, check=False)))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "4242"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == fingerprint(load_experiment(data, base=tmp_path, check=False)), done.stderr


def test_resolving_leaves_the_fingerprint_alone() -> None:
    experiment = load_experiment(valid(training__scheduler={"OneCycleLR": {"max_lr": 0.1}}, training__optimizer=None))
    assert fingerprint(resolve(experiment)) == fingerprint(experiment)


def test_the_datas_digest_stands_for_its_paths(tmp_path: Path) -> None:
    def loaded(name: str) -> Experiment:
        data = valid(dataset={"table": {"train": f"{name}.csv"}, "inputs": ["a"], "targets": ["b"]})
        return load_experiment(data, check=False)

    assert fingerprint(loaded("a"), "digest") == fingerprint(loaded("b"), "digest")
    assert fingerprint(loaded("a"), "digest") != fingerprint(loaded("a"), "other")
    assert fingerprint(loaded("a")) != fingerprint(loaded("b"))
    assert fingerprint(loaded("a")) != fingerprint(loaded("a"), "digest")


def test_weights_and_split_files_count_by_their_content(tmp_path: Path) -> None:
    def written(weights: bytes, split: str) -> str:
        (tmp_path / "w.pt").write_bytes(weights)
        (tmp_path / "splits").mkdir(exist_ok=True)
        (tmp_path / "splits" / "1.json").write_text(split)
        data = valid(model={"component": valid()["model"], "weights": "w.pt"}, dataset__split={"files": "splits"})
        return fingerprint(load_experiment(data, base=tmp_path), "digest")

    assert len({written(b"1", "{}"), written(b"2", "{}"), written(b"2", "[]")}) == 3
    assert written(b"1", "{}") == written(b"1", "{}")
    (tmp_path / "w.pt").unlink()
    with pytest.raises(ConfigError, match="w.pt"):
        fingerprint(load_experiment(valid(model={"component": "MLP", "weights": "w.pt"}), base=tmp_path, check=False))


# The user's code

CODE = """\
'''A patch.'''
import math

import torch

SCALE = 2.0
UNUSED = 1


def helper(x):
    return x * SCALE  # double


class Net(torch.nn.Module):
    '''A network.'''

    def __init__(self, sizes=None):
        super().__init__()

    def forward(self, x):
        return helper(x) + math.pi


def other():
    return f"{UNUSED} {'a':>{3}}"
"""


def with_code(folder: Path, code: str) -> str:
    (folder / "mine.py").write_text(code)
    data = valid(patches=["mine.py"], model="Net")
    return fingerprint(load_experiment(data, base=folder, check=False))


@pytest.mark.parametrize(
    ("old", "new", "changes"),
    [
        ("# double", "# twice", False),
        ("'''A network.'''", "'''Another docstring,\n    longer.'''", False),
        ("return x * SCALE", "return (x\n            *SCALE)", True),
        ("return x * SCALE", "return x  *  SCALE", False),
        ("UNUSED = 1", "UNUSED = 2", False),
        ("def other():\n    return", "def other():\n    return 1 and", False),
        ("SCALE = 2.0", "SCALE = 3.0", True),
        ("return x * SCALE", "return x / SCALE", True),
        ("+ math.pi", "- math.pi", True),
        ("import math\n", "import math\n\ntorch = None\n", True),
        ("UNUSED = 1\n", "UNUSED = 1\nmath.changed_by_a_patch = 1\n", True),
        ("\n\n\n", "\n\n", False),
        ("    def forward", "    def  forward", False),
    ],
)
def test_only_code_that_a_component_uses_counts(tmp_path: Path, old: str, new: str, changes: bool) -> None:
    assert old in CODE
    assert (with_code(tmp_path, CODE) != with_code(tmp_path, CODE.replace(old, new, 1))) is changes


def test_the_place_of_a_patch_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert with_code(tmp_path / "a", CODE) == with_code(tmp_path / "b", CODE)


def test_code_that_the_users_code_imports_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    helpers = tmp_path / "helpers_of_the_fingerprint_test.py"
    code = CODE.replace("import math\n", "import math\nfrom helpers_of_the_fingerprint_test import offset\n").replace(
        "math.pi", "offset"
    )
    helpers.write_text("offset = 1\n")
    first = with_code(tmp_path, code)
    helpers.write_text("offset = 2\n")
    assert with_code(tmp_path, code) != first


def test_a_class_and_its_name_in_a_patch_are_the_same(tmp_path: Path) -> None:
    by_name = with_code(tmp_path, CODE)
    net = load_patch(tmp_path / "mine.py").Net
    assert fingerprint(load_experiment(valid(model=net), base=tmp_path)) == by_name


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("x = 1\n", "x=1  # one\n"),
        ("def f():\n    return 1\n", "def f():\n\n  # two spaces\n  return 1\n"),
        ("f'{x} a'\ny = f'{x:>{n}}'\n", "y = f'{x:>{n}}'\n"),
        ("def f():\n    'doc'\n    return 1\n", 'def f():\n    """other\n    doc"""\n    return 1\n'),
    ],
)
def test_comments_docstrings_and_layout_are_left_out_of_source(first: str, second: str) -> None:
    assert normalised(first) == normalised(second)


def test_strings_and_indentation_stay_in_source() -> None:
    assert normalised("x = 'a  b'\n") != normalised("x = 'a b'\n")
    assert normalised("x = f'a  {b}'\n") != normalised("x = f'a {b}'\n")
    assert normalised("if a:\n    b\nc\n") != normalised("if a:\n    b\n    c\n")


def make_scaled(factor: float) -> Callable[[Any, Any], Any]:
    def scaled(outputs: Any, targets: Any) -> Any:
        return factor * (outputs - targets).abs().mean()

    return scaled


def test_values_that_a_function_has_captured_count() -> None:
    assert of(training__loss=make_scaled(1.0)) == of(training__loss=make_scaled(1.0))
    assert of(training__loss=make_scaled(1.0)) != of(training__loss=make_scaled(2.0))


def test_finished_objects_count_by_class_and_state() -> None:
    def loss(weight: float) -> torch.nn.Module:
        return torch.nn.CrossEntropyLoss(weight=torch.tensor([1.0, weight]))

    assert of(training__loss=loss(2.0)) == of(training__loss=loss(2.0))
    assert len({of(training__loss=loss(2.0)), of(training__loss=loss(3.0)), of(training__loss=torch.nn.NLLLoss())}) == 3


def test_objects_whose_state_cannot_be_told_are_refused() -> None:
    with pytest.raises(ConfigError, match="give the class and its arguments"):
        of(training__loss=Component.of(torch.nn.CrossEntropyLoss, weight=torch.Generator()))
    with pytest.raises(ConfigError, match="lambda"):
        of(training__loss=lambda outputs, targets: outputs - targets)


def test_a_class_inside_a_function_counts_by_its_source() -> None:
    class Local(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return x

    first = Local

    class Local(torch.nn.Module):  # type: ignore[no-redef]
        def forward(self, x: Any) -> Any:
            return x + 1

    assert definition_digest(first) != definition_digest(Local)
