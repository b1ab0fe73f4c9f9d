"""A compspec asks for every argument that the scripts use, and runs nothing of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.interop.coinstac.computation import write
from weft.errors import ConfigError, UsageError
from weft.interop.coinstac.compspec import compspec, dumps
from weft.interop.coinstac.simulator import read_inputspec


def test_it_names_what_the_classes_look_up_and_what_the_node_is_given(tmp_path: Path) -> None:
    write(tmp_path)
    spec = json.loads(dumps(compspec([tmp_path / "local.py"], name="Tumours, in three places")))
    asked = spec["computation"]["input"]
    assert spec["meta"]["id"] == "tumours--in-three-places"
    assert asked["input_size"]["type"] == "string"  # looked up in a neighbour of the script; nobody says what it is
    assert asked["data_dir"]["source"] == "member"
    assert asked["epochs"] == {"label": "Epochs", "type": "number", "source": "owner", "default": 3,
                               "order": asked["epochs"]["order"]}  # fmt: skip
    assert asked["task_id"]["default"] == "tumours"
    assert asked["mode"]["values"] == ["train", "test"]
    assert [entry["order"] for entry in asked.values()] == list(range(1, len(asked) + 1))


def test_values_of_an_inputspec_are_defaults_and_tell_types(tmp_path: Path) -> None:
    write(tmp_path)
    values = read_inputspec(tmp_path)["local1"]
    asked = compspec([tmp_path / "local.py"], name="x", inputspec=values)["computation"]["input"]
    assert (asked["input_size"]["type"], asked["input_size"]["default"]) == ("number", 6)


def test_what_is_computed_or_left_out_has_its_default_and_its_type(tmp_path: Path) -> None:
    script = tmp_path / "local.py"
    script.write_text(
        "COINNLocal(cache=C, agg_engine=engine, epochs=data['epochs'], pretrain_args=None, hidden=size(),"
        " dataloader_args={'train': {}})"
    )
    asked = compspec([script], name="x", inputspec={"epochs": 9})["computation"]["input"]
    assert (asked["agg_engine"]["default"], asked["epochs"]["default"]) == ("dSGD", 9)
    assert "default" not in asked["hidden"]
    types = {name: asked[name]["type"] for name in ("num_folds", "load_limit", "gpus", "pretrain_args")}
    assert types == {"num_folds": "number", "load_limit": "number", "gpus": "object", "pretrain_args": "object"}
    assert (asked["dataloader_args"]["source"], asked["dataloader_args"]["default"]) == ("member", {"train": {}})


def test_scripts_are_read_and_not_run(tmp_path: Path) -> None:
    script = tmp_path / "local.py"
    script.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\ncache['depth']\n")
    assert "depth" in compspec([script], name="x")["computation"]["input"]
    assert not (tmp_path / "ran").exists()
    script.write_text("def broken(:\n")
    with pytest.raises(ConfigError, match=r"local\.py:1"):
        compspec([script], name="x")
    with pytest.raises(UsageError, match="there is no script"):
        compspec([tmp_path / "nothing.py"], name="x")
