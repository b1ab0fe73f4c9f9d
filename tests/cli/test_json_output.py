"""`--json`: standard output is JSON and nothing else, in a form that scripts can rely on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.cli.lab import good, tabular

SCORES = {"train": {"loss": float, "accuracy": float}}
SCORES |= {"validation": SCORES["train"], "test": SCORES["train"]}

FORMS: dict[str, Any] = {
    "train": {
        "run": str, "fingerprint": str, "status": str, "scores": SCORES, "epochs": int, "steps": int, "seconds": float,
        "best_epoch": int, "monitor": {"metric": str, "mode": str, "best": float}, "model_sha256": str,
        "skipped_items": list, "resume": type(None),
        "kept_epochs": [{"epoch": int, "step": int, "value": float, "file": str}],
    },
    "evaluate": {"scores": SCORES, "model_sha256": str},
    "predict": {"files": [str]},
    "show": {"experiment": dict, "fingerprint": str, "data_digest": str},
    "report": {"reports": [str]},
    "reproduce": {
        "identical": bool, "first": str, "second": str, "weights_identical": bool, "history_identical": bool,
        "differences": list, "causes": list,
    },
    "components": [
        {"name": str, "kind": str, "origin": str, "path": str, "summary": str,
         "arguments": [{"name": str, "kind": str, "default": str, "required": bool}]},
    ],
}  # fmt: skip


def assert_form(value: Any, form: Any, where: str = "") -> None:
    """The value has the keys and types of the form, and no others."""
    if isinstance(form, dict):
        assert isinstance(value, dict)
        assert set(value) == set(form), where
        for key, inner in form.items():
            assert_form(value[key], inner, f"{where}.{key}")
    elif isinstance(form, list):
        assert isinstance(value, list)
        for entry in value:
            assert_form(entry, form[0], f"{where}[]")
    else:
        assert isinstance(value, form), f"{where} is {value!r}"


@pytest.mark.parametrize("command", FORMS)
def test_json_has_its_form(command: str, finished: Path, tmp_path: Path) -> None:
    arguments: dict[str, list[object]] = {
        "train": [tabular(tmp_path), "--out", tmp_path / "run"],
        "evaluate": [finished],
        "predict": [finished, "--out", tmp_path / "out"],
        "show": [finished],
        "report": [finished],
        "reproduce": [finished, "--out", tmp_path / "again"],
        "components": ["MLP"],
    }
    assert_form(good(command, *arguments[command], "--json").json, FORMS[command], command)


def test_scores_without_a_value_are_null(tmp_path: Path) -> None:
    """Validation and test of one class only have no area under the curve."""
    file = tabular(tmp_path, training__metrics=["auroc"], dataset__load_limit=1, dataset__standardize=False)
    trained = good("-q", "train", file, "--out", tmp_path / "run", "--json").json
    assert trained["scores"]["test"]["auroc"] is None
    assert good("evaluate", tmp_path / "run", "--json").json["scores"]["test"]["auroc"] is None


def test_what_models_and_libraries_print_does_not_get_into_the_json(tmp_path: Path) -> None:
    file = tabular(tmp_path, patches=["loud.py"], model="Loud")
    (tmp_path / "loud.py").write_text(
        "from torch import nn\n\nprint('the patch is loaded')\n\n\n"
        "class Loud(nn.Linear):\n    def __init__(self) -> None:\n        super().__init__(3, 3)\n\n"
        "    def forward(self, inputs):\n        print('the model speaks')\n        return super().forward(inputs)\n"
    )
    trained = good("-q", "train", file, "--out", tmp_path / "run", "--json")
    assert trained.json["status"] == "finished"
    assert "the model speaks" in trained.err
    for command in ("evaluate", "predict", "show"):
        assert good(command, tmp_path / "run", "--json").json
