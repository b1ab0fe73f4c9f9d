"""Stopping and going on, with the exit codes that schedulers look at."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.cli.lab import good, read_table, tabular, weft, write_table

STOPPER = """
import signal

from torch.nn import functional

from weft.engine import Observer


def smooth(outputs, targets):
    return functional.cross_entropy(outputs, targets, label_smoothing=0)


class Stopper(Observer):
    \"\"\"Gets the signal that a scheduler sends before it kills.\"\"\"

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, step) -> None:
        if step.step == self.step:
            signal.raise_signal(signal.SIGTERM)
"""


def stopping(folder: Path) -> Path:
    """An experiment that can be stopped in its fifth step by `run.observers`."""
    file = tabular(folder, patches=["stopper.py"], training__loss="smooth")
    (folder / "stopper.py").write_text(STOPPER)
    return file


STOP = ["--set", "run.observers=[{Stopper: {step: 5}}]"]


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    """A run that was stopped in its fifth step; its experiment file lies beside it."""
    ended = weft("-q", "train", stopping(tmp_path), *STOP, "--out", tmp_path / "run")
    assert ended.code == 75
    return tmp_path / "run"


def test_a_stopped_run_exits_with_75_and_says_how_to_go_on(tmp_path: Path) -> None:
    run = tmp_path / "run"
    ended = weft("train", stopping(tmp_path), *STOP, "--out", run, "--json")
    assert ended.code == 75
    assert ended.out == ""
    assert "stopped by SIGTERM" in ended.err
    assert f"resume with: weft train --resume {run}" in ended.err
    result = json.loads((run / "result.json").read_text())
    assert result["status"] == "stopped"
    assert result["resume"] == f"weft train --resume {run}"


def test_a_run_goes_on_to_the_same_weights_as_if_it_had_been_left_alone(stopped: Path, tmp_path: Path) -> None:
    resumed = good("-q", "train", "--resume", stopped, "--set", "run.observers=[]", "--json").json
    alone = good("-q", "train", stopping(tmp_path / "alone"), "--out", tmp_path / "other", "--json").json
    assert resumed["model_sha256"] == alone["model_sha256"]
    assert resumed["scores"] == alone["scores"]
    assert resumed["run"] == str(stopped)


def test_the_same_command_begins_goes_on_and_is_content_with_a_finished_run(tmp_path: Path) -> None:
    command = ["-q", "train", stopping(tmp_path), "--out", tmp_path / "run", "--resume", "--json"]
    assert weft(*command, *STOP).code == 75
    first, second = good(*command, "--set", "run.observers=[]").json, good(*command).json
    assert first == second
    assert first["status"] == "finished"


def test_another_experiment_does_not_go_on_with_a_run(stopped: Path) -> None:
    file = stopped.parent / "tabular.yaml"
    refused = weft("train", file, "--out", stopped, "--resume", "--set", "training.batch_size=4")
    assert refused.code == 2
    assert "training.batch_size is 8 there and 4 here" in refused.err
    refused = weft("train", "--resume", stopped, "--set", "training.batch_size=4")
    assert refused.code == 2
    assert "another experiment" in refused.err


def test_a_run_does_not_go_on_with_other_data(stopped: Path) -> None:
    table = read_table(stopped.parent / "validation.csv")
    table[0]["age"] = "99"
    write_table(stopped.parent / "validation.csv", table)
    refused = weft("train", "--resume", stopped)
    assert refused.code == 1
    assert "its data (validation.csv) changed since it began" in refused.err


@pytest.mark.parametrize("what", ["experiment.yaml", "code"])
def test_a_run_does_not_go_on_with_other_settings_or_code(what: str, stopped: Path) -> None:
    files = {"experiment.yaml": stopped / "experiment.yaml", "code": next(stopped.glob("code/**/stopper.py"))}
    file = files[what]
    file.write_text(file.read_text().replace("0.01", "0.02").replace("label_smoothing=0", "label_smoothing=0.2"))
    refused = weft("train", "--resume", stopped)
    assert refused.code == 1
    assert "its code or settings changed since it began" in refused.err


def test_a_patch_that_changed_since_does_not_disturb_a_run_which_has_its_own_copy(stopped: Path) -> None:
    (stopped.parent / "stopper.py").unlink()
    assert good("-q", "train", "--resume", stopped, "--set", "run.observers=[]", "--json").json["status"] == "finished"


def test_a_finished_run_is_left_as_it_is(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    before = {file.name: file.read_bytes() for file in (tmp_path / "run").iterdir() if file.is_file()}
    resumed = good("train", "--resume", tmp_path / "run")
    assert "is finished already" in resumed.err
    assert {file.name: file.read_bytes() for file in (tmp_path / "run").iterdir() if file.is_file()} == before | {
        ".lock": (tmp_path / "run" / ".lock").read_bytes()
    }


def test_resume_says_what_it_needs() -> None:
    for arguments in (["train"], ["train", "--resume"]):
        refused = weft(*arguments)
        assert refused.code == 2
        assert "weft train --resume RUN" in refused.err
