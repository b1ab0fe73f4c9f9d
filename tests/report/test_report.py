from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from tests.report.pages import Page
from tests.report.samples import sample_folds, sample_run
from weft.errors import RunDirectoryError
from weft.report import write_report
from weft.runs import RunDirectory


def page_of(path: Path) -> Page:
    return Page(write_report(path).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    return sample_run(tmp_path_factory.mktemp("report") / "run")


def test_the_report_tells_the_run_in_words_and_numbers(run: RunDirectory) -> None:
    page = page_of(run.path)
    assert "“digits” trains SmallCNN for classification on 1,257 training items, 270 validation items" in page.text
    assert "It finished after 30 epochs (600 steps), in 1 min 15 s on cpu." in page.text
    assert "On the test items, which had no part in training, it reaches accuracy 0.9481" in page.text
    assert "the best by validation loss (0.0987)" in page.text
    assert page.row("Accuracy")[1:] == ["0.9976", "0.9333", "0.9481"]
    assert page.row("MCC")[1:] == ["–", "–", "–"]
    assert page.row("Items")[1:] == ["1,257", "270", "270"]
    assert page.row("Inputs shape")[1:] == ["1 × 8 × 8"] * 3
    assert page.row("Fingerprint")[1] == "3c" * 32
    assert "SmallCNN: {in_channels: 1, classes: 10}" in page.text
    assert f"weft reproduce {run.path}" in page.text


def test_the_figures_are_there_with_title_and_description(run: RunDirectory) -> None:
    html = write_report(run.path).read_text(encoding="utf-8")
    titles = re.findall(r"<figcaption>(.*?)</figcaption>", html)
    assert titles[:4] == ["Loss", "Scores, validation", "Learning rate", "Throughput (items per second)"]
    assert {"Confusion matrix, test", "ROC curve, test", "Precision and recall, test", "Calibration, test"} <= set(
        titles
    )
    figures = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    assert len(figures) == len(titles)
    assert all(
        'role="img"' in figure and "<title>" in figure and re.search(r"<desc>.{20}", figure) for figure in figures
    )
    assert "best: epoch" in figures[0]


def test_the_page_needs_nothing_else_and_is_small(run: RunDirectory) -> None:
    path = write_report(run.path)
    page = Page(path.read_text(encoding="utf-8"))
    assert path.stat().st_size < 2_000_000
    assert not [tag for tag, _ in page.tags if tag in ("script", "img", "iframe", "object")]
    references = [value for _, attributes in page.tags for key in ("src", "href") if (value := attributes.get(key))]
    assert all(value.startswith(("#", "data:")) for value in references)
    assert "url(" not in path.read_text(encoding="utf-8")


def test_the_page_can_be_used_without_seeing_it(run: RunDirectory) -> None:
    page = page_of(run.path)
    tags = [tag for tag, _ in page.tags]
    assert ("html", {"lang": "en"}) in page.tags
    assert {"header", "nav", "main", "footer", "h1"} <= set(tags)
    assert tags.count("h1") == 1
    assert tags.count("caption") == tags.count("table")
    assert all("scope" in attributes for tag, attributes in page.tags if tag == "th")
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    anchors = [href[1:] for _, attributes in page.tags if (href := attributes.get("href")) and href[0] == "#"]
    assert set(anchors) <= set(ids)
    labels = [attributes["aria-labelledby"] for _, attributes in page.tags if "aria-labelledby" in attributes]
    assert set(labels) <= set(ids)


HOSTILE = "<script>alert('x')</script>\"&{{ 7*7 }}"


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    run = sample_run(tmp_path / "run", labels=["benign", HOSTILE], status="failed")
    run.experiment_file.write_text(json.dumps({"name": HOSTILE, "model": {HOSTILE: {}}, "training": {"task": HOSTILE}}))
    run.write_result({"status": HOSTILE, "error": HOSTILE, "scores": {HOSTILE: {HOSTILE: 1.0}}, "resume": HOSTILE})
    run.write_json(run.data_file, {"splits": {HOSTILE: {HOSTILE: HOSTILE, "class_counts": {HOSTILE: 3}}}})
    history = run.history()
    history.append({"epoch": 31, f"validation_{HOSTILE}": 0.5, "validation_loss": 1.0})
    history.close()
    page = page_of(run.path)
    assert not [tag for tag, _ in page.tags if tag == "script"]
    assert not [key for _, attributes in page.tags for key in attributes if key.startswith("on")]
    assert "alert('x')" in page.text
    assert "49" not in page.row(HOSTILE)


def test_secrets_do_not_reach_the_report(run: RunDirectory) -> None:
    assert "hunter2" not in write_report(run.path).read_text(encoding="utf-8")


FILES = ("experiment.yaml", "provenance.json", "data.json", "result.json", "history.csv", "steps.csv", "scores")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["missing", "torn", "wrong"])
def test_what_is_missing_or_damaged_is_said_instead_of_failing(tmp_path: Path, name: str, damage: str) -> None:
    run = sample_run(tmp_path / "run", epochs=4)
    target = run.path / name
    if damage == "missing":
        shutil.rmtree(target) if target.is_dir() else target.unlink()
    for file in [target] if target.is_file() else sorted(target.glob("*.json")):
        file.write_bytes(file.read_bytes()[:40] if damage == "torn" else b"[1, 2")
    page = page_of(run.path)
    assert "digits" in page.text or name == "experiment.yaml"
    if damage == "missing" and name != "steps.csv":
        assert f"{name}" in page.text
        assert "is missing" in page.text


def test_a_run_with_hardly_anything_gets_a_report(tmp_path: Path) -> None:
    with RunDirectory.create(tmp_path / "run") as run:
        run.experiment_file.write_text("name: just begun\n")
    page = page_of(run.path)
    assert "just begun" in page.text
    assert "It has not ended" in page.text
    assert page.text.count("is missing") == 4


def test_a_folder_without_a_run_is_refused_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match="no run has begun"):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        ("failed", "It failed after 3 epochs (60 steps), in 1 min 15 s on cpu."),
        ("stopped", "It was stopped after 3 epochs (60 steps), in 1 min 15 s on cpu and can be resumed."),
    ],
)
def test_a_run_that_did_not_finish_says_so(tmp_path: Path, status: str, sentence: str) -> None:
    page = page_of(sample_run(tmp_path / "run", status=status, epochs=3).path)
    assert sentence in page.text
    assert "weft train --resume runs/x" in page.text
    assert ("the loss is nan in step 123, rows 4, 17 and 33" in page.text) == (status == "failed")


def test_a_rising_validation_loss_is_put_into_words(tmp_path: Path) -> None:
    page = page_of(sample_run(tmp_path / "run", epochs=120).path)
    assert re.search(
        r"After epoch \d+ the validation loss rose from 0\.2\d* to 0\.5\d* while the training loss", page.text
    )


def test_nan_and_infinity_in_the_history_leave_a_gap_only(tmp_path: Path) -> None:
    run = sample_run(tmp_path / "run", epochs=5)
    history = run.history()
    history.append({"epoch": 6, "train_loss": float("nan"), "validation_loss": float("inf")})
    history.close()
    html = write_report(run.path).read_text(encoding="utf-8")
    assert not re.search(r' (d|cx|cy|x|y)="[^"]*(nan|inf)', html)


def test_a_long_history_and_many_classes_keep_the_report_small(tmp_path: Path) -> None:
    labels = [f"class number {index}" for index in range(300)]
    run = sample_run(tmp_path / "run", epochs=5_000, labels=labels)
    path = write_report(run.path)
    assert path.stat().st_size < 2_000_000
    page = Page(path.read_text(encoding="utf-8"))
    assert "Every 25 epochs; history.csv has all." in page.text
    assert "100 more rows in scores/." in page.text


def test_folds_are_summed_up_with_mean_deviation_and_pooled_scores(tmp_path: Path) -> None:
    parent = sample_folds(tmp_path / "run", folds=5)
    write_report(parent.fold(1))
    page = page_of(parent.path)
    assert "5 of 5 folds are finished" in page.text
    assert "accuracy 0.9620 ± 0.0174" in page.text
    assert page.row("Loss")[1:] == ["0.1700", "0.0158", "0.1702"]
    assert page.row("fold-3")[1:] == ["0.1700", "0.9510", "13", "13", "1 min 15 s", "finished"]
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a" and "report.html" in str(attributes)]
    assert links == ["fold-1/report.html"]


def test_folds_that_are_still_running_are_reported_so_far(tmp_path: Path) -> None:
    parent = sample_folds(tmp_path / "run", folds=3)
    parent.summary_file.unlink()
    parent.fold(2).joinpath("result.json").unlink()
    page = page_of(parent.path)
    assert "2 of 3 folds are finished" in page.text
    assert "the folds are not summed up yet" in page.text
    assert page.row("fold-2")[-1] == "unfinished"


def test_a_damaged_confusion_matrix_is_left_out(tmp_path: Path) -> None:
    run = sample_run(tmp_path / "run", epochs=4)
    for counts in ([[1, 2]], "text", [[1, 2], [3]], None):
        matrix = {"labels": ["a", "b"], "counts": counts}
        details = {"confusion_matrix": matrix, "roc": {"a": None}, "pr": 3, "calibration": {"confidence": "x"}}
        run.write_json("scores/test.json", {"split": "test", "scores": {"accuracy": 0.5}, "details": details})
        assert "Confusion matrix, test" not in page_of(run.path).text


def test_the_report_is_replaced_whole_and_may_lie_elsewhere(run: RunDirectory, tmp_path: Path) -> None:
    target = write_report(run.path, tmp_path / "copy.html")
    assert target == tmp_path / "copy.html"
    assert target.read_text(encoding="utf-8").endswith("</html>")
