"""The report of a study: what it says of the sites, of faults and folds, and what it does where files are missing."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.federated.lab import SIZES, study
from tests.report.pages import Page
from weft.errors import UsageError
from weft.federated.evaluating import evaluate
from weft.federated.study import simulate
from weft.report import write_report
from weft.report.comparison import compare_runs
from weft.report.events import Happened, happened, presence, timeline
from weft.report.judging import judge
from weft.report.reading import read_run
from weft.report.sitecosts import site_costs
from weft.report.studyfiles import read_study
from weft.report.words import size
from weft.runs import read_rows

pytest.importorskip("sklearn")

FAULTS = [
    *({"event": "joined", "site": site, "epoch": 1, "step": 0, "seconds": 0.1, "reason": ""} for site in SIZES),
    {"event": "refused", "site": "west", "epoch": 1, "step": 4, "seconds": 0.3, "reason": "<b>values</b> not finite"},
    {"event": "left", "site": "north", "epoch": 2, "step": 9, "seconds": 0.6, "reason": "it was killed"},
    {"event": "late", "site": "south", "epoch": 2, "step": 10, "seconds": 61.0, "reason": "31 s, the deadline is 30 s"},
    {"event": "returned", "site": "north", "epoch": 2, "step": 12, "seconds": 62.0, "reason": ""},
]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of three sites, compared with training in one place."""
    return simulate(study(), out=tmp_path_factory.mktemp("study") / "study", compare=True).path


@pytest.fixture
def copied(done: Path, tmp_path: Path) -> Path:
    """The same in a directory of its own, to change something there."""
    return Path(shutil.copytree(done, tmp_path / "copy"))


def _page(path: Path) -> Page:
    return Page(write_report(path).read_text(encoding="utf-8"))


def _result(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((path / "result.json").read_text())
    return content


def test_a_study_ends_with_its_report(done: Path) -> None:
    html = (done / "report.html").read_text(encoding="utf-8")
    page = Page(html)
    assert "Weft study" in page.text
    assert "at 3 sites (north, south and west) by dSGD" in page.text
    assert "<script" not in html
    assert len(html.encode()) < 2_000_000


def test_it_shows_pooled_scores_with_bounds_and_those_of_each_site(done: Path) -> None:
    page, result = _page(done), _result(done)
    pooled = page.row("Accuracy")[3]
    assert pooled.startswith(f"{result['scores']['test']['accuracy']:.4f}")
    assert "[" in pooled  # an interval over the cases of all sites
    rows = {row[0]: row for row in page.rows("Site") if row}
    assert set(rows) == set(SIZES)
    by_score = [row for table in page.tables for row in table if row and row[0].strip() in ("All sites", *SIZES)]
    told = [[cell.strip() for cell in row] for row in by_score]
    split = "test"
    assert any(row[0] == "All sites" and f"{result['scores'][split]['accuracy']:.4f}" in " ".join(row) for row in told)
    for name in SIZES:
        own = result["sites"][name]["scores"][split]["accuracy"]
        assert any(row[0] == name and f"{own:.4f}" in " ".join(row) for row in told)


def test_what_scores_from_bins_may_be_off_stands_beside_them(copied: Path) -> None:
    result = _result(copied)
    result["bounds"]["test"]["auroc"] = 0.00042
    (copied / "result.json").write_text(json.dumps(result))
    page = _page(copied)
    assert "± 0.00042" in page.row("AUROC")[3]
    assert "±" not in page.row("AUROC")[2] or result["bounds"]["validation"]["auroc"]
    assert "how far a score from bins may be off" in page.text
    # within its bound the score is that of the rows of cases, which give it an interval
    scores = json.loads((copied / "scores" / "test.json").read_text())
    scores["scores"]["auroc"] -= 0.00042
    (copied / "scores" / "test.json").write_text(json.dumps(scores))
    files = read_run(copied)
    found = judge(files)["test"].rescored
    assert found is not None
    assert "auroc" in found.recipes
    files.bounds = {}
    found = judge(files)["test"].rescored
    assert found is not None
    assert "auroc" in found.missing


def test_contributions_are_items_seen_and_steps_taken_part_in(done: Path) -> None:
    result = _result(done)
    rows = {row[0]: row for row in _page(done).rows("Site")}
    seen = sum(site["trained"]["items"] for site in result["sites"].values())
    for name, site in result["sites"].items():
        assert site["trained"]["items"] == 3 * site["items"]["train"]  # three epochs
        assert site["trained"]["steps"] == 3 * -(-site["items"]["train"] // 8)
        assert rows[name][-3:] == [
            f"{site['trained']['items']:,}",
            f"{site['trained']['items'] / seen:.1%}",
            f"{site['trained']['steps']} ({site['trained']['steps'] / result['steps']:.0%})",
        ]


def test_it_compares_with_one_place_and_with_each_site_alone(done: Path) -> None:
    page, comparison = _page(done), _result(done)["comparison"]
    table = next(table for table in page.tables if [cell.strip() for cell in table[0]][-1] == "Each alone")
    rows = {row[0].strip(): [cell.strip() for cell in row[1:]] for row in table[1:]}
    expected = [f"{comparison[way]['test']['accuracy']:.4f}" for way in ("study", "pooled", "alone")]
    assert rows["Accuracy"] == expected
    assert "training with all data in one place" in page.text


def test_bytes_and_messages_are_those_of_the_result(done: Path) -> None:
    page, result = _page(done), _result(done)
    table = next(t for t in page.tables if t and [c.strip() for c in t[0]][:2] == ["Site", "Messages"])
    for row in table[1:]:
        kinds = result["sites"][row[0].strip()]["bytes"]["by_kind"]
        assert row[1].strip() == f"{sum(kind['messages'] for kind in kinds.values()):,}"
    assert "gradients" in page.text
    rows = list(read_rows(done / "profile.csv"))
    for name in SIZES:
        own = [row for row in rows if row["site"] == name]
        assert sum(int(row["sent"]) for row in own) == result["sites"][name]["bytes"]["sent"]
        assert sum(int(row["received"]) for row in own) == result["sites"][name]["bytes"]["received"]


def test_faults_stand_in_a_timeline_a_table_and_the_summary(copied: Path) -> None:
    (copied / "ledger.jsonl").write_text("".join(json.dumps(row) + "\n" for row in FAULTS) + '{"event": "le')
    html = write_report(copied).read_text(encoding="utf-8")
    page = Page(html)
    assert "Not all went well: north dropped out; south was late; west was refused; north came back." in page.text
    assert "<b>values" not in html  # what sites send is text, not markup
    assert page.row("Late") == ["Late", "south", "2", "10", "1 min 1 s", "31 s, the deadline is 30 s"]
    assert "When each site took part" in page.text
    assert "joined 3 times" in page.text


def test_scores_from_coarse_bins_are_told_with_how_far_they_may_be_off(copied: Path) -> None:
    result = _result(copied)
    result["bounds"]["test"] = {"auroc": 0.25}
    result["scores"]["test"]["auroc"] = 1.0
    for site in result["sites"].values():
        site["scores"]["test"]["auroc"] = 1.0
    result["comparison"]["alone_by_site"] = {}
    (copied / "result.json").write_text(json.dumps(result))
    page = _page(copied)
    assert "AUROC 1 ± 0.25" in page.text
    assert "the score from them may lie outside" in page.text
    html = (copied / "report.html").read_text()
    figure = html[html.index("AUROC at each site, test") :].split("</figure>")[0]
    assert "1.05" not in figure  # no score is greater than 1
    assert "1.00" in figure


def test_sizes_have_no_powers_of_ten() -> None:
    assert [size(amount) for amount in (0, 1023, 1024, 1023 * 1024, 1500 * 1024**2)] == [
        "0 B", "1,023 B", "1 KiB", "1,023 KiB", "1.46 GiB",
    ]  # fmt: skip


def test_without_faults_there_is_no_such_section(copied: Path) -> None:
    (copied / "ledger.jsonl").unlink(missing_ok=True)
    page = _page(copied)
    assert "Drop-outs" not in page.text
    assert "Not all went well" not in page.text


def test_a_site_takes_part_between_joining_leaving_and_coming_back() -> None:
    events = happened(FAULTS)
    assert presence([one for one in events if one.site == "north"], 20) == [(0, 9), (12, 20)]
    assert presence([one for one in events if one.site == "west"], 20) == [(0, 20)]
    assert presence([Happened("refused", "far", 0, 0, 0.0, "another version")], 20) == []
    drawing = timeline(events, ["north", "south", "west"], 20)
    assert "north: steps 0 to 9, 12 to 20" in drawing
    assert timeline(events[:1], ["north"], 20) == ""


def test_a_study_that_has_not_ended_has_a_report_too(copied: Path) -> None:
    for file in (copied / "result.json", *copied.glob("scores/*"), *copied.glob("sites/*/result.json")):
        file.unlink()
    page = _page(copied)
    assert "It has not ended" in page.text
    assert {row[0] for row in page.rows("Site")} == set(SIZES)  # from the profile so far


@pytest.mark.parametrize("damage", ["", "\0\0site,epoch\nnorth", "[1, 2]\n7\n"])
@pytest.mark.parametrize("name", ["profile.csv", "ledger.jsonl", "sites/north/own.csv", "result.json"])
def test_damaged_files_are_told_and_lose_no_more_than_themselves(copied: Path, name: str, damage: str) -> None:
    (copied / name).write_text(damage)
    assert "Weft study" in _page(copied).text


def test_a_study_without_its_sites_directories_shows_what_its_result_says(copied: Path) -> None:
    for name in SIZES:
        shutil.rmtree(copied / "sites" / name)
    page, result = _page(copied), _result(copied)
    rows = {row[0]: row for row in page.rows("Site")}
    assert rows["north"][1] == str(result["sites"]["north"]["items"]["train"])


def test_a_sites_own_report_shows_its_curve_beside_that_of_all(done: Path) -> None:
    page = _page(done / "sites" / "north")
    assert "Site of a Weft study" in page.text
    assert "Training loss, here and at all sites" in page.text
    assert "weft reproduce" not in page.text  # which is refused for studies and their sites
    own = list(read_rows(done / "sites" / "north" / "own.csv"))
    assert [row["epoch"] for row in own] == [1, 2, 3]
    history = list(read_rows(done / "history.csv"))
    pooled = sum(  # losses of steps in which a site has fewer batches weigh by its items
        list(read_rows(done / "sites" / name / "own.csv"))[-1]["train_loss"]
        * _result(done)["sites"][name]["items"]["train"]
        for name in SIZES
    ) / sum(_result(done)["sites"][name]["items"]["train"] for name in SIZES)
    assert pooled == pytest.approx(float(history[-1]["train_loss"]), rel=1e-6)


def test_two_studies_are_compared_on_the_same_cases(done: Path, tmp_path: Path) -> None:
    other = simulate(study(training__optimizer={"SGD": {"lr": 0.001}}), out=tmp_path / "other").path
    compared = compare_runs([done, other])
    assert compared.scores is not None
    cases = sum(len(list(read_rows(done / "sites" / name / "scores" / "test.csv"))) for name in SIZES)
    assert compared.scores.cases == [cases, cases]
    accuracy = next(score for score in compared.scores.scores if score.name == "accuracy")
    assert accuracy.tests[1] is not None
    assert compared.notes == []


def test_a_study_that_only_tests_says_so(done: Path, tmp_path: Path) -> None:
    tested = evaluate(done, out=tmp_path / "tested", splits=["test"]).path
    page = Page((tested / "report.html").read_text(encoding="utf-8"))
    assert "tests DoubleNet for classification at 3 sites" in page.text
    assert "Nothing was trained" in page.text
    assert "What this report lacks" not in page.text
    items = {name: site["items"]["test"] for name, site in _result(tested)["sites"].items()}
    assert {row[0]: row[1] for row in page.rows("Site")} == {name: str(count) for name, count in items.items()}


def test_scores_by_a_column_of_the_cases_and_by_site(done: Path) -> None:
    page = Page(write_report(done, by=["site", "target"]).read_text(encoding="utf-8"))
    write_report(done)
    assert "Test items by site" in page.text
    assert "Test items by target" in page.text


def test_of_many_sites_figures_show_some_and_tables_all(copied: Path) -> None:
    for number in range(40):
        shutil.copytree(copied / "sites" / "north", copied / "sites" / f"site-{number:02}", symlinks=True)
    result = _result(copied)
    result["sites"] |= {f"site-{number:02}": result["sites"]["north"] for number in range(40)}
    (copied / "result.json").write_text(json.dumps(result))
    report = write_report(copied)
    assert report.stat().st_size < 2_000_000
    assert {row[0] for row in Page(report.read_text(encoding="utf-8")).rows("Site")} == set(result["sites"])


@pytest.mark.slow
def test_the_report_of_folds_shows_each_site_over_the_folds(tmp_path: Path) -> None:
    written = study(dataset__split={"folds": 2}, training__epochs=1)
    folds = simulate(written, out=tmp_path / "folds", compare=True).path
    page = _page(folds)
    assert "Weft study of 2 folds" in page.text
    rows = {row[0]: row for row in page.rows("Site")}
    values = [_result(folds / f"fold-{n}")["sites"]["north"]["scores"]["validation"]["accuracy"] for n in (1, 2)]
    assert rows["north"][1] == "2"
    assert f"{sum(values) / 2:.4f} ±" in " ".join(rows["north"])
    assert "[" in page.row("Accuracy")[-2]  # the interval over the held-out items of all folds and sites
    with pytest.raises(UsageError, match="no sites"):
        read_study(read_run(folds))
    assert set(site_costs(read_study(read_run(folds / "fold-1")))) == set(SIZES)


def test_scores_by_a_column_of_the_sites_tables(tmp_path: Path) -> None:
    sites = {"east": 40, "west": 28}
    for site, people in sites.items():
        _table(tmp_path / f"{site}.csv", people, "scanner,only_here" if site == "east" else "scanner")
    told = {
        "dataset": {"inputs": ["a", "b"], "targets": ["ill"], "split": {"ratio": [0.5, 0.25, 0.25]}},
        "model": {"MLP": {"in_features": 2, "out_features": 2}},
        "training": {"task": "classification", "epochs": 1, "batch_size": 8},
        "federation": {"sites": {site: {"table": {"file": str(tmp_path / f"{site}.csv")}} for site in sites}},
    }
    done = simulate(told, out=tmp_path / "study").path
    rows = Page(write_report(done, by=["scanner"]).read_text(encoding="utf-8")).rows("Scanner")
    truth: Counter[str] = Counter()
    for site in sites:
        lines = (tmp_path / f"{site}.csv").read_text().splitlines()
        for row in read_rows(done / "sites" / site / "scores" / "test.csv"):
            truth[lines[int(str(row["case"]).removeprefix("line ")) - 1].split(",")[3]] += 1
    assert {row[0]: int(row[1]) for row in rows} == truth
    with pytest.raises(UsageError, match="site west have no column 'only_here'"):
        write_report(done, by=["only_here"])
    with pytest.raises(UsageError, match="have a column 'scaner'") as caught:
        write_report(done, by=["scaner"])
    assert "'scanner'" in str(caught.value)


def _table(file: Path, people: int, further: str) -> None:
    """A table of people, half of whom are ill, with a scanner and maybe more."""
    lines = [f"a,b,ill,{further}"]
    for row in range(people):
        cells = [row, row % 5, "yes" if row % 2 else "no", "new" if row * row % 7 < 3 else "old"]
        lines.append(",".join(map(str, cells)) + ",x" * further.count(","))
    file.write_text("\n".join(lines) + "\n")
