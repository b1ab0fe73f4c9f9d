"""`weft check` and `weft test-model` on the command line: tables, JSON and exit codes."""

from __future__ import annotations

from pathlib import Path

from tests.actions.check_projects import KINDS, clean_project
from tests.cli.lab import good, weft


def test_a_sound_experiment_is_told_of_with_its_estimates(tmp_path: Path) -> None:
    file = clean_project(tmp_path, 0)
    outcome = good("check", file)
    assert "0 errors, 0 warnings, 0 notes" in outcome.last_line
    for word in ("train: ", "validation: ", "time: ", "memory: ", "disk: "):
        assert word in outcome.out
    told = good("check", file, "--json").json
    assert told["ok"]
    assert told["counts"] == {"error": 0, "warning": 0, "note": 0}
    assert set(told["estimates"]) == {"memory", "disk", "time"}
    assert not (tmp_path / "runs").exists()


def test_errors_are_a_table_and_exit_code_1(tmp_path: Path) -> None:
    file = clean_project(tmp_path, list(KINDS).index("images in arrays"))
    outcome = weft("check", file, "--set", "model.SmallCNN.out_features=1")
    assert outcome.code == 1
    assert "severity" in outcome.out
    assert "output size" in outcome.out
    assert "→ give the model" in outcome.out
    assert outcome.last_line.split(":")[1].startswith(" 1 error")
    told = weft("check", file, "--json", "--set", "model.SmallCNN.out_features=1")
    assert told.code == 1
    assert told.json["findings"][0]["severity"] == "error"
    assert {"severity", "check", "where", "message", "remedy", "evidence"} == set(told.json["findings"][0])


def test_mistakes_in_a_file_are_errors_and_a_missing_file_is_misuse(tmp_path: Path) -> None:
    file = clean_project(tmp_path, 0)
    file.write_text(file.read_text(encoding="utf-8").replace("epochs", "epoch"), encoding="utf-8")
    outcome = weft("check", file)
    assert outcome.code == 1
    assert "did you mean 'epochs'?" in outcome.out
    assert weft("check", tmp_path / "no.yaml").code == 2


def test_every_item_is_looked_at_on_request(tmp_path: Path) -> None:
    file = clean_project(tmp_path, list(KINDS).index("masks in folders"))
    told = good("check", file, "--thorough", "--json").json
    assert all(seen["looked_at"] == seen["items"] for seen in told["looked_at"].values())


def test_a_model_is_tested_with_a_table_and_json(tmp_path: Path) -> None:
    file = clean_project(tmp_path, 0)
    outcome = good("test-model", file)
    assert "0 of 10 tests failed" in outcome.last_line
    assert good("test-model", file, "--json").json["ok"]


def test_a_model_that_fails_a_test_gives_exit_code_1(tmp_path: Path) -> None:
    file = clean_project(tmp_path, list(KINDS).index("own dataset"))
    own = tmp_path / "own.py"
    own.write_text(
        own.read_text(encoding="utf-8").replace("lengths], 1)", "lengths.detach() * 0], 1)"), encoding="utf-8"
    )
    outcome = weft("test-model", file)
    assert outcome.code == 1
    assert "failed" in outcome.out
    assert "input 1" in outcome.out
