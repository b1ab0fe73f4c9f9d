"""Scores of regression agree with scikit-learn, also for large numbers that differ little."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from weft.errors import UsageError
from weft.metrics import build_scores
from weft.metrics.exact import from_limbs, to_limbs

NAMES = ["mse", "rmse", "mae", "r2", "pearson"]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    count=st.integers(3, 60),
    width=st.integers(1, 4),
    mean=st.sampled_from([0.0, -7.0, 1e3, 1e6]),
)
def test_scores_equal_scikit_learn(seed: int, count: int, width: int, mean: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    targets = mean + torch.randn(count, width, generator=generator, dtype=torch.float64)
    outputs = targets + 0.4 * torch.randn(count, width, generator=generator, dtype=torch.float64)
    book = build_scores(NAMES, kind="regression", classes=width)
    for part in torch.arange(count).split(7):
        book.update(outputs[part], targets[part])
    found, truth, said = book.compute(), targets.numpy(), outputs.numpy()
    expected = {
        "mse": sk.mean_squared_error(truth, said),
        "rmse": math.sqrt(sk.mean_squared_error(truth, said)),
        "mae": sk.mean_absolute_error(truth, said),
        "r2": sk.r2_score(truth, said),
        "pearson": float(numpy.mean([numpy.corrcoef(t, s)[0, 1] for t, s in zip(truth.T, said.T)])),
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_sites_with_very_different_means_pool_without_cancellation() -> None:
    generator = torch.Generator().manual_seed(0)
    parts = [base + torch.randn(50, generator=generator, dtype=torch.float64) for base in (1e9, 1e9 + 3, 1e9 - 2)]
    books = [build_scores(NAMES, kind="regression", classes=1) for _ in parts]
    outputs = [part + 0.5 * torch.randn(50, generator=generator, dtype=torch.float64) for part in parts]
    for book, part, output in zip(books, parts, outputs):
        book.update(output, part)
    books[0].load_states([torch.stack(states).sum(0) for states in zip(*(book.states() for book in books))])
    truth, said = torch.cat(parts).numpy() - 1e9, torch.cat(outputs).numpy() - 1e9  # exact: the numbers are close
    assert books[0].compute()["r2"] == pytest.approx(sk.r2_score(truth, said), rel=1e-9)
    assert books[0].compute()["pearson"] == pytest.approx(numpy.corrcoef(truth, said)[0, 1], rel=1e-9)


def test_constant_targets_have_no_r2_and_no_correlation() -> None:
    book = build_scores(NAMES, kind="regression", classes=1)
    book.update(torch.randn(5), torch.full((5,), 0.1))
    found = book.compute()
    assert math.isnan(found["r2"])
    assert math.isnan(found["pearson"])
    assert found["mae"] > 0
    assert book.details()["per_output"]["0"]["r2"] is None


def test_images_as_outputs_are_judged_as_one_variable() -> None:
    targets = torch.randn(4, 1, 20, 20)
    outputs = targets + 0.1
    book = build_scores(NAMES, kind="regression", classes=1)
    book.update(outputs, targets)
    assert book.compute()["r2"] == pytest.approx(
        sk.r2_score(targets.flatten().numpy(), outputs.flatten().numpy()), rel=1e-6
    )


def test_a_width_that_changes_or_differs_from_the_declared_is_refused() -> None:
    book = build_scores(["mse"], kind="regression", classes=1)
    book.update(torch.zeros(3, 2), torch.zeros(3, 2))
    with pytest.raises(UsageError, match="3 outputs after 2"):
        book.update(torch.zeros(3, 3), torch.zeros(3, 3))
    with pytest.raises(UsageError, match="classes=4"):
        build_scores(["mse"], kind="regression", classes=4).update(torch.zeros(3, 2), torch.zeros(3, 2))


@given(st.lists(st.floats(-1e40, 1e40), max_size=6))
def test_limbs_add_exactly(numbers: list[float]) -> None:
    limbs = numpy.sum([to_limbs(Fraction(number)) for number in [0.0, *numbers]], axis=0)
    total = sum((Fraction(number) for number in numbers), Fraction(0))
    assert abs(from_limbs(limbs) - total) <= Fraction(len(numbers), 1 << 300)


def test_a_number_too_large_for_limbs_is_refused_by_them_and_nan_in_scores() -> None:
    with pytest.raises(OverflowError):
        to_limbs(Fraction(1e300))
    book = build_scores(["mse"], kind="regression", classes=1)
    book.update(torch.tensor([1e200], dtype=torch.float64), torch.tensor([0.0], dtype=torch.float64))
    assert math.isnan(book.compute()["mse"])
