"""Comparing runs: what differs, and tests on the same cases that find what is there and nothing else."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from tests.report.pages import Page
from tests.report.samples import case_run, sample_folds, sample_run
from weft.actions import compare
from weft.errors import RunDirectoryError, UsageError
from weft.report.comparepage import summary
from weft.report.comparingscores import ComparedScore
from weft.report.comparison import RunComparison, distinct_names
from weft.runs import RunDirectory


def score(comparison: RunComparison, name: str) -> ComparedScore:
    assert comparison.scores is not None
    return next(one for one in comparison.scores.scores if one.name == name)


def test_a_run_does_not_differ_from_its_copy(tmp_path: Path) -> None:
    comparison = compare([case_run(tmp_path / name).path for name in "ab"])
    assert [one.key for one in comparison.configuration] == ["name"]
    assert comparison.environment == comparison.code == []
    assert not comparison.data[0].any
    assert comparison.scores is not None
    assert comparison.scores.cases == [40, 40]
    for one in comparison.scores.scores:
        test = one.tests[1]
        assert test is None or (test.difference, test.p) == (0.0, 1.0)
        assert one.verdict(1) == ""


def test_a_worse_network_is_found_with_interval_and_p_value(tmp_path: Path) -> None:
    runs = [
        case_run(tmp_path / "good", noise=0.5, sizes={"test": 80}),
        case_run(tmp_path / "bad", noise=4.0, sizes={"test": 80}),
    ]
    comparison = compare([run.path for run in runs])
    accuracy = score(comparison, "accuracy")
    test = accuracy.tests[1]
    assert test is not None
    assert test.method == "McNemar"
    assert test.interval is not None
    assert test.interval.low <= test.difference <= test.interval.high < 0
    assert accuracy.verdict(1) == "worse"
    assert (accuracy.corrected[1] or 0) >= test.p
    assert score(comparison, "loss").tests == [None, None]
    back = score(compare([run.path for run in reversed(runs)]), "accuracy")
    assert back.verdict(1) == "better"
    other = back.tests[1]
    assert other is not None
    assert other.difference == pytest.approx(-test.difference)
    assert other.p == test.p


def test_p_values_are_corrected_over_all_runs_and_scores(tmp_path: Path) -> None:
    comparison = compare([case_run(tmp_path / str(number), seed=number).path for number in range(4)])
    assert comparison.scores is not None
    assert comparison.scores.tests == 9
    made = [
        (test.p, corrected)
        for one in comparison.scores.scores
        for test, corrected in zip(one.tests, one.corrected)
        if test and corrected is not None
    ]
    smallest = min(made)
    assert smallest[1] == pytest.approx(min(1.0, 9 * smallest[0]))
    assert all(corrected >= p for p, corrected in made)


def test_groups_are_exchanged_and_drawn_whole(tmp_path: Path) -> None:
    comparison = compare([case_run(tmp_path / str(number), seed=number, groups=4).path for number in range(2)])
    assert comparison.scores is not None
    assert comparison.scores.grouped
    test = score(comparison, "accuracy").tests[1]
    assert test is not None
    assert test.method == "randomisation"


def test_scores_that_one_run_did_not_ask_for_are_computed_from_its_rows(tmp_path: Path) -> None:
    runs = [
        case_run(tmp_path / "a", metrics=("accuracy", "mcc")),
        case_run(tmp_path / "b", metrics=("accuracy",), seed=1),
    ]
    both = case_run(tmp_path / "c", metrics=("accuracy", "mcc"), seed=1)
    comparison = compare([run.path for run in runs])
    expected = both.read_json("scores/test.json")["scores"]["mcc"]
    assert score(comparison, "mcc").values[1] == pytest.approx(expected)
    assert score(comparison, "mcc").tests[1] is not None


def drop(run: RunDirectory, count: int) -> None:
    file = run.scores / "test.csv"
    lines = file.read_text().splitlines()
    file.write_text("\n".join([lines[0], *reversed(lines[1 + count :])]) + "\n")


def test_runs_are_paired_by_case_in_any_order(tmp_path: Path) -> None:
    first, second, whole = (case_run(tmp_path / str(number), seed=number > 0) for number in range(3))
    drop(second, 0)
    shuffled, straight = (score(compare([first.path, other.path]), "accuracy").tests[1] for other in (second, whole))
    assert shuffled == straight


def test_only_shared_cases_are_tested(tmp_path: Path) -> None:
    first, second = (case_run(tmp_path / str(number), seed=number) for number in range(2))
    drop(first, 15)
    content = first.read_json("scores/test.json")
    rows = list(csv.DictReader((first.scores / "test.csv").open()))
    content["scores"] = {"accuracy": sum(row["target"] == row["prediction"] for row in rows) / len(rows)}
    first.write_json("scores/test.json", content)
    comparison = compare([first.path, second.path])
    assert comparison.scores is not None
    assert comparison.scores.cases == [25, 25]
    assert "Run 2 is tested on the 25 cases that it shares with run 1." in comparison.scores.notes


def lose_rows(run: RunDirectory) -> None:
    (run.scores / "test.csv").unlink()


def change_truth(run: RunDirectory) -> None:
    file = run.scores / "test.csv"
    rows = list(csv.DictReader(file.open()))
    other = {"0": "1", "1": "2", "2": "0"}
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(
            {**row, "target": other[row["target"]] if index < 3 else row["target"]} for index, row in enumerate(rows)
        )


def rename_cases(run: RunDirectory) -> None:
    file = run.scores / "test.csv"
    file.write_text(file.read_text().replace("case ", "other "))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lose_rows, "there are no rows of cases"),
        (change_truth, "3 cases have another truth than in run 1"),
        (rename_cases, "it has no cases in common with run 1"),
    ],
)
def test_what_cannot_be_tested_says_why(tmp_path: Path, damage: Any, reason: str) -> None:
    first, second = (case_run(tmp_path / str(number), seed=number) for number in range(2))
    damage(second)
    comparison = compare([first.path, second.path])
    assert comparison.scores is not None
    assert comparison.scores.tests == 0
    assert comparison.scores.notes == [f"Run 2 is not tested: {reason}."]
    assert score(comparison, "accuracy").values[1] is not None


def test_runs_of_other_tasks_are_shown_beside_each_other_but_not_tested(tmp_path: Path) -> None:
    runs = [case_run(tmp_path / "a"), case_run(tmp_path / "b", "regression", ("mae",))]
    comparison = compare([run.path for run in runs])
    assert comparison.scores is not None
    assert "its classes or outputs are not those of run 1" in comparison.scores.notes[0]
    assert score(comparison, "mae").values[0] is None


def test_differences_in_settings_data_and_environment_are_found(tmp_path: Path) -> None:
    first, second = (case_run(tmp_path / name) for name in "ab")
    second.experiment_file.write_text(second.experiment_file.read_text().replace("lr: 0.001", "lr: 0.01"))
    provenance = second.read_json(second.provenance_file)
    provenance["packages"]["numpy"] = "1.26.0"
    second.write_json(second.provenance_file, provenance)
    record = second.read_json(second.splits_file)
    record["splits"]["test"].append(record["splits"]["train"].pop())
    second.write_json(second.splits_file, record)
    comparison = compare([first.path, second.path])
    assert {one.key: one.values for one in comparison.configuration}["training.optimizer.AdamW.lr"] == [0.001, 0.01]
    assert {one.key: one.values[1] for one in comparison.environment} == {"packages.numpy": "1.26.0"}
    assert comparison.data[0].moved == ["case 59: train, then test"]
    assert comparison.data[0].leaked == 1


def test_packages_that_not_all_runs_had_stand_apart(tmp_path: Path) -> None:
    first, second = (case_run(tmp_path / name) for name in "ab")
    provenance = second.read_json(second.provenance_file)
    provenance["packages"] |= {"numpy": "1.26.0", "a-package-of-its-own": "1.0"}
    second.write_json(second.provenance_file, provenance)
    page = tmp_path / "page.html"
    compare([first.path, second.path], html=page)
    parsed = Page(page.read_text(encoding="utf-8"))
    assert "Packages that not all runs had: 1" in parsed.text
    assert parsed.row("packages.a-package-of-its-own")[1:] == ["–", "1.0"]
    assert parsed.row("packages.numpy")[2] == "1.26.0"


def test_runs_of_folds_can_be_compared(tmp_path: Path) -> None:
    parents = [sample_folds(tmp_path / name, folds=2) for name in "ab"]
    rows = case_run(tmp_path / "rows", sizes={"validation": 30})
    for parent in parents:
        for name in ("validation.json", "validation.csv"):
            (parent.scores / name).write_bytes((rows.scores / name).read_bytes())
    comparison = compare([parent.path for parent in parents], html=tmp_path / "page.html")
    assert comparison.scores is not None
    assert comparison.scores.split == "validation"
    assert comparison.scores.tests == 3


def test_the_result_is_json_and_the_page_is_whole(tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script>"
    runs = [case_run(tmp_path / f"run {number}", seed=number, groups=3) for number in range(3)]
    (runs[1].code / "patches").mkdir(parents=True)
    (runs[1].code / "patches" / "own.py").write_text(f"name = '{hostile}'\n")
    runs[2].experiment_file.write_text(json.dumps({"name": hostile, "training": {"task": hostile}}))
    comparison = compare([run.path for run in runs], html=tmp_path / "page.html")
    told = json.loads(json.dumps(comparison.as_dict(), default=str))
    assert told["scores"]["scores"][0]["tests"][1]["method"] == "randomisation"
    page = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert not [tag for tag, _ in page.tags if tag == "script"]
    assert hostile in page.text
    assert page.row("Accuracy, run 2")[5] == "randomisation"
    references = [value for _, attributes in page.tags for key in ("src", "href") if (value := attributes.get(key))]
    assert all(value.startswith(("#", "data:")) for value in references)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_many_runs_keep_the_first_and_the_best_in_colour(tmp_path: Path) -> None:
    runs = [case_run(tmp_path / str(number), seed=number, noise=1 + number / 4).path for number in range(9)]
    compare(runs, html=tmp_path / "page.html")
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    figure = html[html.index("Loss, training</figcaption>") :].split("</svg>")[0]
    assert figure.count('class="line rest"') == 3  # of nine runs six have a colour
    assert figure.count('class="line s') == 12  # each in the legend and in the frame


def test_many_runs_are_summed_up_by_score_and_their_settings_by_value(tmp_path: Path) -> None:
    runs = [case_run(tmp_path / str(number), seed=number, noise=1 + 6 * (number > 2)).path for number in range(8)]
    comparison = compare(runs, html=tmp_path / "page.html")
    told = " ".join(summary(comparison))
    assert "in accuracy 5 runs are worse; " in told
    assert "better" not in told
    page = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert page.row("name") == ["name", ", ".join(f"{number} ({number + 1})" for number in range(8))]


def test_reports_are_linked_from_the_page(tmp_path: Path) -> None:
    runs = [case_run(tmp_path / "runs" / name, seed=index) for index, name in enumerate("ab")]
    runs[0].report.write_text("report")
    (tmp_path / "pages").mkdir()
    compare([run.path for run in runs], html=tmp_path / "pages" / "page.html")
    page = Page((tmp_path / "pages" / "page.html").read_text(encoding="utf-8"))
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a" and "report" in str(attributes)]
    assert links == ["../runs/a/report.html"]


def test_a_split_can_be_chosen(tmp_path: Path) -> None:
    runs = [case_run(tmp_path / name).path for name in "ab"]
    chosen = compare(runs, split="validation")
    assert chosen.scores is not None
    assert (chosen.scores.split, chosen.scores.cases) == ("validation", [30, 30])
    with pytest.raises(UsageError, match="no scores of split 'tset'") as caught:
        compare(runs, split="tset")
    assert "train, validation, test" in caught.value.hint


def test_one_run_or_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="one run to compare"):
        compare([case_run(tmp_path / "a").path])
    with pytest.raises(RunDirectoryError, match="no run"):
        compare([tmp_path / "a", tmp_path / "nothing"])


def test_a_run_that_has_just_begun_can_be_compared(tmp_path: Path) -> None:
    begun = sample_run(tmp_path / "begun", status="stopped", epochs=3)
    (begun.path / "result.json").unlink()
    for file in begun.scores.iterdir():
        file.unlink()
    comparison = compare([case_run(tmp_path / "a").path, begun.path], html=tmp_path / "page.html")
    assert comparison.scores is None
    assert comparison.runs[1].status == "unfinished"
    assert any("result.json is missing" in note for note in comparison.notes)


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["runs/a", "runs/b"], ["a", "b"]),
        (["x/run", "y/run"], ["x/run", "y/run"]),
        (["runs/a", "runs/a"], ["a (1)", "a (2)"]),
    ],
)
def test_runs_are_called_by_what_tells_them_apart(paths: list[str], names: list[str]) -> None:
    assert distinct_names([Path(path) for path in paths]) == names
