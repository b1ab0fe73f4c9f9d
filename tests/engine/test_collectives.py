"""Sums over participants: in order of their names and in float64, whatever the size of a tensor."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.engine.collectives import Sum, combine


def one_by_one(column: list[torch.Tensor]) -> torch.Tensor:
    wide = torch.float64 if column[0].is_floating_point() else torch.int64
    total = column[0].to(wide)
    for tensor in column[1:]:
        total = total + tensor.to(wide)
    return total.to(column[0].dtype)


@settings(max_examples=30, deadline=None)
@given(
    sizes=st.lists(st.sampled_from([0, 1, 7, 2**16, 2**17, 2**17 + 1, 300_000]), max_size=4),
    participants=st.integers(1, 5),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.int32, torch.int64]),
    seed=st.integers(0, 100),
)
def test_a_sum_is_taken_in_order_and_in_float64(
    sizes: list[int], participants: int, dtype: torch.dtype, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows = [
        [(torch.randn(size, generator=generator) * 10 ** (9 * number % 4)).to(dtype) for size in sizes]
        for number in range(participants)
    ]
    before = [[tensor.clone() for tensor in row] for row in rows]
    answer = combine([Sum("tag", row) for row in rows])
    for found, *column in zip(answer, *rows, strict=True):
        assert torch.equal(found, one_by_one(column))
        assert found.dtype == dtype
    for row, kept in zip(rows, before, strict=True):
        assert all(torch.equal(tensor, other) for tensor, other in zip(row, kept, strict=True))


@pytest.mark.parametrize("participants", [1, 3])
@pytest.mark.parametrize("size", [3, 500])
def test_an_answer_is_memory_of_its_own(participants: int, size: int) -> None:
    rows = [[torch.ones(size, size).t()] for _ in range(participants)]
    (answer,) = combine([Sum("tag", row) for row in rows])
    answer.zero_()
    assert all(bool((tensor == 1).all()) for (tensor,) in rows)
    assert answer.shape == (size, size)


@pytest.mark.parametrize("participants", [1, 3])
@pytest.mark.parametrize("size", [3, 2**17 + 1])
def test_what_is_sent_may_be_made_of_parameters(participants: int, size: int) -> None:
    parameters = [torch.nn.Parameter(torch.full((size,), 1.0 + number)) for number in range(participants)]
    (answer,) = combine([Sum("tag", [parameter * 2.0]) for parameter in parameters])
    assert torch.equal(answer, torch.full((size,), float(participants * (participants + 1))))
    assert not answer.requires_grad
