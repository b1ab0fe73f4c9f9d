"""Mistakes beyond those of the experiment file: each ends in a message that says what, where and what to do.

Nothing is left behind by an experiment whose training never began.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.cli.lab import good, pairs, pictures, read_table, rows, tabular, weft, write_table

# --- data -------------------------------------------------------------------------------------------------------------


def cell(column: str, value: str, row: int = 5) -> Callable[[Path], Path]:
    """A classification in whose training table one cell is another."""

    def prepare(folder: Path) -> Path:
        file = tabular(folder)
        table = read_table(folder / "train.csv")
        table[row][column] = value
        write_table(folder / "train.csv", table)
        return file

    return prepare


def text(content: str) -> Callable[[Path], Path]:
    """A classification whose training table is this text."""

    def prepare(folder: Path) -> Path:
        file = tabular(folder)
        (folder / "train.csv").write_text(content)
        return file

    return prepare


def picture(number: int, content: bytes | np.ndarray | None) -> Callable[[Path], Path]:
    """A classification of pictures of which one is gone (None), damaged (bytes) or another (pixels)."""

    def prepare(folder: Path) -> Path:
        file = pictures(folder)
        path = folder / "pictures" / f"{number}.png"
        path.unlink()
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif content is not None:
            Image.fromarray(content).save(path)
        return file

    return prepare


def mask(content: np.ndarray | None, split: str = "validation") -> Callable[[Path], Path]:
    """A segmentation in which one mask is another, or gone (None)."""

    def prepare(folder: Path) -> Path:
        file = pairs(folder)
        path = folder / "pairs" / split / "y" / "1.npy"
        path.unlink()
        if content is not None:
            np.save(path, content)
        return file

    return prepare


def unseen_class(folder: Path) -> Path:
    """A class that occurs in validation alone."""
    file = tabular(folder)
    table = read_table(folder / "validation.csv")
    table[2]["diagnosis"] = "critical"
    write_table(folder / "validation.csv", table)
    return file


REGRESSION = [
    "dataset.targets=[score]",
    "training.task=regression",
    "training.metrics=[mae]",
    "model.MLP.out_features=1",
]
HEADER = "patient,age,weight,volume,diagnosis,score,fever,cough\n"
LARGE = np.zeros((8, 12), np.uint8)

BAD_DATA = {
    "a missing column": (tabular, ["dataset.inputs=[age, hight, volume]"], ["no column 'hight'", "'weight'"]),
    "a missing target column": (tabular, ["dataset.targets=[diagnoses]"], ["no column 'diagnoses'", "'diagnosis'"]),
    "a missing table": (tabular, ["dataset.table.train=trian.csv"], ["there is no file", "trian.csv", "'train.csv'"]),
    "a table without rows": (text(HEADER), [], ["train.csv has no rows"]),
    "an empty file": (text(""), [], ["train.csv is empty", "column names"]),
    "a short row": (text(HEADER + "p1,1,2\n"), [], ["line 2 has 3 cells for 8 column names"]),
    "another separator": (text((HEADER + "p1,1,2,3,mild,3,0,1\n").replace(",", ";")), [], ["separator: ';'"]),
    "an empty cell": (cell("age", ""), [], ["train.csv line 7", "'age' is empty"]),
    "an input that is not a number": (cell("age", "nan"), [], ["train.csv line 7", "'age' is nan"]),
    "text among numbers": (cell("age", "old"), [], ["train.csv line 7", "'age' is 'old'"]),
    "an infinite input": (cell("age", "inf"), [], ["train.csv line 7", "'age' is inf"]),
    "a target that is not a number": (cell("score", "nan"), REGRESSION, ["train.csv line 7", "'score' is nan"]),
    "a target without a value": (cell("diagnosis", ""), [], ["train.csv line 7", "'diagnosis' is empty"]),
    "class names for a regression": (
        tabular, [*REGRESSION, "dataset.targets=[diagnosis]"], ["'diagnosis' is 'healthy'", "classification"],
    ),
    "numbers for a classification": (tabular, ["dataset.targets=[score]"], ["target 'score' is", "regression"]),
    "more classes than outputs": (
        tabular, ["model.MLP.out_features=2"], ["2 outputs", "3 classes (healthy, mild, severe)"],
    ),
    "more outputs than classes": (tabular, ["model.MLP.out_features=5"], ["[n, 3]", "[8, 5]"]),
    "a class in validation alone": (unseen_class, [], ["no training item has the class critical", "4 classes"]),
    "one output where two are needed": (
        tabular,
        ["dataset.targets=[fever]", "model.MLP.out_features=1", "training.task={classification: {kind: multiclass}}"],
        ["outputs must be [n, 2]; outputs are [8, 1]"],
    ),
    "inputs of another width": (tabular, ["model.MLP.in_features=7"], ["3 numbers", "in_features=7"]),
    "one output for two targets": (
        tabular, [*REGRESSION, "dataset.targets=[score, age]", "dataset.inputs=[weight]", "model.MLP.in_features=1"],
        ["outputs [8, 1] and targets [8, 2]", "one output per target column"],
    ),
    "a missing picture": (picture(3, None), [], ["pictures.csv line 5", "3.png"]),
    "a damaged picture": (picture(3, b"no picture"), ["dataset.split.ratio=[0.5, 0.5]"], ["3.png", "cannot be read"]),
    "pictures of unlike sizes": (
        picture(3, LARGE), ["training.batch_size=16"], ["items of a batch differ", "1, 8, 12"],
    ),
    "pictures with one channel": (pictures, ["model.SmallCNN.in_channels=3"], ["expected [n, 3, height, width]"]),
    "a mask without a picture": (mask(None), [], ["x/1.npy has no partner"]),
    "labels beyond the outputs": (mask(np.full((8, 8), 4)), [], ["labels are 0 to 4", "at least 5"]),
    "a mask of another size": (mask(np.zeros((6, 8), np.uint8)), [], ["items of a batch differ", "6, 8"]),
    "too little for three parts": (pictures, ["dataset.split.ratio=[0.98, 0.01, 0.01]"], ["nothing for", "16 items"]),
    "too many folds": (pictures, ["dataset.split={folds: 20}"], ["20 folds are too many for 16 items"]),
    "a device that is not there": (tabular, ["run.device=cuda:77"], ["run.device is cuda:77", "run.device: auto"]),
    "patterns that freeze nothing": (tabular, ["model.freeze=[encoder.*]"], ["'encoder.*'", "layers.0"]),
    "nothing left to train": (tabular, ["model.freeze=['*']"], ["all parameters are frozen"]),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_DATA)
def test_data_that_do_not_fit_are_told_and_leave_nothing_behind(case: str, tmp_path: Path) -> None:
    prepare, settings, expected = BAD_DATA[case]
    arguments = [argument for setting in settings for argument in ("--set", setting)]
    failed = weft("train", prepare(tmp_path), *arguments, "--out", tmp_path / "run")
    for words in expected:
        assert words in failed.err, failed.err
    assert failed.code in (1, 2)
    assert failed.out == ""
    assert not (tmp_path / "run").exists()


def test_the_same_command_works_once_the_mistake_is_mended(tmp_path: Path) -> None:
    command = ["-q", "train", tabular(tmp_path)]
    assert weft(*command, "--set", "model.MLP.out_features=2").code == 1
    assert list((tmp_path / "runs").glob("tabular-*")) == []
    (tmp_path / "mine").mkdir()
    assert weft(*command, "--set", "model.MLP.out_features=2", "--out", tmp_path / "mine").code == 1
    assert (tmp_path / "mine").is_dir(), "a folder that was there before stays"
    good(*command, "--out", tmp_path / "mine")


def test_folds_that_cannot_begin_leave_nothing_behind(tmp_path: Path) -> None:
    failed = weft("train", pictures(tmp_path), "--set", "dataset.split={folds: 20}", "--out", tmp_path / "run")
    assert failed.code == 1
    assert not (tmp_path / "run").exists()


def test_items_that_cannot_be_loaded_are_left_out_where_the_experiment_says_so(tmp_path: Path) -> None:
    file = picture(3, b"no picture")(tmp_path)
    settings = ["--set", "dataset.on_bad_item=skip", "--set", "dataset.split={ratio: [0.75, 0.25]}"]
    assert good("-q", "train", file, *settings, "--out", tmp_path / "run", "--json").json["status"] == "finished"


def test_a_class_that_training_never_saw_is_named_when_other_data_are_scored(finished: Path, tmp_path: Path) -> None:
    table = rows(4, 5)
    table[1]["diagnosis"] = "critical"
    other = write_table(tmp_path / "other.csv", table)
    failed = weft("evaluate", finished, "--split", "test", "--set", f"dataset.table.test={other}")
    assert failed.code == 1
    assert "other.csv line 3" in failed.err
    assert "'critical'" in failed.err
    assert "healthy, mild, severe" in failed.err


def test_scoring_needs_answers(finished: Path, tmp_path: Path) -> None:
    other = write_table(tmp_path / "other.csv", [{"age": "1", "weight": "2", "volume": "3"}])
    failed = weft("evaluate", finished, "--split", "test", "--set", f"dataset.table.test={other}")
    assert failed.code == 1
    assert "no column 'diagnosis'" in failed.err


def test_a_path_that_was_meant_from_here_is_written_out(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = write_table(tmp_path / "other.csv", rows(4, 5))
    monkeypatch.chdir(tmp_path)
    failed = weft("predict", finished, "--set", "dataset.table.test=other.csv", "--out", tmp_path / "out")
    assert failed.code == 2
    assert f"there is no file {finished.parent / 'other.csv'}" in failed.err
    assert f"write {other}" in failed.err


# --- code of the user's -----------------------------------------------------------------------------------------------

PATCH = """
from torch import nn


class Broken(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, inputs):
        return self.layer(inputs[:, :2])


class Triple(Broken):
    def forward(self, inputs):
        return self.layer(inputs), 1, 2


class NoForward(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)


class Loud:
    def on_step(self, step):
        raise ValueError


def mismatched(outputs, targets):
    return (outputs - targets).mean()


def unreduced(outputs, targets):
    return nn.functional.cross_entropy(outputs, targets, reduction="none")


def failing(outputs, targets):
    raise KeyError("no such thing")


def shake(item):
    return item["picture"]


def number():
    return 3
"""

BAD_CODE = {
    "model=Broken": ["Broken failed on inputs [8, 3] float32", "cannot be multiplied", "--traceback"],
    "model=Triple": ["Triple returned a tuple of 3"],
    "model=NoForward": ["NoForward failed", "forward"],
    "model=number": ["model number is a int, not a torch.nn.Module"],
    "training.task=NoForward": ["not a weft.tasks.Task"],
    "training.loss=mismatched": ["loss mismatched failed on outputs [8, 3]", "targets [8] int64 from 0 to 2"],
    "training.loss=unreduced": ["loss unreduced returned shape [8], expected a scalar", "mean"],
    "training.metrics=[failing]": ["metric 'failing' failed", "no such thing"],
    "run.observers=[Loud]": ["Loud is not an observer", "weft.engine.Observer"],
    "dataset.transforms.base=[shake]": ["transform shake failed", "KeyError"],
}


@pytest.mark.parametrize("setting", BAD_CODE)
def test_code_of_the_user_that_fails_is_named(setting: str, tmp_path: Path) -> None:
    file = tabular(tmp_path, patches=["patch.py"], dataset__standardize=False)
    (tmp_path / "patch.py").write_text(PATCH)
    failed = weft("train", file, "--set", setting, "--out", tmp_path / "run")
    for words in BAD_CODE[setting]:
        assert words in failed.err, failed.err
    assert failed.code in (1, 2)
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_not_finite_names_the_items_and_is_kept_in_the_log(tmp_path: Path) -> None:
    failed = weft("train", tabular(tmp_path), "--set", "training.optimizer.AdamW.lr=1e30", "--out", tmp_path / "run")
    assert failed.code == 1
    assert "items of the batch: line " in failed.err
    assert "lower the learning rate" in failed.err
    assert failed.err.count("is nan in epoch") == 1, "it is said once"
    assert json.loads((tmp_path / "run" / "result.json").read_text())["status"] == "failed"
    assert "ERROR" in (tmp_path / "run" / "log.txt").read_text()


# --- weights ----------------------------------------------------------------------------------------------------------


class Malice:
    """Runs code when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("save", ["pickle", "torch"])
def test_weights_that_hold_code_are_refused_and_never_run(save: str, finished: Path, tmp_path: Path) -> None:
    trace, file = tmp_path / "it ran", tmp_path / "weights.pt"
    if save == "pickle":
        file.write_bytes(pickle.dumps({"layers.0.weight": Malice(trace)}))
    else:
        torch.save({"layers.0.weight": Malice(trace)}, file)
    experiment = finished.parent / "tabular.yaml"
    for arguments in (
        ["evaluate", experiment, "--weights", file],
        ["predict", finished, "--weights", file, "--out", tmp_path / "out"],
        ["train", experiment, "--set", f"model.weights={file}", "--out", tmp_path / "run"],
    ):
        refused = weft(*arguments)
        assert refused.code == 2
        assert "refused" in refused.err
        assert not trace.exists()


def test_weights_that_do_not_fit_say_what_differs(finished: Path) -> None:
    experiment, weights = finished.parent / "tabular.yaml", finished / "model.safetensors"
    wider = weft("evaluate", experiment, "--weights", weights, "--set", "model.MLP.hidden=[6]")
    assert "layers.0.weight (4×3 in the file, 6×3 in the model)" in wider.err
    deeper = weft("evaluate", experiment, "--weights", weights, "--set", "model.MLP.hidden=[4, 4]")
    assert "the file lacks layers.4.bias" in deeper.err
    assert wider.code == deeper.code == 2


def test_pretrained_weights_of_which_nothing_fits_are_an_error(finished: Path, tmp_path: Path) -> None:
    torch.save({"other": torch.zeros(2)}, tmp_path / "weights.pt")
    settings = ["--set", f"model.weights={tmp_path / 'weights.pt'}"]
    failed = weft("train", finished.parent / "tabular.yaml", *settings, "--out", tmp_path / "run")
    assert failed.code == 2
    assert "none of the 1 tensors" in failed.err


@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors"])
@pytest.mark.parametrize("content", [b"", b"hi\n", b"\x80\x04 half", None])
def test_weights_that_cannot_be_read_are_named(
    name: str, content: bytes | None, finished: Path, tmp_path: Path
) -> None:
    file = tmp_path / name
    if content is not None:
        file.write_bytes(content)
    failed = weft("evaluate", finished.parent / "tabular.yaml", "--weights", file)
    assert failed.code == 2
    assert str(file) in failed.err
    assert "--traceback" not in failed.err


# --- run directories --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [["train", "--resume"], ["evaluate"], ["predict"], ["reproduce"], ["report"]])
@pytest.mark.parametrize("what", ["nowhere", "empty", "other"])
def test_a_folder_that_is_no_run_is_told_with_runs_nearby(
    command: list[str], what: str, finished: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished, tmp_path / "good")
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("")
    failed = weft(*command, tmp_path / what)
    assert failed.code in (1, 2)
    assert str(tmp_path / what) in failed.err
    if what == "nowhere":
        assert str(tmp_path / "good") in failed.err


def test_a_file_is_no_run(finished: Path) -> None:
    file = finished.parent / "tabular.yaml"
    assert "has no weights of its own" in weft("evaluate", file).err
    assert "train first" in weft("predict", file).err
    assert "--out RUN --resume" in weft("train", file, "--resume").err


def test_an_unfinished_run_has_nothing_to_evaluate_predict_or_reproduce(finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    (run / "model.safetensors").unlink()
    (run / "result.json").unlink()
    for command in ("evaluate", "predict", "reproduce"):
        failed = weft(command, run)
        assert failed.code == 2
        assert f"weft train --resume {run}" in failed.err


def test_a_split_that_does_not_exist_is_told_with_those_that_do(finished: Path) -> None:
    for command in ("evaluate", "predict"):
        failed = weft(command, finished, "--split", "tset")
        assert failed.code == 2
        assert "train, validation, test" in failed.err


def test_a_folder_in_use_for_something_else_is_left_alone(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    file = finished.parent / "tabular.yaml"
    refused = weft("train", file, "--out", tmp_path)
    assert "it holds notes.txt" in refused.err
    assert [entry.name for entry in tmp_path.iterdir()] == ["notes.txt"]
    again = weft("train", file, "--out", finished)
    assert "already holds a run" in again.err
    assert refused.code == again.code == 1


@pytest.mark.parametrize("command", ["train", "predict", "evaluate", "reproduce"])
@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_file_in_the_way_of_the_output_is_told(command: str, place: str, finished: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    source = finished.parent / "tabular.yaml" if command == "train" else finished
    failed = weft(command, source, "--out", tmp_path / place)
    assert failed.code == 1
    assert f"cannot write {tmp_path / place}" in failed.err
    assert (tmp_path / "file").read_text() == "mine"


@contextmanager
def anyone() -> Iterator[None]:
    """As a user without privileges for the time being: root may write anywhere."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_an_output_folder_that_cannot_be_written_to_is_told() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = tabular(folder)
        locked = folder / "locked"
        locked.mkdir()
        for path in (folder, locked):
            path.chmod(0o555)
        for arguments in (["--out", locked / "run"], ["--set", f"run.output={locked}"]):
            with anyone():
                failed = weft("train", file, *arguments)
            assert failed.code == 1
            assert "Permission denied" in failed.err
            assert "choose another (run.output or --out)" in failed.err
        folder.chmod(0o755)
