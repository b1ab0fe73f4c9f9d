"""What a sample looks like depends on (seed, epoch, row, occurrence) and on nothing else."""

from __future__ import annotations

import itertools
import random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.helpers import (
    RANDOM_DATASETS,
    AllNoise,
    Rows,
    SometimesNoise,
    TorchNoise,
    assert_same,
    global_states,
    split_of,
)
from weft.data import make_loader, snapshot
from weft.data.fetch import BatchKey, Fetcher
from weft.data.randomness import GlobalRandomness

SEEDS = itertools.count(1)


def loader_of(dataset: Any, **more: Any):  # type: ignore[no-untyped-def]
    return make_loader(split_of(dataset), **{"batch_size": 8, "seed": 3, "shuffle": True, **more})


def by_row(batches: Any) -> dict[int, list[float]]:
    return {row: x.tolist() for batch in batches for row, x in zip(batch.index.tolist(), batch.inputs, strict=True)}


@pytest.mark.parametrize("kind", RANDOM_DATASETS)
def test_items_are_the_same_with_0_1_and_2_workers(kind: type[Rows]) -> None:
    expected = [list(loader_of(kind()).epoch(epoch)) for epoch in (0, 1)]
    assert by_row(expected[0]) != by_row(expected[1])
    for workers in (1, 2):
        loader = loader_of(kind(), num_workers=workers)
        try:
            for epoch in (0, 1):
                assert_same(loader.epoch(epoch), expected[epoch])
        finally:
            loader.close()


@pytest.mark.parametrize("kind", RANDOM_DATASETS)
def test_items_are_the_same_in_any_batch_and_share(kind: type[Rows]) -> None:
    expected = by_row(loader_of(kind()).epoch(2))
    assert by_row(loader_of(kind(), batch_size=5).epoch(2)) == expected
    shares = [by_row(loader_of(kind(), share=(rank, 3)).epoch(2)) for rank in range(3)]
    assert {row: x for share in shares for row, x in share.items()} == expected


@pytest.mark.parametrize("kind", RANDOM_DATASETS)
@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_epoch_gives_exactly_the_rest(kind: type[Rows], workers: int) -> None:
    undisturbed = list(loader_of(kind()).epoch(1))
    for skip in (0, 1, 4, len(undisturbed)):
        loader = loader_of(kind(), num_workers=workers)
        try:
            assert_same(loader.epoch(1, skip=skip), undisturbed[skip:])
        finally:
            loader.close()


@pytest.mark.parametrize("kind", [Rows, *RANDOM_DATASETS])
@pytest.mark.parametrize("workers", [0, 1])
def test_loading_leaves_the_global_generators_as_they_were(kind: type[Rows], workers: int) -> None:
    torch.manual_seed(1)
    np.random.seed(2)
    np.random.randn()  # leaves the second number of a pair waiting
    random.seed(3)
    random.gauss(0, 1)
    before = global_states()
    loader = loader_of(kind(), num_workers=workers)
    try:
        for _ in loader.epoch(0):
            assert global_states() == before
    finally:
        loader.close()
    assert global_states() == before


@pytest.mark.parametrize("kind", RANDOM_DATASETS)
def test_items_do_not_depend_on_what_was_drawn_before(kind: type[Rows]) -> None:
    expected = by_row(loader_of(kind()).epoch(0))
    torch.randn(3)
    np.random.randn(3)
    random.gauss(0, 1)
    items = {}
    for batch in loader_of(kind()).epoch(0):
        items.update(by_row([batch]))
        torch.randn(1)  # as the model draws between batches
        np.random.randn()
        random.random()
    assert items == expected


def test_seed_epoch_and_row_all_count() -> None:
    values = {
        (seed, epoch, row): tuple(x)
        for seed in (1, 2)
        for epoch in (0, 1)
        for row, x in by_row(loader_of(TorchNoise(), seed=seed).epoch(epoch)).items()
    }
    assert len(set(values.values())) == len(values)


def test_each_occurrence_of_a_row_looks_different_and_stays_so() -> None:
    sampler = [4, 4, 2, 4]
    batches = list(loader_of(TorchNoise(), sampler=sampler, batch_size=3).epoch(0))
    x = torch.cat([batch.inputs for batch in batches])
    assert not torch.equal(x[0], x[1])
    assert not torch.equal(x[1], x[3])
    again = list(loader_of(TorchNoise(), sampler=sampler, batch_size=3).epoch(0, skip=1))
    assert torch.equal(again[0].inputs[0], x[3])


@given(st.sets(st.integers(0, 49)), st.integers(1, 50))
@settings(max_examples=30)
def test_where_randomness_is_noticed_does_not_matter(rows_before: set[int], batch_size: int) -> None:
    fresh = by_row(loader_of(SometimesNoise(), shuffle=False, batch_size=50).epoch(0))
    fetcher = Fetcher(SometimesNoise(), 3)
    if rows_before:
        fetcher.fetch(BatchKey(9, sorted(rows_before)))
    for start in range(0, 50, batch_size):
        rows = list(range(start, min(start + batch_size, 50)))
        assert by_row([fetcher.fetch(BatchKey(0, rows))]).items() <= fresh.items()


class CountsFetches(Rows):
    """Counts how often items are fetched and how often whole batches."""

    def __init__(self) -> None:
        super().__init__()
        self.items = self.batches = 0

    def __getitem__(self, row: int):  # type: ignore[no-untyped-def]
        self.items += 1
        return super().__getitem__(row)

    def __getitems__(self, rows: list[int]):  # type: ignore[no-untyped-def]
        self.batches += 1
        return [(self.x[row], self.y[row]) for row in rows]


def test_items_without_randomness_are_fetched_once_and_by_the_batch() -> None:
    dataset = CountsFetches()
    assert_same(loader_of(dataset).epoch(0), loader_of(Rows()).epoch(0))
    assert (dataset.items, dataset.batches) == (0, 7)


def test_only_generators_that_are_drawn_from_are_seeded() -> None:
    fetcher = Fetcher(TorchNoise(), 0)
    fetcher.fetch(BatchKey(0, [1, 2]))
    randomness, _ = fetcher._generators()
    assert [type(generator).__name__ for generator in randomness.drawn] == ["_Torch"]


class FailsByChance(Rows):
    def __getitem__(self, row: int):  # type: ignore[no-untyped-def]
        if torch.rand(()) < 0.3:
            raise ValueError("bad luck")
        return super().__getitem__(row)


def test_an_item_that_fails_by_chance_fails_for_every_batch_size_or_for_none() -> None:
    found = [
        by_row(make_loader(split_of(FailsByChance(), skip_bad=True), batch_size=size, seed=0, shuffle=True).epoch(0))
        for size in (1, 7, 50)
    ]
    assert 20 < len(found[0]) < 50
    assert found[0] == found[1] == found[2]


def test_an_interrupt_while_loading_puts_the_generators_back() -> None:
    class Interrupted(AllNoise):
        def __getitem__(self, row: int):  # type: ignore[no-untyped-def]
            super().__getitem__(row)
            raise KeyboardInterrupt

    before = global_states()
    fetcher = Fetcher(Interrupted(), 0)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            fetcher.fetch(BatchKey(0, [0]))
    assert global_states() == before


@pytest.mark.parametrize(
    "draw",
    [
        lambda: torch.rand(1),
        lambda: torch.randn(1),
        lambda: np.random.rand(),
        lambda: np.random.randn(),
        lambda: np.random.permutation(3),
        lambda: np.random.binomial(10, 0.3),
        lambda: random.random(),
        lambda: random.gauss(0, 1),
        lambda: random.shuffle([1, 2, 3]),
        lambda: random.seed(next(SEEDS)),
        lambda: np.random.seed(next(SEEDS)),
        lambda: torch.manual_seed(next(SEEDS)),
    ],
)
def test_every_kind_of_draw_is_noticed_and_taken_back(draw: Any) -> None:
    for _ in range(4):  # pairs of normal numbers: the second of a pair moves no state of the generator itself
        randomness = GlobalRandomness()
        randomness.mark()
        assert not randomness.notice()
        marked = global_states()
        draw()
        assert randomness.notice()
        randomness.restore()
        assert global_states() == marked
        draw()


def test_the_cheap_look_at_the_generators_works_here() -> None:
    assert snapshot._python_memory_works()
    assert snapshot._numpy_memory_works()


def test_another_bit_generator_is_noticed_too() -> None:
    old = np.random.get_bit_generator()
    try:
        np.random.set_bit_generator(np.random.PCG64(1))
        before = snapshot.numpy_fingerprint()
        assert snapshot.numpy_fingerprint() == before
        np.random.rand()
        assert snapshot.numpy_fingerprint() != before
    finally:
        np.random.set_bit_generator(old)
