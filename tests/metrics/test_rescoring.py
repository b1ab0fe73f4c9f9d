"""Scores from rows of cases: the same as the score book's, for all cases and for any resample of them."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.metrics.helpers import data_of, names_of
from weft.errors import DataError
from weft.metrics import KINDS, KNOWN, build_scores
from weft.metrics.casetable import CaseTable, read_cases
from weft.metrics.caseterms import Layout, Resamples, Units
from weft.metrics.paired import holm, mcnemar, paired_tests
from weft.metrics.recipes import split_key
from weft.metrics.resampling import FEWEST_RESAMPLES, MOST_UNITS, Interval, draw, interval_of, intervals, make_units
from weft.metrics.rescoring import Rescored, rescore

NOT_IN_ROWS = {"segmentation": {"accuracy"}}
EXTRA: dict[str, list[Any]] = {
    "binary": [("f1", {"average": "macro"}), ("kappa", {"weights": "linear"})],
    "multiclass": [
        ("f1", {"average": "weighted"}),
        ("recall", {"average": "micro"}),
        ("kappa", {"weights": "quadratic"}),
    ],
    "multilabel": [("f1", {"average": "micro"})],
}


def evaluated(
    kind: str, outputs: torch.Tensor, targets: torch.Tensor
) -> tuple[dict[str, float], dict[str, Any], CaseTable]:
    """Scores, details and rows as a run leaves them, the rows through CSV."""
    names = [name for name in names_of(kind) if name != "loss"] + EXTRA.get(kind, [])
    classes = 2 if kind == "regression" else 3
    book = build_scores(names, kind=kind, classes=classes)
    book.update(outputs, targets, cases=[f"case {row}" for row in range(len(outputs))])
    return book.compute(), book.details(), table_of(book.case_rows())


def table_of(rows: list[dict[str, Any]]) -> CaseTable:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows({key: "" if value is None else value for key, value in row.items()} for row in rows)
    names, *cells = csv.reader(io.StringIO(text.getvalue()))
    return CaseTable(dict(zip(names, zip(*cells, strict=True), strict=True)))


def layout_of(table: CaseTable, details: dict[str, Any]) -> Layout:
    return Layout.of(table, (details.get("confusion_matrix") or {}).get("labels"))


def rescored(kind: str, count: int, seed: int) -> tuple[Rescored, dict[str, float]]:
    scores, details, table = evaluated(kind, *data_of(kind, count, seed))
    return rescore(table, scores, layout_of(table, details)), scores


@pytest.mark.parametrize("kind", KINDS)
def test_every_score_that_rows_can_tell_is_found(kind: str) -> None:
    found, scores = rescored(kind, 30, 0)
    assert set(found.missing) == NOT_IN_ROWS.get(kind, set()) | {"loss"}
    assert set(found.recipes) == set(scores) - set(found.missing)


@settings(max_examples=15, deadline=None)
@given(kind=st.sampled_from(KINDS), count=st.integers(4, 25), seed=st.integers(0, 10_000))
def test_a_resample_scores_as_the_score_book_scores_it(kind: str, count: int, seed: int) -> None:
    outputs, targets = data_of(kind, count, seed)
    scores, details, table = evaluated(kind, outputs, targets)
    found = rescore(table, scores, layout_of(table, details))
    rows = numpy.random.default_rng(seed).integers(0, count, count)
    expected, _, _ = evaluated(kind, outputs[rows], targets[rows])
    units = Units(numpy.arange(count), count)
    weights = numpy.bincount(rows, minlength=count)[None].astype(float)
    for name in found.recipes:
        value = found.resampled(name, Resamples(units, weights))[0]
        assert value == pytest.approx(expected[name], rel=1e-5, abs=1e-7, nan_ok=True), name


@settings(max_examples=15, deadline=None)
@given(kind=st.sampled_from(KINDS), seed=st.integers(0, 10_000), groups=st.integers(1, 4))
def test_groups_score_as_their_cases_alone(kind: str, seed: int, groups: int) -> None:
    outputs, targets = data_of(kind, 16, seed)
    scores, details, table = evaluated(kind, outputs, targets)
    found = rescore(table, scores, layout_of(table, details))
    of = numpy.arange(16) % groups
    for group in range(groups):
        expected, _, _ = evaluated(kind, outputs[of == group], targets[of == group])
        for name in found.recipes:
            value = found.by_unit(name, Units(of, groups))[group]
            assert value == pytest.approx(expected[name], rel=1e-5, abs=1e-7, nan_ok=True), name


def test_the_variant_that_was_meant_is_recognised() -> None:
    outputs, targets = data_of("multiclass", 40, 3, classes=2)
    book = build_scores(["f1", "auroc", "brier"], kind="multiclass", classes=2)
    book.update(outputs, targets, cases=[str(row) for row in range(40)])
    table = table_of(book.case_rows())
    found = rescore(table, book.compute(), Layout.of(table, ["0", "1"]))
    binary = rescore(table, {"f1": book.details()["per_class"]["1"]["f1"]}, Layout.of(table, ["0", "1"]))
    assert found.value("f1") == pytest.approx(book.compute()["f1"])
    assert binary.value("f1") != pytest.approx(found.value("f1"))


@pytest.mark.parametrize("kind", ["binary", "multiclass"])
def test_a_loss_that_is_the_log_loss_is_recognised_and_no_other(kind: str) -> None:
    scores, details, table = evaluated(kind, *data_of(kind, 30, 1))
    found = rescore(table, {"loss": scores["log_loss"] * (1 + 1e-7)}, layout_of(table, details))
    assert found.value("loss") == pytest.approx(scores["log_loss"])
    other = rescore(table, {"loss": scores["log_loss"] * 1.1}, layout_of(table, details))
    assert "no function of the rows" in other.missing["loss"]


def test_sure_predictions_keep_their_order() -> None:
    outputs = torch.tensor([40.0, 60.0, 50.0, -45.0, -60.0])
    targets = torch.tensor([1, 0, 1, 1, 0])
    scores, details, table = evaluated("binary", outputs, targets)
    assert rescore(table, scores, layout_of(table, details)).value("auroc") == pytest.approx(scores["auroc"])


def test_scores_of_own_functions_are_means_of_their_column() -> None:
    outputs, targets = data_of("regression", 12, 0)
    book = build_scores([{"bias": lambda said, true: (said - true).mean(1)}], kind="regression", classes=2)
    book.update(outputs, targets, cases=[str(row) for row in range(12)])
    table = table_of(book.case_rows())
    assert rescore(table, book.compute(), Layout.of(table)).value("bias") == pytest.approx(book.compute()["bias"])


def test_rows_that_disagree_with_the_score_are_not_trusted() -> None:
    scores, details, table = evaluated("binary", *data_of("binary", 30, 0))
    found = rescore(table, scores | {"accuracy": 0.123}, layout_of(table, details))
    assert found.missing["accuracy"].startswith("the rows of cases give 0.")
    assert "accuracy" not in found.recipes


@pytest.mark.parametrize("name", [name for name, info in KNOWN.items() if info.arguments])
def test_names_in_results_are_told_apart(name: str) -> None:
    assert split_key(name) == (name, {}) or name == "top_k_accuracy"
    assert split_key("top_3_accuracy") == ("top_k_accuracy", {"k": "3"})
    assert split_key("f1_macro") == ("f1", {"average": "macro"})
    assert split_key("dice_macro") == ("dice_macro", {})


# --- resampling -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cases", [0, 1, 7, 65, 66, 300])
def test_resamples_are_those_that_are_drawn_one_by_one(cases: int) -> None:
    found = draw(make_units(cases), 400).weights
    generator = numpy.random.default_rng(20_260_101)
    for row in found:
        assert row.tolist() == numpy.bincount(generator.integers(0, cases, cases), minlength=cases).tolist()


def test_intervals_are_the_same_each_time_and_hold_the_value() -> None:
    found, scores = rescored("multiclass", 80, 0)
    units = make_units(80)
    first, again = (intervals(found, draw(units)) for _ in range(2))
    assert first == again
    for name in ("accuracy", "f1", "auroc", "brier"):
        interval = first[name]
        assert isinstance(interval, Interval)
        assert interval.low < scores[name] < interval.high
    assert isinstance(first["loss"], str)


def test_intervals_of_a_mean_are_as_wide_as_theory_says() -> None:
    values = numpy.random.default_rng(0).normal(size=400)
    table = CaseTable({"case": [str(row) for row in range(400)], "own": values})
    found = rescore(table, {"own": float(values.mean())}, Layout.of(table))
    units = make_units(400)
    interval = intervals(found, draw(units))["own"]
    assert isinstance(interval, Interval)
    expected = 2 * 1.96 * values.std() / math.sqrt(400)
    assert interval.high - interval.low == pytest.approx(expected, rel=0.1)


def test_cases_of_a_group_are_drawn_together() -> None:
    draws = numpy.random.default_rng(0)
    values = numpy.repeat(draws.normal(size=50), 20)  # twenty slices of a patient are alike
    table = CaseTable({"case": [str(row) for row in range(1000)], "own": values})
    found = rescore(table, {"own": float(values.mean())}, Layout.of(table))
    widths = []
    for groups in (None, [str(row // 20) for row in range(1000)]):
        units = make_units(1000, groups)
        interval = intervals(found, draw(units))["own"]
        assert isinstance(interval, Interval)
        widths.append(interval.high - interval.low)
    assert widths[1] / widths[0] == pytest.approx(math.sqrt(20), rel=0.25)


def test_very_many_cases_are_drawn_in_bundles_with_the_same_spread() -> None:
    count = 4 * MOST_UNITS
    values = numpy.random.default_rng(0).normal(size=count)
    table = CaseTable({"case": [str(row) for row in range(count)], "own": values})
    found = rescore(table, {"own": float(values.mean())}, Layout.of(table))
    units = make_units(count)
    assert units.count == MOST_UNITS
    interval = intervals(found, draw(units, 400))["own"]
    assert isinstance(interval, Interval)
    assert interval.high - interval.low == pytest.approx(2 * 1.96 / math.sqrt(count), rel=0.2)


def test_what_has_no_interval_says_why() -> None:
    assert interval_of(numpy.ones(100)) == "all resamples have the same value"
    assert interval_of(numpy.array([numpy.nan] * 10 + [0.0] * 90)) == "it is undefined in 10% of the resamples"
    found, _ = rescored("binary", 4, 0)
    units = make_units(4)
    assert intervals(found, draw(units))["accuracy"] == "there are only 4 to draw from"


# --- paired tests -----------------------------------------------------------------------------------------------------


def test_mcnemar_is_the_binomial_test_of_discordant_cases() -> None:
    from scipy.stats import binomtest

    for few, many in ((0, 0), (0, 5), (3, 3), (4, 11), (20, 45)):
        expected = binomtest(few, few + many, 0.5).pvalue if few + many else 1.0
        assert mcnemar(few, many) == mcnemar(many, few) == pytest.approx(expected)
    assert mcnemar(1000, 1200) == pytest.approx(binomtest(1000, 2200, 0.5).pvalue, rel=0.02)


def test_holm_is_the_published_procedure() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_keeps_the_order_and_never_lowers(p_values: list[float]) -> None:
    corrected = holm(p_values)
    assert all(p <= q <= 1 for p, q in zip(p_values, corrected))
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    assert [corrected[index] for index in order] == sorted(corrected)


def pair(kind: str, count: int, noise: float) -> tuple[Rescored, Rescored]:
    outputs, targets = data_of(kind, count, 0)
    worse = outputs + noise * torch.randn(outputs.shape, generator=torch.Generator().manual_seed(1))
    both = []
    for each in (outputs, worse):
        scores, details, table = evaluated(kind, each, targets)
        both.append(rescore(table, scores, layout_of(table, details)))
    return both[0], both[1]


@pytest.mark.parametrize(
    ("kind", "name"), [("binary", "brier"), ("multiclass", "auroc"), ("regression", "mae"), ("multilabel", "accuracy")]
)
def test_a_model_that_is_clearly_worse_is_found_and_an_equal_one_is_not(kind: str, name: str) -> None:
    units = make_units(120)
    for noise, found in ((5.0, True), (0.0, False)):
        first, second = pair(kind, 120, noise)
        test = paired_tests(first, second, draw(units))[name]
        assert (test.p < 0.01) == found
        if found:
            assert test.interval is not None
            assert (test.interval.low > 0) == (test.interval.high > 0)
        else:
            assert (test.difference, test.p) == (0.0, 1.0)


def test_a_clear_difference_in_order_is_found_also_with_few_resamples() -> None:
    first, second = pair("multiclass", 2000, 5.0)
    tests = paired_tests(first, second, draw(make_units(2000)), share=1000)
    assert tests["auroc"].interval is not None
    assert tests["auroc"].interval.resamples == FEWEST_RESAMPLES
    assert tests["auroc"].p < 1e-6  # more than any number of tests takes away


def test_bundles_of_very_many_cases_are_no_groups() -> None:
    count = MOST_UNITS + 50
    first, second = pair("binary", count, 1.0)
    assert paired_tests(first, second, draw(make_units(count), 50))["accuracy"].method == "McNemar"


def test_accuracy_is_tested_by_mcnemar_unless_cases_belong_to_groups() -> None:
    first, second = pair("binary", 60, 1.0)
    for groups, method in ((None, "McNemar"), ([str(row // 2) for row in range(60)], "randomisation")):
        units = make_units(60, groups)
        tests = paired_tests(first, second, draw(units))
        assert tests["accuracy"].method == method


def test_randomisation_of_few_cases_tries_all_exchanges() -> None:
    true = numpy.zeros(6)
    tables = [
        CaseTable({"case": list("abcdef"), "target": true, "prediction": true + numpy.array(error)})
        for error in ([1] * 6, [2] * 6)
    ]
    first, second = (rescore(table, {"mae": value}, Layout.of(table)) for table, value in zip(tables, (1.0, 2.0)))
    units = make_units(6)
    test = paired_tests(first, second, draw(units))["mae"]
    assert test.p == pytest.approx(2 / 2**6)


def test_p_values_are_uniform_when_models_are_alike() -> None:
    p_values = []
    for seed in range(60):
        noise = numpy.random.default_rng(seed).normal(size=(2, 30))
        tables = [
            CaseTable({"case": [str(i) for i in range(30)], "target": numpy.zeros(30), "prediction": row})
            for row in noise
        ]
        first, second = (rescore(t, {"mse": float((row**2).mean())}, Layout.of(t)) for t, row in zip(tables, noise))
        units = make_units(30)
        p_values.append(paired_tests(first, second, draw(units))["mse"].p)
    assert 0.3 < numpy.mean(p_values) < 0.7
    assert numpy.mean(numpy.array(p_values) < 0.05) < 0.15


# --- files ------------------------------------------------------------------------------------------------------------


def test_rows_are_read_and_damage_is_named(tmp_path: Path) -> None:
    file = tmp_path / "test.csv"
    assert read_cases(file) is None
    file.write_text("case,target,own\na,x,1\na,y,\n")
    table = read_cases(file)
    assert table is not None
    assert table.keys() == [("a", 0), ("a", 1)]
    assert numpy.isnan(table.numbers("own")[1])
    assert table.take(numpy.array([1])).texts("target") == ["y"]
    for damage in ("case,target\na,x,1\n", "a,b\n1,2\n", 'case\n"a\n'):
        file.write_text(damage)
        with pytest.raises(DataError, match=r"test\.csv"):
            read_cases(file)
