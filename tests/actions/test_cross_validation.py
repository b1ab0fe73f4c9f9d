"""k folds are k ordinary runs and a summary over them."""

from __future__ import annotations

import json
import shutil
import statistics
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import weft
from tests.cli.lab import TABULAR, good, read_table, rows, write_experiment, write_table
from tests.cli.lab import weft as call
from weft.actions import TrainedRun
from weft.engine import Observer, Step
from weft.errors import Stopped

FOLDS = {**TABULAR["dataset"], "table": {"file": "all.csv"}, "group": "patient"}
FOLDS["split"] = {"folds": 3, "stratified": True, "grouped": True}


def folds(folder: Path, **changes: Any) -> Path:
    """A cross-validation over patients with several rows each."""
    folder.mkdir(exist_ok=True)
    write_table(folder / "all.csv", rows(48, 3))
    return write_experiment(folder, dataset=FOLDS, training__metrics=["accuracy", "auroc"], **changes)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    """A finished cross-validation."""
    folder = tmp_path_factory.mktemp("folds")
    return weft.train(folds(folder), ["run.progress=false"], out=folder / "run")


def read(path: Path) -> Any:
    """A JSON file."""
    return json.loads(path.read_text())


def test_every_patient_is_held_out_in_exactly_one_fold(trained: TrainedRun) -> None:
    patients = [row["patient"] for row in rows(48, 3)]
    held_out: Counter[str] = Counter()
    for number in (1, 2, 3):
        splits = read(trained.path / f"fold-{number}" / "splits.json")["splits"]
        assert set(splits["train"]) & set(splits["validation"]) == set()
        assert len(splits["train"]) + len(splits["validation"]) == 48
        of_fold = {patients[int(case.removeprefix("line ")) - 2] for case in splits["validation"]}
        of_others = {patients[int(case.removeprefix("line ")) - 2] for case in splits["train"]}
        assert of_fold & of_others == set()
        held_out.update(of_fold)
    assert set(held_out) == set(patients)
    assert set(held_out.values()) == {1}


def test_the_summary_has_mean_deviation_and_pooled_scores(trained: TrainedRun) -> None:
    values = [read(trained.path / f"fold-{number}" / "result.json")["scores"]["validation"] for number in (1, 2, 3)]
    summary = read(trained.path / "summary.json")
    for name in ("loss", "accuracy", "auroc"):
        each = [value[name] for value in values]
        assert summary["scores"][name]["mean"] == pytest.approx(statistics.fmean(each))
        assert summary["scores"][name]["standard_deviation"] == pytest.approx(statistics.stdev(each))
    cases = read_table(trained.path / "scores" / "validation.csv")
    assert len(cases) == 48
    assert trained.result["summary"] == summary["scores"]


def test_pooled_scores_are_those_of_all_predictions_together(trained: TrainedRun, tmp_path: Path) -> None:
    right = total = 0
    for number in (1, 2, 3):
        (table,) = weft.predict(trained.path / f"fold-{number}", split="validation", out=tmp_path / str(number))
        truth = {f"line {place}": row["diagnosis"] for place, row in enumerate(rows(48, 3), start=2)}
        predicted = read_table(table)
        right += sum(row["prediction"] == truth[row["case"]] for row in predicted)
        total += len(predicted)
    assert trained.scores["validation"]["accuracy"] == pytest.approx(right / total)


def test_each_fold_is_an_ordinary_run(trained: TrainedRun, tmp_path: Path) -> None:
    fold = trained.path / "fold-2"
    assert weft.evaluate(fold)["scores"] == read(fold / "result.json")["scores"]
    alone = weft.train(folds(tmp_path), ["fold=2", "run.progress=false"], out=tmp_path / "alone")
    assert alone.result["model_sha256"] == read(fold / "result.json")["model_sha256"]
    assert weft.reproduce(fold, ["run.progress=false"], out=tmp_path / "again").identical


def test_the_table_beside_the_runs_has_a_row_for_the_whole_and_one_beside_the_folds_for_each(
    trained: TrainedRun,
) -> None:
    whole = read_table(trained.path.parent / "experiments.csv")
    assert [row["run"] for row in whole] == ["run"]
    assert float(whole[0]["validation.accuracy"]) == trained.scores["validation"]["accuracy"]
    each = read_table(trained.path / "experiments.csv")
    assert [(row["run"], row["fold"]) for row in each] == [("fold-1", "1"), ("fold-2", "2"), ("fold-3", "3")]


def test_commands_that_need_one_run_name_the_folds(trained: TrainedRun) -> None:
    for command in ("evaluate", "predict", "reproduce"):
        refused = call(command, trained.path)
        assert refused.code == 2
        assert "holds 3 folds" in refused.err
        assert str(trained.path / "fold-1") in refused.err
    good("report", trained.path)


def test_a_cross_validation_that_was_stopped_goes_on_to_the_same_end(trained: TrainedRun, tmp_path: Path) -> None:
    class Stopper(Observer):
        def __init__(self) -> None:
            self.steps = 0

        def on_step(self, step: Step) -> None:
            self.steps += 1
            if self.steps == 11:  # in the second fold
                raise Stopped("enough for today", "")

    with pytest.raises(Stopped):
        weft.train(folds(tmp_path), ["run.progress=false"], out=tmp_path / "run", observers=[Stopper()])
    assert (tmp_path / "run" / "fold-1" / "result.json").exists()
    assert not (tmp_path / "run" / "fold-3").exists()
    resumed = weft.resume(tmp_path / "run")
    assert resumed.scores == trained.scores
    for number in (1, 2, 3):
        before, after = (read(path / f"fold-{number}" / "result.json") for path in (trained.path, tmp_path / "run"))
        assert before["model_sha256"] == after["model_sha256"]


def test_a_finished_cross_validation_is_returned_as_it_is(trained: TrainedRun, tmp_path: Path) -> None:
    shutil.copytree(trained.path, tmp_path / "run")
    weights = (tmp_path / "run" / "fold-1" / "model.safetensors").stat().st_mtime_ns
    assert weft.resume(tmp_path / "run").scores == trained.scores
    assert (tmp_path / "run" / "fold-1" / "model.safetensors").stat().st_mtime_ns == weights


def test_split_files_are_folds_too(tmp_path: Path) -> None:
    file = folds(tmp_path)
    (tmp_path / "splits").mkdir()
    cases = [f"line {number}" for number in range(2, 50)]
    for number in range(2):
        held_out = cases[number::2]
        content = {"train": [case for case in cases if case not in held_out], "validation": held_out}
        (tmp_path / "splits" / f"SPLIT_{number}.json").write_text(json.dumps(content))
    settings = ["dataset.split={files: splits}", "run.progress=false"]
    run = weft.train(file, settings, out=tmp_path / "run")
    assert run.result["folds"] == ["fold-1", "fold-2"]
    assert read(run.path / "fold-2" / "splits.json")["splits"]["validation"] == cases[1::2]
