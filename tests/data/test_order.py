"""The order of samples: that of a tutorial's DataLoader, a function of (seed, epoch)."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, RandomSampler, TensorDataset, WeightedRandomSampler

from tests.data.helpers import Rows, global_states, split_of
from weft.config import Component, Namespace
from weft.data import BalancedSampler, build_sampler, item_seed, make_loader, seed_for
from weft.data.order import Order, count_batches, epoch_order, permutation, plan_batches
from weft.errors import DataError


@pytest.mark.parametrize("length", [1, 2, 15, 16, 17, 100, 1000])
@pytest.mark.parametrize("drop_last", [False, True])
def test_the_order_is_that_of_a_dataloader_seeded_with_seed_for(length: int, drop_last: bool) -> None:
    dataset = TensorDataset(torch.arange(length))
    generator = torch.Generator()
    theirs = DataLoader(dataset, batch_size=16, shuffle=True, drop_last=drop_last, generator=generator)
    split = split_of(Rows(length))
    ours = make_loader(split, batch_size=16, seed=7, shuffle=True, drop_last=drop_last)
    assert len(ours) == len(theirs)
    for epoch in range(3):
        generator.manual_seed(seed_for(7, epoch))
        expected = [rows.tolist() for (rows,) in theirs]
        assert [batch.index.tolist() for batch in ours.epoch(epoch)] == expected


def test_the_order_is_that_of_a_dataloader_with_two_workers() -> None:
    generator = torch.Generator()
    theirs = DataLoader(TensorDataset(torch.arange(37)), batch_size=4, shuffle=True, num_workers=2, generator=generator)
    ours = make_loader(split_of(Rows(37)), batch_size=4, seed=1, shuffle=True)
    for epoch in range(2):
        generator.manual_seed(seed_for(1, epoch))
        assert [batch.index.tolist() for batch in ours.epoch(epoch)] == [rows.tolist() for (rows,) in theirs]


def test_unshuffled_items_come_in_their_own_order() -> None:
    loader = make_loader(split_of(Rows(10)), batch_size=4, seed=0, shuffle=False)
    assert [batch.index.tolist() for batch in loader.epoch(3)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_seeds_are_fixed_for_all_time_and_the_same_in_another_process() -> None:
    script = "from weft.data import seed_for, item_seed; print(seed_for(42, 3), item_seed(42, 3, 5, 1))"
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert out.stdout.split() == [str(seed_for(42, 3)), str(item_seed(42, 3, 5, 1))]
    assert seed_for(42, 3) == 3562902904494664369
    assert item_seed(42, 3, 5, 1) == 17566170470288930874


@given(st.integers(-(2**70), 2**70), st.integers(0, 10**6))
def test_seed_for_is_what_a_generator_accepts(seed: int, epoch: int) -> None:
    assert 0 <= seed_for(seed, epoch) < 2**63
    torch.Generator().manual_seed(seed_for(seed, epoch))
    assert seed_for(seed, epoch) != seed_for(seed, epoch + 1)
    assert item_seed(seed, epoch, 0) != item_seed(seed, epoch, 0, 1)


@given(st.integers(0, 60), st.integers(1, 9), st.booleans(), st.integers(1, 5), st.integers(0, 8))
def test_ranks_share_every_batch_without_overlap(
    n: int, batch_size: int, drop_last: bool, world: int, skip: int
) -> None:
    order = Order(permutation(n, 3, 1))
    whole = plan_batches(order, batch_size, drop_last=drop_last, skip=skip)
    parts = [
        plan_batches(order, batch_size, drop_last=drop_last, share=(rank, world), skip=skip) for rank in range(world)
    ]
    assert all(len(part.sizes) == len(whole.sizes) for part in parts)
    for number, batch in enumerate(torch.split(whole.rows, whole.sizes) if whole.sizes else ()):
        slices = [torch.split(part.rows, part.sizes)[number] for part in parts]
        assert torch.equal(torch.cat(slices), batch)
        assert max(map(len, slices)) - min(map(len, slices)) <= 1


@given(st.integers(0, 60), st.integers(1, 9), st.integers(1, 5))
def test_ranks_evaluate_every_item_once(n: int, batch_size: int, world: int) -> None:
    plans = [
        plan_batches(Order(torch.arange(n)), batch_size, share=(rank, world), every_nth=True) for rank in range(world)
    ]
    assert [plan.rows.tolist() for plan in plans] == [list(range(rank, n, world)) for rank in range(world)]
    for rank, plan in enumerate(plans):
        assert len(plan.sizes) == count_batches(n, batch_size, drop_last=False, share=(rank, world), every_nth=True)


@given(st.integers(0, 60), st.integers(1, 9), st.booleans(), st.integers(0, 70))
def test_a_resumed_epoch_is_the_rest_of_the_whole_one(n: int, batch_size: int, drop_last: bool, skip: int) -> None:
    order = Order(permutation(n, 0, 0), list(range(n)))
    whole = plan_batches(order, batch_size, drop_last=drop_last)
    rest = plan_batches(order, batch_size, drop_last=drop_last, skip=skip)
    assert rest.sizes == whole.sizes[skip:]
    assert rest.rows.tolist() == whole.rows.tolist()[sum(whole.sizes[:skip]) :]
    assert (rest.occurrences or []) == (whole.occurrences or [])[sum(whole.sizes[:skip]) :]


class UnseededSampler:
    """Draws from the global generators."""

    def __len__(self) -> int:
        return 5

    def __iter__(self):  # type: ignore[no-untyped-def]
        import random

        return iter([random.randrange(10), *torch.randint(10, (4,)).tolist()])


@pytest.mark.parametrize(
    "make",
    [
        lambda split: WeightedRandomSampler([1.0] * len(split), 10),
        lambda split: RandomSampler(split),
        lambda split: UnseededSampler(),
    ],
)
def test_samplers_follow_seed_and_epoch_and_leave_global_generators_alone(make) -> None:  # type: ignore[no-untyped-def]
    split = split_of(Rows(10))
    before = global_states()

    def rows(seed: int, epoch: int) -> list[int]:
        loader = make_loader(split, batch_size=3, seed=seed, shuffle=False, sampler=make(split))
        return [row for batch in loader.epoch(epoch) for row in batch.index.tolist()]

    assert rows(1, 0) == rows(1, 0)
    assert len({tuple(rows(seed, epoch)) for seed in (1, 2) for epoch in (0, 1)}) > 1
    assert global_states() == before


def test_a_row_drawn_twice_has_two_occurrences() -> None:
    order = epoch_order(5, shuffle=False, seed=0, epoch=0, sampler=[1, 1, 2, 1])
    assert order.occurrences == [0, 1, 0, 2]


def test_a_sampler_that_leaves_the_split_is_an_error() -> None:
    with pytest.raises(DataError, match="row 5"):
        epoch_order(5, shuffle=False, seed=0, epoch=0, sampler=[1, 5])


@pytest.mark.parametrize(
    "written",
    [
        "BalancedSampler",
        "RandomSampler",
        {"WeightedRandomSampler": {"weights": [1.0] * 20, "num_samples": 20}},
        {"SubsetRandomSampler": {"indices": list(range(5, 20))}},
    ],
)
def test_samplers_are_named_in_the_experiment(written: Any) -> None:
    rows = Rows(20)
    split = split_of(rows, arrays=(rows.x, rows.y))
    sampler = build_sampler(Component.parse(written), Namespace(), split)
    loader = make_loader(split, batch_size=8, seed=0, shuffle=True, sampler=sampler)
    orders = [[batch.index.tolist() for batch in loader.epoch(epoch)] for epoch in (0, 1, 0)]
    assert orders[0] == orders[2] != orders[1]
    assert len(orders[0]) == len(loader)


def test_a_balanced_sampler_draws_every_class_equally_often() -> None:
    labels = torch.tensor([0] * 90 + [1] * 10)
    split = split_of(Rows(100), arrays=(torch.zeros(100, 1), labels))
    sampler = BalancedSampler(split, num_samples=4000)
    loader = make_loader(split, batch_size=4000, seed=0, shuffle=True, sampler=sampler)
    assert abs(next(loader.epoch(0)).targets.float().mean() - 0.5) < 0.03
