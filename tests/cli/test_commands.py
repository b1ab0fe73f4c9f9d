"""Each command on real input, as a researcher would use it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.cli.lab import CLASSES, call, good, pairs, pictures, read_table, rows, tabular, weft, write_table
from weft.cli import main

RUN_FILES = [
    "experiment.yaml", "provenance.json", "data.json", "splits.json", "statistics.json", "history.csv", "steps.csv",
    "model.safetensors", "result.json", "report.html", "requirements.txt", "log.txt",
]  # fmt: skip


def test_train_ends_with_the_run_directory_and_says_all_else_on_standard_error(tmp_path: Path) -> None:
    trained = good("train", tabular(tmp_path), "--set", "run.log_every=2", "--out", tmp_path / "run")
    assert trained.out == f"{tmp_path / 'run'}\n"
    assert "epoch 2/2" in trained.err
    assert "accuracy" in trained.err
    assert f"report: {tmp_path / 'run' / 'report.html'}" in trained.err
    for name in RUN_FILES:
        assert (tmp_path / "run" / name).is_file(), name
    assert "finished" in (tmp_path / "run" / "log.txt").read_text()


def test_train_without_out_makes_a_new_folder_under_runs_beside_the_file(tmp_path: Path) -> None:
    file = tabular(tmp_path)
    first, second = (Path(good("-q", "train", file).last_line) for _ in range(2))
    assert first.parent == second.parent == tmp_path / "runs"
    assert first != second
    assert {row["run"] for row in read_table(tmp_path / "runs" / "experiments.csv")} == {first.name, second.name}


def test_quiet_leaves_standard_error_empty(tmp_path: Path) -> None:
    assert good("--quiet", "train", tabular(tmp_path), "--out", tmp_path / "run").err == ""


def test_set_replaces_what_is_written(tmp_path: Path) -> None:
    trained = good("train", tabular(tmp_path), "--set", "training.epochs=1", "-s", "seed=9", "--out", tmp_path / "run")
    assert "epoch 1/1" in trained.err
    assert good("show", tmp_path / "run", "--json").json["experiment"]["seed"] == 9


def test_evaluate_gives_the_scores_of_training_again(finished: Path, tmp_path: Path) -> None:
    evaluated = good("evaluate", finished, "--json", "--out", tmp_path).json
    result = json.loads((finished / "result.json").read_text())
    assert evaluated == {"scores": result["scores"], "model_sha256": result["model_sha256"]}
    assert json.loads((tmp_path / "test.json").read_text())["scores"] == result["scores"]["test"]
    assert len(read_table(tmp_path / "test.csv")) == 12


def test_evaluate_prints_a_table_of_scores(finished: Path) -> None:
    lines = good("evaluate", finished, "--split", "test", "--split", "train").out.splitlines()
    assert lines[0].split() == ["train", "test"]
    assert [line.split()[0] for line in lines[1:]] == ["loss", "accuracy"]


@pytest.mark.parametrize("weights", ["model.safetensors", "checkpoints/best-*.pt", "checkpoints/last-*.pt"])
def test_evaluate_needs_no_training_where_there_are_weights(finished: Path, weights: str) -> None:
    file = sorted(finished.glob(weights))[-1]
    scored = good("evaluate", finished.parent / "tabular.yaml", "--weights", file, "--json").json
    assert scored == good("evaluate", finished, "--json").json


def test_evaluate_scores_other_data(finished: Path, tmp_path: Path) -> None:
    table = write_table(tmp_path / "other.csv", rows(9, 77))
    scored = good("evaluate", finished, "--split", "test", "--set", f"dataset.table.test={table}", "--json").json
    assert list(scored["scores"]) == ["test"]
    assert scored["scores"] != {"test": good("evaluate", finished, "--json").json["scores"]["test"]}


def test_predict_names_classes_and_gives_probabilities(finished: Path, tmp_path: Path) -> None:
    predicted = good("predict", finished, "--out", tmp_path)
    assert predicted.out == f"{tmp_path / 'test.csv'}\n"
    table = read_table(tmp_path / "test.csv")
    assert len(table) == 12
    assert list(table[0]) == ["case", "prediction", *(f"probability_{name}" for name in CLASSES)]
    for row in table:
        probabilities = {name: float(row[f"probability_{name}"]) for name in CLASSES}
        assert sum(probabilities.values()) == pytest.approx(1, abs=1e-5)
        assert row["prediction"] == max(probabilities, key=lambda name: probabilities[name])


def test_predict_writes_into_the_run_and_takes_other_splits(finished: Path) -> None:
    predicted = good("predict", finished, "--split", "validation", "--json").json
    assert predicted == {"files": [str(finished / "predictions" / "validation.csv")]}


def test_new_data_are_predicted_without_their_answers_and_without_the_training_data(tmp_path: Path) -> None:
    folder = tmp_path / "there"
    run = good("-q", "train", tabular(folder), "--out", tmp_path / "run").last_line
    known = good("predict", run, "--out", tmp_path / "known")
    columns = ("patient", "age", "weight", "volume")
    asked = [{name: row[name] for name in columns} for row in read_table(folder / "test.csv")]
    table = write_table(tmp_path / "new.csv", asked)
    for file in folder.iterdir():
        file.unlink() if file.is_file() else None
    predicted = good("predict", run, "--set", f"dataset.table.test={table}", "--out", tmp_path / "new")
    assert read_table(tmp_path / "new" / "test.csv") == read_table(Path(known.last_line))
    assert predicted.code == 0


def test_data_that_moved_are_found_by_their_new_folder(tmp_path: Path) -> None:
    run = good("-q", "train", tabular(tmp_path / "here"), "--out", tmp_path / "run").last_line
    before = good("evaluate", run, "--json").json
    (tmp_path / "here").rename(tmp_path / "there")
    lost = weft("evaluate", run)
    assert lost.code == 2
    assert str(tmp_path / "here" / "train.csv") in lost.err
    assert good("evaluate", run, "--base", tmp_path / "there", "--json").json == before
    assert good("-q", "reproduce", run, "--base", tmp_path / "there", "--json").json["identical"] is True


def test_reproduce_says_identical(finished: Path, tmp_path: Path) -> None:
    again = good("-q", "reproduce", finished, "--out", tmp_path / "again")
    assert again.out.splitlines()[0] == f"identical: {finished} and {tmp_path / 'again'}"
    assert json.loads((tmp_path / "again" / "result.json").read_text())["status"] == "finished"


def test_reproduce_names_what_differs_and_fails(finished: Path, tmp_path: Path) -> None:
    arguments = ["reproduce", finished, "--out", tmp_path / "again", "--set", "training.optimizer.AdamW.lr=0.02"]
    again = weft("-q", *arguments, "--json")
    assert again.code == 1
    assert again.json["identical"] is False
    assert again.json["differences"]
    assert any(cause.startswith("fingerprint") for cause in again.json["causes"])


def test_report_is_written_anew(finished: Path) -> None:
    (finished / "report.html").unlink()
    assert good("report", finished).out == f"{finished / 'report.html'}\n"
    assert "accuracy" in (finished / "report.html").read_text()
    assert good("report", finished, "--json").json == {"reports": [str(finished / "report.html")]}


def test_show_prints_the_experiment_that_gives_the_same_fingerprint(finished: Path, tmp_path: Path) -> None:
    file = finished.parent / "tabular.yaml"
    shown = good("show", file).out
    fingerprint = good("show", file, "--json").json["fingerprint"]
    assert f"# fingerprint: {fingerprint}" in shown
    (finished.parent / "shown.yaml").write_text(shown)
    assert good("show", finished.parent / "shown.yaml", "--json").json["fingerprint"] == fingerprint
    assert good("show", finished, "--json").json["fingerprint"] == fingerprint


def test_components_lists_and_explains(tmp_path: Path) -> None:
    assert "MLP(" in good("components", "model").out
    explained = good("components", "MLP").out
    assert "in_features: a whole number, must be given" in explained
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n\n\n"
        "class Mine(nn.Module):\n    def __init__(self, width: int = 3) -> None:\n        super().__init__()\n"
    )
    entry = good("components", "Mine", "--patch", tmp_path / "mine.py", "--json").json[0]
    assert entry["kind"] == "model"
    assert entry["arguments"][0]["name"] == "width"


def test_schema_is_json_schema() -> None:
    schema = good("schema").json
    assert {"dataset", "model", "training"} <= set(schema["properties"])


def test_pictures_in_a_table_with_a_path_column(tmp_path: Path) -> None:
    run = good("-q", "train", pictures(tmp_path), "--out", tmp_path / "run").last_line
    good("predict", run, "--out", tmp_path / "out")
    table = read_table(tmp_path / "out" / "test.csv")
    assert {row["prediction"] for row in table} <= {"dark", "bright"}
    new = write_table(tmp_path / "new.csv", [{"file": "pictures/1.png"}, {"file": "pictures/2.png"}])
    good("predict", run, "--set", f"dataset.table={{test: {new}}}", "--out", tmp_path / "new")
    assert [row["case"] for row in read_table(tmp_path / "new" / "test.csv")] == ["1", "2"]


def test_segmentations_are_predicted_as_label_maps(tmp_path: Path) -> None:
    run = good("-q", "train", pairs(tmp_path), "--set", "run.predictions=true", "--out", tmp_path / "run").last_line
    table = read_table(Path(run) / "predictions" / "test.csv")
    assert [row["case"] for row in table] == ["0", "1", "2"]
    for row in table:
        labels = np.load(Path(run) / "predictions" / row["label"], allow_pickle=False)
        assert labels.shape == (8, 8)
        assert set(np.unique(labels)) <= {0, 1}
    again = good("predict", run, "--out", tmp_path / "again", "--json").json["files"]
    assert len(again) == 4
    assert {"dice", "dice_1", "hd95"} <= set(read_table(Path(run) / "scores" / "test.csv")[0])


def test_a_regression_is_predicted_in_one_column_and_several_by_their_names(tmp_path: Path) -> None:
    changes = {"training__task": "regression", "training__metrics": ["mae"]}
    file = tabular(tmp_path, dataset__targets=["score"], model__MLP__out_features=1, **changes)
    run = good("-q", "train", file, "--out", tmp_path / "one").last_line
    good("predict", run)
    assert list(read_table(tmp_path / "one" / "predictions" / "test.csv")[0]) == ["case", "prediction"]
    file = tabular(tmp_path, dataset__targets=["score", "fever"], model__MLP__out_features=2, **changes)
    run = good("-q", "train", file, "--out", tmp_path / "two").last_line
    good("predict", run)
    columns = ["case", "prediction_score", "prediction_fever"]
    assert list(read_table(tmp_path / "two" / "predictions" / "test.csv")[0]) == columns


def test_several_labels_at_once(tmp_path: Path) -> None:
    file = tabular(
        tmp_path,
        dataset__targets=["fever", "cough"],
        model__MLP__out_features=2,
        training__task={"classification": {"kind": "multilabel"}},
        training__metrics=["accuracy", "auroc"],
    )
    run = good("-q", "train", file, "--out", tmp_path / "run").last_line
    good("predict", run)
    row = read_table(tmp_path / "run" / "predictions" / "test.csv")[0]
    assert list(row) == ["case", "prediction_fever", "prediction_cough", "probability_fever", "probability_cough"]


def test_two_networks_in_an_own_task(tmp_path: Path) -> None:
    example = Path(__file__).parents[2] / "examples" / "gan" / "digits_gan.yaml"
    settings = ["--set", "training.epochs=1", "--set", "training.steps=3", "--set", "run.num_workers=0"]
    run = good("-q", "train", example, *settings, "--out", tmp_path / "run").last_line
    scores = json.loads((tmp_path / "run" / "result.json").read_text())["scores"]
    assert good("evaluate", run, "--json").json["scores"] == scores
    good("predict", run, "--split", "validation", "--out", tmp_path / "out")
    assert list(read_table(tmp_path / "out" / "validation.csv")[0]) == ["case", "output"]


def test_lowered_precision_and_averaged_weights(tmp_path: Path) -> None:
    file = tabular(tmp_path)
    for name, setting in {"bf16": "precision=bf16", "fp16": "precision=fp16", "ema": "ema.decay=0.9"}.items():
        run = good("-q", "train", file, "--set", f"training.{setting}", "--out", tmp_path / name).last_line
        scores = json.loads((tmp_path / name / "result.json").read_text())["scores"]
        assert good("evaluate", run, "--json").json["scores"] == scores


def test_pretrained_weights_stay_where_they_are_frozen_and_move_from_the_epoch_where_they_are_not(
    finished: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    file, weights = tabular(tmp_path), finished / "model.safetensors"
    frozen = ["--set", f"model.weights={weights}", "--set", "model.freeze=[layers.0]"]
    good("-q", "train", file, *frozen, "--out", tmp_path / "frozen")
    good("-q", "train", file, *frozen, "--set", "model.unfreeze={2: [layers.0]}", "--out", tmp_path / "thawed")
    before = load_file(weights)
    kept, thawed = (load_file(tmp_path / name / "model.safetensors") for name in ("frozen", "thawed"))
    assert torch.equal(kept["layers.0.weight"], before["layers.0.weight"])
    assert not torch.equal(kept["layers.2.weight"], before["layers.2.weight"])
    assert not torch.equal(thawed["layers.0.weight"], before["layers.0.weight"])


def test_a_run_that_began_with_pretrained_weights_is_evaluated_without_their_file(
    finished: Path, tmp_path: Path
) -> None:
    weights = tmp_path / "pretrained.safetensors"
    weights.write_bytes((finished / "model.safetensors").read_bytes())
    settings = ["--set", f"model.weights={weights}", "--out", tmp_path / "run"]
    run = good("-q", "train", tabular(tmp_path), *settings).last_line
    weights.unlink()
    assert good("evaluate", run, "--json").json["scores"]


PROGRAM = """
import torch
from torch import nn

from weft import Experiment
from weft.config import Component


class Net(nn.Module):
    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, 3))

    def forward(self, inputs):
        print("the model speaks")
        return self.layers(inputs)


def smooth(outputs, targets):
    return nn.functional.cross_entropy(outputs, targets, label_smoothing=0.1)


def hits(outputs, targets):
    return (outputs.argmax(1) == targets).float()


experiment = Experiment(
    dataset={
        "table": {"train": "train.csv", "validation": "validation.csv", "test": "test.csv"},
        "inputs": ["age", "weight", "volume"],
        "targets": ["diagnosis"],
    },
    model=Component.of(Net, width=6),
    training={
        "task": "classification",
        "epochs": 1,
        "batch_size": 8,
        "optimizer": Component.of(torch.optim.SGD, lr=0.1),
        "loss": smooth,
        "metrics": ["accuracy", hits],
    },
    run={"device": "cpu", "num_workers": 0, "threads": 1},
)
"""


def test_an_experiment_in_python_with_classes_and_functions(tmp_path: Path) -> None:
    tabular(tmp_path)
    (tmp_path / "program.py").write_text(PROGRAM)
    trained = good("-q", "train", tmp_path / "program.py", "--out", tmp_path / "run", "--json")
    assert "the model speaks" in trained.err
    scores = trained.json["scores"]["test"]
    assert scores["hits"] == scores["accuracy"]
    (tmp_path / "program.py").unlink()  # the run has its own copy
    assert good("evaluate", tmp_path / "run", "--json").json["scores"] == trained.json["scores"]
    assert good("-q", "reproduce", tmp_path / "run", "--out", tmp_path / "again", "--json").json["identical"]


def test_version_and_help_speak_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--version"], ["--help"]):
        with pytest.raises(SystemExit) as end:
            main(arguments)
        assert end.value.code == 0
        assert "weft" in capsys.readouterr().out


def test_traceback_is_shown_to_who_asks_for_it(tmp_path: Path) -> None:
    failed = call("--traceback", "train", tmp_path / "nothing.yaml")
    assert failed.code == 2
    assert "Traceback" in failed.err
    assert "nothing.yaml: does not exist" in failed.err
