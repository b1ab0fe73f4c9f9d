"""Bins with so many items that no single one shows: nothing below the minimum leaves, and bounds hold."""

from __future__ import annotations

import numpy
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.metrics.helpers import data_of
from weft.metrics import ScoreBook, build_scores
from weft.metrics.cells import cells_of

BOTH = ["auroc", "average_precision"]


def _book(kind: str, minimum: int, *, gather: bool = False) -> ScoreBook:
    book = build_scores(BOTH, kind=kind, classes=3, gather=gather)
    if minimum:
        book.keep_cells(minimum)
    return book


def _pooled(books: list[ScoreBook]) -> ScoreBook:
    states = [book.states() for book in books]
    books[0].load_states([torch.stack(parts).sum(0) for parts in zip(*states, strict=True)])
    return books[0]


@given(counts=st.lists(st.integers(0, 9), max_size=40), minimum=st.integers(1, 12))
def test_a_cell_has_the_minimum_and_every_item_lies_in_one(counts: list[int], minimum: int) -> None:
    histogram = numpy.array(counts, dtype=numpy.int64)
    first, last, few = cells_of(histogram, minimum)
    for ends in (first, last):
        assert all(items == 0 or items >= minimum for items in ends)
        assert ends.sum() == (0 if few else histogram.sum())
    assert few == (0 < histogram.sum() < minimum)
    starts, ends = (numpy.flatnonzero(part).tolist() for part in (first, last))
    for start, end in zip(starts, ends, strict=True):  # cells follow one another, and hold what lies there
        assert start <= end
        assert first[start] == last[end] == histogram[start : end + 1].sum()
    assert all(end < start for end, start in zip(ends, starts[1:], strict=False))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6), sizes=st.lists(st.integers(1, 60), min_size=1, max_size=5), minimum=st.integers(2, 12),
    scale=st.sampled_from([0.01, 1.0, 8.0]), ties=st.booleans(),
)  # fmt: skip
@example(seed=0, sizes=[3, 40], minimum=5, scale=1.0, ties=False)  # one has fewer of each class
@example(seed=1, sizes=[4, 4, 4], minimum=9, scale=1.0, ties=True)  # nobody has enough
@pytest.mark.parametrize("kind", ["binary", "multiclass", "multilabel"])
def test_the_true_score_lies_within_the_bound_and_no_small_cell_leaves(
    kind: str, seed: int, sizes: list[int], minimum: int, scale: float, ties: bool
) -> None:
    outputs, targets = data_of(kind, sum(sizes), seed)
    outputs = scale * (outputs.round() if ties else outputs)
    exact = _book(kind, 0, gather=True)
    exact.update(outputs, targets)
    books = []
    for rows in torch.split(torch.arange(sum(sizes)), sizes):
        book = _book(kind, minimum)
        book.update(outputs[rows], targets[rows])
        (cells,) = (state for state in book.states() if state.dim() == 3 and state.shape[-1] > 1000)
        assert not ((cells > 0) & (cells < minimum)).any()
        books.append(book)
    pooled = _pooled(books)
    details, found, true = pooled.details(), pooled.compute(), exact.compute()
    for name in BOTH:
        if not (numpy.isnan(true[name]) or numpy.isnan(found[name])):
            assert abs(true[name] - found[name]) <= details[f"{name}_bound"] + 1e-12
    per_class, of_class = details["per_class"], exact.details()["per_class"]
    for group, scores in per_class.items():
        assert all(value is None or of_class[group][name] is not None for name, value in scores.items())


def test_bounds_widen_with_the_minimum_and_values_stay_near() -> None:
    outputs, targets = data_of("binary", 4000, 3)
    true = _book("binary", 0, gather=True)
    true.update(outputs, targets)
    bounds = []
    for minimum in (0, 5, 50):
        books = []
        for rows in torch.split(torch.arange(4000), 1000):
            book = _book("binary", minimum)
            book.update(outputs[rows], targets[rows])
            books.append(book)
        pooled = _pooled(books)
        bounds.append(pooled.details()["auroc_bound"])
        assert pooled.compute()["auroc"] == pytest.approx(true.compute()["auroc"], abs=0.01)
    assert bounds[0] < bounds[1] < bounds[2] < 0.2


def test_what_nobody_may_tell_is_undefined_and_not_a_number_made_up() -> None:
    outputs, targets = data_of("binary", 6, 0)
    book = _book("binary", 10)
    book.update(outputs, targets)
    assert numpy.isnan(book.compute()["auroc"])
    assert book.details()["auroc_bound"] is None


def test_an_evaluation_goes_on_from_its_own_counts() -> None:
    outputs, targets = data_of("binary", 40, 0)
    whole, parts = _book("binary", 4), _book("binary", 4)
    whole.update(outputs, targets)
    parts.update(outputs[:3], targets[:3])
    other = _book("binary", 4)
    other.load_state_dict(parts.state_dict())
    other.update(outputs[3:], targets[3:])
    for one, two in zip(whole.states(), other.states(), strict=True):
        assert torch.equal(one, two)


def test_nothing_is_told_of_calibration() -> None:
    outputs, targets = data_of("binary", 40, 0)
    book = build_scores(["brier", "auroc"], kind="binary", classes=2, gather=False)
    book.keep_cells(4)
    book.add_curves()
    book.update(outputs, targets)
    plain = build_scores(["brier"], kind="binary", classes=2, gather=False)
    plain.update(outputs, targets)
    assert book.compute()["brier"] == plain.compute()["brier"]
    assert "calibration" not in book.details()
