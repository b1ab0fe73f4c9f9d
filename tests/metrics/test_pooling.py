"""Scores of participants pool exactly, however the samples are divided."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.metrics.helpers import book_of, data_of
from weft.errors import ProtocolError
from weft.metrics import KINDS, ScoreBook


def pooled(books: list[ScoreBook]) -> ScoreBook:
    """Add up the states of all and hand them to the first."""
    states = [torch.stack(parts).sum(0) for parts in zip(*(book.states() for book in books), strict=True)]
    books[0].load_states(states)
    gathered = [book.gatherable() for book in books]
    if gathered[0] is not None:
        books[0].load_gathered([torch.cat(parts) for parts in zip(*gathered, strict=True)])
    return books[0]


@pytest.mark.parametrize("gather", [True, False])
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=8, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    count=st.integers(1, 24),
    cuts=st.lists(st.integers(0, 24), max_size=4),
    sites=st.integers(1, 4),
)
def test_any_division_of_the_samples_gives_the_scores_of_the_whole(
    kind: str, gather: bool, seed: int, count: int, cuts: list[int], sites: int
) -> None:
    outputs, targets = data_of(kind, count, seed)
    losses = torch.rand(count, generator=torch.Generator().manual_seed(seed))
    whole = book_of(kind, gather=gather)
    whole.update(outputs, targets, loss=losses.mean(), weight=count)
    books = [book_of(kind, gather=gather) for _ in range(sites)]
    edges = sorted({0, count, *(min(cut, count) for cut in cuts)})
    for number, (start, end) in enumerate(itertools.pairwise(edges)):
        part = slice(start, end)
        books[number % sites].update(outputs[part], targets[part], loss=losses[part].mean(), weight=end - start)
    together = pooled(books)
    for one, other in zip(whole.states(), together._pooled or [], strict=True):
        if one.dtype == torch.int64 and kind != "regression":
            assert torch.equal(one, torch.from_numpy(other))
    expected = whole.compute()
    assert together.compute() == pytest.approx(expected, rel=1e-12, abs=1e-12, nan_ok=True) or _nearly(
        together.compute(), expected
    )


def _nearly(found: dict[str, float], expected: dict[str, float]) -> bool:
    """The batch's mean loss is float32; everything else must agree to 1e-12."""
    return all(
        math.isclose(found[name], expected[name], rel_tol=1e-6 if name == "loss" else 1e-12)
        or (math.isnan(found[name]) and math.isnan(expected[name]))
        for name in expected
    )


@pytest.mark.parametrize("kind", KINDS)
def test_states_have_the_same_shapes_with_and_without_data(kind: str) -> None:
    for gather in (True, False):
        empty, full = book_of(kind, gather=gather), book_of(kind, gather=gather)
        full.update(*data_of(kind, 5, 0))
        assert [(s.shape, s.dtype) for s in empty.states()] == [(s.shape, s.dtype) for s in full.states()]
        assert all(state.dtype in (torch.int64, torch.float64) for state in full.states())


def test_exact_ranking_refuses_pooled_sums_without_the_gathered_predictions() -> None:
    one, two = (book_of("binary", metrics=["auroc"]) for _ in range(2))
    for seed, book in enumerate((one, two)):
        book.update(*data_of("binary", 10, seed))
    one.load_states([a + b for a, b in zip(one.states(), two.states(), strict=True)])
    with pytest.raises(ProtocolError, match="10 predictions of 20 samples"):
        one.compute()


def test_states_of_another_book_are_refused() -> None:
    with pytest.raises(ProtocolError, match="same number of classes"):
        book_of("multiclass").load_states(book_of("multiclass", classes=4).states())


def test_reset_ends_the_pooled_scores() -> None:
    one = book_of("multiclass", metrics=["accuracy"])
    one.update(torch.tensor([[1.0, 0, 0]]), torch.tensor([0]))
    one.load_states([2 * state for state in one.states()])
    assert one.details()["confusion_matrix"]["counts"][0][0] == 2
    one.reset()
    assert math.isnan(one.compute()["accuracy"])


@pytest.mark.parametrize("gather", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_an_evaluation_goes_on_from_its_state_dict_to_the_same_bits(kind: str, gather: bool) -> None:
    straight, first, second = (book_of(kind, gather=gather) for _ in range(3))
    for seed in range(4):
        batch = data_of(kind, 7, seed)
        straight.update(*batch, loss=torch.tensor(0.3 + seed))
        (first if seed < 2 else second).update(*batch, loss=torch.tensor(0.3 + seed))
        if seed == 1:
            second.load_state_dict(first.state_dict())
    assert str(second.compute()) == str(straight.compute())
