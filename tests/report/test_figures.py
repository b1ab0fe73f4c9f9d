from __future__ import annotations

import math
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.report.charts import Axes, Series, line_chart, thinned
from weft.report.intervals import Line, line_figure
from weft.report.matrices import confusion_matrix, confusions
from weft.report.reading import sampled
from weft.report.svg import Scale, round_ticks, tick_label
from weft.report.words import component_name, duration, label, listed, number, size
from weft.runs import Row

FINITE = st.floats(-1e12, 1e12, allow_nan=False)


@settings(max_examples=200, deadline=None)
@given(low=FINITE, width=st.floats(1e-6, 1e9), count=st.integers(2, 10))
def test_ticks_lie_in_the_range_and_are_about_as_many_as_asked(low: float, width: float, count: int) -> None:
    high = low + width
    if high - low < 1e-9 * max(abs(low), abs(high)):
        return
    ticks = round_ticks(low, high, count)
    air = (high - low) * 1e-6 + 1e-9
    assert all(low - air <= tick <= high + air for tick in ticks)
    assert len(ticks) <= count + 2


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (0.0, 1.0, ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        (0.95, 1.0, ["0.95", "0.96", "0.97", "0.98", "0.99", "1.00"]),
        (0.0, 30_000.0, ["0", "10,000", "20,000", "30,000"]),
        (1e-5, 5e-5, ["1e-5", "2e-5", "3e-5", "4e-5", "5e-5"]),
    ],
)
def test_ticks_are_round_and_as_short_as_possible(low: float, high: float, labels: list[str]) -> None:
    ticks = round_ticks(low, high, 5)
    assert [tick_label(tick, ticks) for tick in ticks] == labels


def test_a_logarithmic_scale_gives_equal_room_to_equal_factors() -> None:
    scale = Scale(0.01, 100.0, 0.0, 400.0, logarithmic=True)
    assert [scale(value) for value in (0.01, 0.1, 1.0, 10.0, 100.0)] == pytest.approx([0, 100, 200, 300, 400])
    assert math.isnan(scale(0.0))
    assert scale.ticks() == pytest.approx([0.01, 0.1, 1, 10, 100])


VALUES = st.lists(st.floats(allow_nan=True, allow_infinity=True, width=32), min_size=1, max_size=60)


@settings(max_examples=100, deadline=None)
@given(values=VALUES, logarithmic=st.booleans(), name=st.text(max_size=40))
def test_any_values_give_a_valid_figure_or_none(values: list[float], logarithmic: bool, name: str) -> None:
    points = [(float(index), value) for index, value in enumerate(values)]
    axes = Axes("epoch", marked_x=(0.0, name), logarithmic=logarithmic)
    drawing = line_chart(name, [Series(name, points)], axes)
    assert bool(drawing) == any(math.isfinite(value) for value in values)
    if drawing:
        assert "nan" not in drawing.split("<desc>")[0]
        if name.isprintable():  # control characters have no place in XML
            ElementTree.fromstring(drawing)


def test_thinning_keeps_ends_and_extremes() -> None:
    points = [(float(index), math.sin(index / 500)) for index in range(20_000)]
    points[12_345] = (12_345.0, 9.0)
    kept = thinned(points)
    assert len(kept) <= 402
    assert (12_345.0, 9.0) in kept
    assert kept[-1] == points[-1]
    assert kept == sorted(kept)


def test_the_most_frequent_mistakes_come_first() -> None:
    found = confusions(["a", "b", "c"], [[5, 1, 0], [4, 5, 0], [0, 2, 8]], most=2)
    assert [(one.truth, one.prediction, one.count) for one in found] == [("b", "a", 4), ("c", "b", 2)]
    assert found[0].share == pytest.approx(4 / 9)


def test_a_confusion_matrix_shows_every_count_and_tips() -> None:
    drawing = confusion_matrix("Matrix", ["cat", "d<o>g"], [[1234, 5], [0, 7]])
    tree = ElementTree.fromstring(drawing)
    texts = ["".join(node.itertext()) for node in tree.iter("text")]
    assert {"1,234", "5", "7", "d<o>g"} <= set(texts)
    assert "0" not in texts
    assert "5 of 1,239 cat predicted as d<o>g (0.4%)" in [node.text for node in tree.iter("title")]


def test_a_matrix_of_too_many_classes_is_not_drawn() -> None:
    assert confusion_matrix("Matrix", [str(index) for index in range(61)], [[1] * 61] * 61) == ""
    assert confusion_matrix("Matrix", [], []) == ""


def test_folds_without_a_score_are_listed_all_the_same() -> None:
    drawing = line_figure("Accuracy", [Line("fold-1", 0.9), Line("fold-2", None)], mark=(0.9, "mean"))
    assert drawing.count("<circle") == 1
    assert "fold-2" in drawing
    assert line_figure("Accuracy", [Line("fold-1", None)]) == ""


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"), (3, "3"), (1234567, "1,234,567"), (0.0, "0"), (0.12345, "0.1235"), (12345.6, "12,346"),
        (1e-7, "1.00e-7"), (math.nan, "undefined"), (math.inf, "∞"), (2.0, "2"), ("x", "x"), (True, "True"),
    ],
)  # fmt: skip
def test_numbers_are_written_for_readers(value: object, text: str) -> None:
    assert number(value) == text


def test_names_durations_and_sizes_are_written_for_readers() -> None:
    assert [label(name) for name in ("auroc", "calibration_error", "f1_macro")] == [
        "AUROC",
        "Calibration error",
        "F1 macro",
    ]
    assert [duration(value) for value in (0.834, 59.6, 3700, 200_000)] == [
        "0.83 s",
        "1 min 0 s",
        "1 h 1 min",
        "2 days 7 h",
    ]
    assert [size(value) for value in (0, 2048, 25_276_502_016)] == ["0 B", "2 KiB", "23.5 GiB"]
    assert [listed(words) for words in ([], ["a"], ["a", "b", "c"])] == ["", "a", "a, b and c"]


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("UNet", "UNet"),
        ({"UNet": {"depth": 3}}, "UNet"),
        ({"component": {"a.b.Net": {}}, "weights": None}, "Net"),
        (3, None),
    ],
)
def test_a_component_is_named_in_any_of_its_forms(written: object, name: str | None) -> None:
    assert component_name(written) == name


def test_a_long_table_is_sampled_evenly() -> None:
    rows: list[Row] = [{"step": step} for step in range(100_001)]
    kept = sampled(iter(rows), 1000)
    assert 500 <= len(kept) <= 1000
    gaps = {int(b["step"]) - int(a["step"]) for a, b in pairwise(kept)}
    assert len(gaps) == 1
