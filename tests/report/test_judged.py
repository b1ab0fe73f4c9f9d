"""What the report says about scores: intervals, the trivial model, cases, groups, time."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.report.pages import Page
from tests.report.samples import case_run, sample_run
from weft.errors import UsageError
from weft.metrics import build_scores
from weft.report import write_report
from weft.report.curves import joined_bins
from weft.report.phases import phases, time_table
from weft.runs import RunDirectory


def page_of(run: RunDirectory, *by: str) -> Page:
    return Page(write_report(run.path, by=by).read_text(encoding="utf-8"))


def scores_of(run: RunDirectory, split: str) -> dict[str, float]:
    scores: dict[str, float] = run.read_json(f"scores/{split}.json")["scores"]
    return scores


CELL = re.compile(r"^(?P<value>\S+) \[(?P<low>\S+), (?P<high>\S+)\](?: trivial (?P<trivial>\S+))?$")


def test_scores_stand_with_interval_and_trivial_value(tmp_path: Path) -> None:
    run = case_run(tmp_path / "run")
    page = page_of(run)
    for name, shown in (("accuracy", "Accuracy"), ("f1", "F1"), ("auroc", "AUROC")):
        for split, cell in zip(("train", "validation", "test"), page.row(shown)[1:]):
            match = CELL.match(" ".join(cell.split()))
            assert match is not None, cell
            value = scores_of(run, split)[name]
            assert match["value"] == f"{value:.4f}"
            assert float(match["low"]) <= value <= float(match["high"])
            assert float(match["trivial"]) < value
    assert "1,000 bootstrap resamples of cases" in page.text
    assert "Without interval: loss" in page.text
    assert re.search(r"A trivial model that always answers “\d”, the most frequent class in training", page.text)


def test_the_trivial_model_is_the_majority_of_the_training_split(tmp_path: Path) -> None:
    run = case_run(tmp_path / "run", sizes={"train": 61, "test": 40})
    rows = list(csv.DictReader((run.scores / "train.csv").open()))
    targets = [row["target"] for row in rows]
    majority = max(set(targets), key=targets.count)
    test = [row["target"] for row in csv.DictReader((run.scores / "test.csv").open())]
    page = page_of(run)
    assert f"trivial {test.count(majority) / len(test):.4f}" in " ".join(page.row("Accuracy")[2].split())
    assert "trivial 0.5000" in " ".join(page.row("AUROC")[2].split())


@pytest.mark.parametrize(
    ("kind", "metrics", "sentence", "trivial"),
    [
        ("regression", ("mae", "r2"), "always answers the mean of the training targets", None),
        ("segmentation", ("dice", "hd95"), "finds nothing but background", "trivial 0"),
        ("multilabel", ("accuracy",), "gives every label the answer that is more frequent in training", None),
    ],
)
def test_every_kind_of_task_has_its_trivial_model(
    tmp_path: Path, kind: str, metrics: tuple[str, ...], sentence: str, trivial: str | None
) -> None:
    page = page_of(case_run(tmp_path / "run", kind, metrics))
    assert sentence in page.text
    heading = {"mae": "MAE", "dice": "Dice", "accuracy": "Accuracy"}[metrics[0]]
    cell = " ".join(page.row(heading)[3].split())
    assert "[" in cell
    assert (trivial or "trivial ") in cell
    assert not re.search(r"\bnan\b", page.text)


def test_a_network_that_is_no_better_is_told_so(tmp_path: Path) -> None:
    page = page_of(case_run(tmp_path / "run", noise=500.0))
    assert "the network is not clearly better than that" in page.text
    assert "not clearly better" not in page_of(case_run(tmp_path / "good", noise=0.5)).text


def test_scores_that_rows_contradict_have_no_interval_and_say_why(tmp_path: Path) -> None:
    run = case_run(tmp_path / "run")
    content = run.read_json("scores/test.json")
    content["scores"]["accuracy"] = 0.1234
    run.write_json("scores/test.json", content)
    page = page_of(run)
    assert page.row("Accuracy")[3] == "0.1234"
    assert re.search(r"Without interval: .*accuracy \(test\); the rows of cases give 0\.\d+", page.text)


def test_damaged_rows_are_said_instead_of_failing(tmp_path: Path) -> None:
    run = case_run(tmp_path / "run")
    (run.scores / "test.csv").write_text("case,target\nonly one cell\n")
    page = page_of(run)
    assert "test.csv is damaged" in page.text
    assert "[" not in page.row("Accuracy")[3]


def test_curves_are_there_when_only_accuracy_was_asked_for(tmp_path: Path) -> None:
    html = write_report(case_run(tmp_path / "run", metrics=("accuracy",)).path).read_text(encoding="utf-8")
    titles = re.findall(r"<figcaption>(.*?)</figcaption>", html)
    assert {"ROC curve, test", "Precision and recall, test", "Calibration, test"} <= set(titles)


# --- cases ------------------------------------------------------------------------------------------------------------


def test_worst_and_best_cases_are_those_of_the_rows(tmp_path: Path) -> None:
    run = case_run(tmp_path / "run")
    rows = list(csv.DictReader((run.scores / "test.csv").open()))
    by_truth = sorted(rows, key=lambda row: float(row[f"probability_{row['target']}"]))
    shown = page_of(run).rows("Case")
    assert [row[0] for row in shown] == [row["case"] for row in by_truth[:8]]
    assert shown[0][1:3] == [by_truth[0]["target"], by_truth[0]["prediction"]]


@pytest.mark.parametrize(
    ("kind", "metrics", "column"), [("segmentation", ("dice",), "dice"), ("regression", ("mae",), None)]
)
def test_worst_cases_of_other_tasks(tmp_path: Path, kind: str, metrics: tuple[str, ...], column: str | None) -> None:
    run = case_run(tmp_path / "run", kind, metrics)
    rows = list(csv.DictReader((run.scores / "test.csv").open()))
    if column is not None:
        expected = min(rows, key=lambda row: float(row[column]))
    else:
        expected = max(rows, key=lambda row: abs(float(row["target"]) - float(row["prediction"])))
    page = page_of(run)
    assert page.rows("Case")[0][0] == expected["case"]
    assert ("Dice per case, test" if column else "Predicted against true, test") in page.text


def test_hostile_names_of_cases_and_classes_stay_text(tmp_path: Path) -> None:
    run = case_run(tmp_path / "run", groups=4)
    file, hostile = run.scores / "test.csv", "<script>alert('x')</script>&\"{{ 7*7 }}"
    rows = list(csv.DictReader(file.open()))
    rows[0]["case"] = hostile
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, [*rows[0], hostile])
        writer.writeheader()
        writer.writerows({**row, hostile: hostile if index % 2 else "other"} for index, row in enumerate(rows))
    page = page_of(run, hostile)
    assert not [tag for tag, _ in page.tags if tag == "script"]
    assert hostile in page.text


# --- groups -----------------------------------------------------------------------------------------------------------


def group_accuracy(run: RunDirectory, column: str, value: str) -> float:
    rows = [row for row in csv.DictReader((run.scores / "test.csv").open()) if row[column] == value]
    return sum(row["target"] == row["prediction"] for row in rows) / len(rows)


def test_scores_by_a_column_of_the_rows(tmp_path: Path) -> None:
    run = case_run(tmp_path / "run")
    page = page_of(run, "target")
    for row in page.rows("Target"):
        assert row[2] == f"{group_accuracy(run, 'target', row[0]):.4f}"
    assert "Accuracy by target, test" in page.text


def test_the_groups_of_the_data_are_shown_and_drawn_whole(tmp_path: Path) -> None:
    run = case_run(tmp_path / "run", groups=4)
    page = page_of(run)
    assert "40 cases in 11 groups" in page.text
    assert "bootstrap resamples of groups (group)" in page.text
    groups = page.rows("Group")
    assert sum(int(row[1]) for row in groups) == 40
    values = [float(row[2]) for row in groups]
    assert values == sorted(values)


TABLE = """\
name: table
seed: 1
dataset:
  table: {{{where}}}
  inputs: [x]
  targets: [y]
{case}training: {{task: classification}}
"""


def with_table(tmp_path: Path, cells: list[str], *, case: str = "  case: scan\n") -> RunDirectory:
    run = case_run(tmp_path / "run", experiment=TABLE.format(where="file: data.csv", case=case))
    names = [name for cases in run.read_json("splits.json")["splits"].values() for name in cases]
    lines = [f"{name},{cell},{index}" for index, (name, cell) in enumerate(zip(names, cells))]
    (tmp_path / "data.csv").write_text("\n".join(["scan,site,age", *lines]) + "\n")
    return run


def test_scores_by_a_column_of_the_experiments_table(tmp_path: Path) -> None:
    run = with_table(tmp_path, [["Rome", "Lund"][index % 2] for index in range(130)])
    rows = page_of(run, "site").rows("Site")
    assert {row[0]: row[1] for row in rows} == {"Rome": "20", "Lund": "20"}
    cases = list(csv.DictReader((run.scores / "test.csv").open()))
    right = [row["target"] == row["prediction"] for row in cases if int(row["case"].split()[1]) % 2 == 0]
    assert next(row[2] for row in rows if row[0] == "Rome") == f"{sum(right) / 20:.4f}"


def test_a_column_of_many_numbers_is_cut_into_quarters(tmp_path: Path) -> None:
    rows = page_of(with_table(tmp_path, ["x"] * 130), "age").rows("Age")
    assert [row[0] for row in rows] == ["90 to 99.75", "99.75 to 109.5", "109.5 to 119.25", "119.25 to 129"]
    assert [row[1] for row in rows] == ["10"] * 4


def test_cases_without_names_are_found_by_their_line(tmp_path: Path) -> None:
    run = with_table(tmp_path, [["a", "b"][index % 2] for index in range(130)], case="")
    for split in ("train", "validation", "test"):
        file = run.scores / f"{split}.csv"
        file.write_text(re.sub(r"(?m)^case (\d+),", lambda match: f"line {int(match[1]) + 2},", file.read_text()))
    assert {row[0]: row[1] for row in page_of(run, "site").rows("Site")} == {"a": "20", "b": "20"}


def test_a_column_that_there_is_not_is_named_with_the_nearest(tmp_path: Path) -> None:
    run = with_table(tmp_path, ["x"] * 130)
    with pytest.raises(UsageError, match="have a column 'sit'") as caught:
        write_report(run.path, by=["sit"])
    assert "did you mean 'site'?" in caught.value.hint
    with pytest.raises(UsageError, match="has no rows of cases"):
        write_report(sample_run(tmp_path / "other").path, by=["site"])


def test_a_case_with_several_values_and_a_changed_table_are_errors(tmp_path: Path) -> None:
    run = with_table(tmp_path, ["x"] * 130)
    table = tmp_path / "data.csv"
    text = table.read_text()
    table.write_text(text + "case 95,other,3\n")
    with pytest.raises(UsageError, match="case 'case 95' has several values of 'site'"):
        write_report(run.path, by=["site"])
    table.write_text("\n".join(text.splitlines()[:100]) + "\n")
    with pytest.raises(UsageError, match="are not in the tables"):
        write_report(run.path, by=["site"])


# --- the rest ---------------------------------------------------------------------------------------------------------


def test_time_is_told_by_phase() -> None:
    history: list[dict[str, Any]] = [
        {"epoch": n, "seconds_train": 3.0, "seconds_validation": 1.0} for n in range(1, 11)
    ]
    found = phases(history, {"seconds": 60.0})
    assert [(phase.name, phase.seconds) for phase in found] == [
        ("training", 30.0), ("validation", 10.0), ("start, saving, final scores", 20.0),
    ]  # fmt: skip
    table = time_table(found, history)
    assert table is not None
    assert table.rows[0] == ["Training", "30 s", "50%", "3 s"]
    assert len(phases(history, {"seconds": 5.0})) == 2  # resumed: the seconds are those of the last session
    assert phases([], {"seconds": 5.0}) == []


def test_folds_have_an_interval_of_the_pooled_score(tmp_path: Path) -> None:
    from tests.report.samples import sample_folds

    parent = sample_folds(tmp_path / "run", folds=3)
    book = build_scores(["accuracy"], kind="multiclass", classes=3)
    targets = torch.randint(0, 3, (90,), generator=torch.Generator().manual_seed(0))
    outputs = 2.0 * torch.nn.functional.one_hot(targets, 3) + torch.randn(
        90, 3, generator=torch.Generator().manual_seed(1)
    )
    book.update(outputs, targets, cases=[str(n) for n in range(90)])
    rows = [{"fold": f"fold-{n % 3 + 1}", **row} for n, row in enumerate(book.case_rows())]
    content = {"split": "validation", "scores": book.compute(), "details": book.details()}
    parent.write_json("scores/validation.json", content)
    with (parent.scores / "validation.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    page = page_of(parent, "fold")
    row = page.row("Accuracy")
    assert row[4].startswith("[0.")
    assert float(row[5]) < 0.6
    assert [row[1] for row in page.rows("Fold") if row[0].startswith("fold-")] == ["0.1900", "0.1800", "0.1700"]
    assert "Accuracy by fold, validation" in page.text


def test_bins_of_few_items_are_joined() -> None:
    points = [(0.1, 0.0), (0.3, 1.0), (0.5, float("nan")), (0.7, 0.5), (0.9, 1.0)]
    joined = [value for point in joined_bins(points, [10, 10, 0, 100, 2]) for value in point]
    assert joined == pytest.approx([0.2, 0.5, 0.7 + 0.2 * 2 / 102, 52 / 102])
    assert joined_bins(points, None) == [point for point in points if point[1] == point[1]]
    assert joined_bins([(0.5, float("nan"))], [0]) == []


@pytest.mark.slow
def test_a_hundred_thousand_cases_fit_into_a_small_page(tmp_path: Path) -> None:
    run = case_run(tmp_path / "run", "binary", sizes={"train": 70_000, "validation": 15_000, "test": 15_000}, groups=3)
    path = write_report(run.path)
    assert path.stat().st_size < 2_000_000
    assert "[" in Page(path.read_text(encoding="utf-8")).row("AUROC")[1]


def test_the_page_stays_valid_for_every_kind(tmp_path: Path) -> None:
    for kind, metrics in (
        ("binary", ("accuracy", "brier")),
        ("regression", ("r2",)),
        ("segmentation", ("dice", "assd")),
    ):
        run = case_run(tmp_path / kind, kind, metrics, groups=5)
        html = write_report(run.path).read_text(encoding="utf-8")
        page = Page(html)
        ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
        assert len(ids) == len(set(ids))
        assert not re.search(r' (d|cx|cy|x|y|width|height)="[^"]*(nan|inf)', html)
        assert json.dumps(page.text)
