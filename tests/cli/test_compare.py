"""`weft compare` and `weft report` as they are called."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.lab import good, weft
from tests.report.samples import case_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("compared")
    return [case_run(folder / f"run{number}", seed=number, noise=1.0 + 3 * (number == 1)).path for number in range(5)]


def test_two_runs_are_told_side_by_side(runs: list[Path]) -> None:
    out = good("compare", *runs[:2]).out
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert lines[0].startswith("2 runs; all are compared with run 1, “run0”.")
    assert "name run0 run1" in lines
    assert "run cases Accuracy F1 AUROC Loss" in lines
    assert any(line.startswith("Accuracy 2 −0.") and "McNemar" in line for line in lines)
    assert "run 2: The content is the same. Every case is in the same split." in lines


def test_values_of_many_runs_are_listed_with_their_runs(runs: list[Path]) -> None:
    out = good("compare", *runs).out
    assert "name: run0 (1), run1 (2), run2 (3), run3 (4), run4 (5)" in out
    assert "Holm's correction is over all tests here: 12." in out


def test_json_holds_everything_and_nothing_else_is_printed(runs: list[Path]) -> None:
    told = good("compare", *runs[:3], "--json").json
    assert [run["name"] for run in told["runs"]] == ["run0", "run1", "run2"]
    assert set(told) >= {"runs", "configuration", "data", "code", "environment", "scores"}
    accuracy = told["scores"]["scores"][0]
    assert accuracy["name"] == "accuracy"
    assert accuracy["tests"][0] is None
    assert 0 <= accuracy["tests"][1]["p"] <= accuracy["corrected"][1] <= 1


def test_the_page_is_written_where_it_was_asked_for(runs: list[Path], tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    assert good("compare", *runs[:2], "--html", page).out.rstrip().endswith(f"page: {page}")
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["{run}"], 2, "there is one run to compare"),
        (["{run}", "nowhere"], 1, "there is no run at"),
        (["{run}", "{run}", "--split", "tset"], 2, "no scores of split 'tset'"),
        (["{run}", "{run}", "--html", "/proc/none/page.html"], 1, "page.html"),
    ],
)
def test_mistakes_are_explained(runs: list[Path], arguments: list[str], code: int, message: str) -> None:
    outcome = weft("compare", *(argument.format(run=runs[0]) for argument in arguments))
    assert outcome.code == code
    assert message in outcome.err
    assert "hint:" in outcome.err


def test_neither_comparing_nor_reporting_imports_torch(runs: list[Path]) -> None:
    for command in ("compare", "report"):
        program = f"import sys; sys.argv = ['weft', {command!r}, {str(runs[0])!r}, {str(runs[1])!r}]\n"
        program += (
            "from weft.cli import main\ntry:\n    main()\nfinally:\n    print('torch' in sys.modules, file=sys.stderr)"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stderr.strip().splitlines()[-1] == "False"


def test_several_reports_are_written_and_one_failure_does_not_stop_the_others(runs: list[Path], tmp_path: Path) -> None:
    outcome = weft("report", runs[0], tmp_path / "nowhere", runs[1], "--by", "target")
    assert outcome.code == 1
    assert outcome.out.split() == [str(runs[0] / "report.html"), str(runs[1] / "report.html")]
    assert "nowhere" in outcome.err
    assert "by target" in (runs[1] / "report.html").read_text(encoding="utf-8")


def test_functions_of_actions_stay_functions_when_their_files_are_imported() -> None:
    program = "import weft.actions.compare, weft.actions.train, weft.actions\nfrom weft.actions import compare, train\n"
    program += "assert callable(weft.actions.compare) and callable(compare) and callable(train)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
