"""Rank scores: exact ones equal scikit-learn, binned ones keep within their published bound."""

from __future__ import annotations

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from tests.metrics.helpers import data_of
from weft.metrics import build_scores
from weft.metrics.ranks import POINTS, Ranked, ranked_scores
from weft.metrics.values import class_log_odds

BOTH = ["auroc", "average_precision"]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(2, 80), levels=st.integers(1, 6))
def test_ties_count_as_in_scikit_learn(seed: int, count: int, levels: int) -> None:
    generator = numpy.random.default_rng(seed)
    scores = generator.integers(0, levels, count).astype(numpy.float64)
    truth = generator.integers(0, 2, count)
    truth[:2] = 0, 1
    ranked = ranked_scores(scores, truth == 1)
    assert ranked.auroc()[0] == pytest.approx(sk.roc_auc_score(truth, scores), rel=1e-12)
    assert ranked.average_precision()[0] == pytest.approx(sk.average_precision_score(truth, scores), rel=1e-12)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(4, 300), scale=st.sampled_from([0.01, 1.0, 8.0, 60.0]))
@pytest.mark.parametrize("kind", ["binary", "multiclass", "multilabel"])
def test_binned_scores_keep_within_their_bound(kind: str, seed: int, count: int, scale: float) -> None:
    outputs, targets = data_of(kind, count, seed)
    exact, binned = (build_scores(BOTH, kind=kind, classes=3, gather=gather) for gather in (True, False))
    for book in (exact, binned):
        book.update(scale * outputs, targets)
    details = binned.details()
    one, other = exact.compute(), binned.compute()
    for name in BOTH:
        if not numpy.isnan(one[name]):
            assert abs(one[name] - other[name]) <= details[f"{name}_bound"] + 1e-12
    assert binned.gatherable() is None
    assert "auroc_bound" not in exact.details()


def test_the_bound_is_small_where_log_odds_spread() -> None:
    outputs, targets = data_of("binary", 5000, 0)
    book = build_scores(BOTH, kind="binary", classes=2, gather=False)
    book.update(3 * outputs, targets)
    assert book.details()["auroc_bound"] < 2e-3


def test_equal_scores_are_worth_a_half() -> None:
    for gather in (True, False):
        book = build_scores(["auroc"], kind="multiclass", classes=3, gather=gather)
        book.update(torch.full((37, 3), 0.3), torch.arange(37) % 3)
        assert book.compute()["auroc"] == 0.5


def test_log_odds_do_not_saturate() -> None:
    logits = torch.tensor([[80.0, 0.0, -3.0], [-90.0, 4.0, 1.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    expected = [
        [logits[i, c] - torch.logsumexp(torch.cat((logits[i, :c], logits[i, c + 1 :])), 0) for c in range(3)]
        for i in range(3)
    ]
    torch.testing.assert_close(class_log_odds(logits), torch.tensor(expected, dtype=torch.float64))


def test_curves_are_short_rising_and_have_the_area_of_the_score() -> None:
    outputs, targets = data_of("binary", 3000, 1)
    for gather in (True, False):
        book = build_scores(BOTH, kind="binary", classes=2, gather=gather, class_names=["healthy", "ill"])
        book.update(outputs, targets)
        details = book.details()
        fpr, tpr = (numpy.array(details["roc"]["ill"][name]) for name in ("fpr", "tpr"))
        assert len(fpr) <= POINTS
        assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)
        assert (numpy.diff(fpr) >= 0).all()
        assert (numpy.diff(tpr) >= 0).all()
        assert numpy.trapezoid(tpr, fpr) == pytest.approx(book.compute()["auroc"], abs=2e-3)
        assert len(details["pr"]["ill"]["precision"]) == len(details["pr"]["ill"]["recall"]) <= POINTS
        assert details["per_class"]["ill"]["auroc"] == book.compute()["auroc"]


def test_a_single_positive_is_bounded_from_both_sides() -> None:
    ranked = Ranked(numpy.array([1.0]), numpy.array([9.0]))
    assert ranked.auroc() == (0.5, 0.5)
    value, bound = ranked.average_precision()
    assert value == pytest.approx(0.1)
    assert bound == pytest.approx(0.9)  # were the positive first, precision would be 1
