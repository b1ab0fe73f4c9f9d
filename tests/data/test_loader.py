"""Batches: equal to a DataLoader's, from memory or item by item; errors and bad items."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from tests.data.helpers import AllNoise, Rows, assert_same, global_states, split_of
from weft.data import Batch, make_loader, seed_for
from weft.errors import DataError, UsageError


def in_memory(rows: Rows, **more: Any) -> Any:
    return split_of(rows, arrays=(rows.x, rows.y), **more)


@pytest.mark.parametrize("batch_size", [1, 7, 16, 64])
@pytest.mark.parametrize("features", [1, 5, 16, 66])
@pytest.mark.parametrize("from_memory", [True, False])
def test_batches_are_those_of_a_dataloader_to_the_bit(batch_size: int, features: int, from_memory: bool) -> None:
    rows = Rows(100, features)
    split = in_memory(rows) if from_memory else split_of(rows)
    loader = make_loader(split, batch_size=batch_size, seed=5, shuffle=True)
    generator = torch.Generator()
    theirs = DataLoader(TensorDataset(rows.x, rows.y), batch_size=batch_size, shuffle=True, generator=generator)
    for epoch in range(2):
        generator.manual_seed(seed_for(5, epoch))
        for ours, (x, y) in zip(loader.epoch(epoch), theirs, strict=True):
            assert torch.equal(ours.inputs, x)
            assert torch.equal(ours.targets, y)
            assert ours.inputs.dtype == x.dtype
            assert ours.size == len(x)
            # A kernel may round differently on memory that is not aligned as a tensor of its own is.
            assert ours.inputs.data_ptr() % 64 == 0
            assert ours.inputs.is_contiguous()


def test_memory_and_items_give_the_same_batches_from_anywhere_in_an_epoch() -> None:
    rows = Rows(45, 16)
    for shuffle in (True, False):
        for share in ((0, 1), (1, 3)):
            more: dict[str, Any] = {"batch_size": 8, "seed": 1, "shuffle": shuffle, "share": share}
            for skip in (0, 2, 5, 9):
                fast = make_loader(in_memory(rows), **more).epoch(4, skip=skip)
                assert_same(fast, make_loader(split_of(rows), **more).epoch(4, skip=skip))


def test_changing_a_batch_in_place_does_not_change_the_data() -> None:
    rows = Rows(32)
    original = rows.x.clone()
    for shuffle in (True, False):
        for batch in make_loader(in_memory(rows), batch_size=8, seed=0, shuffle=shuffle).epoch(0):
            batch.inputs.zero_()
    assert torch.equal(rows.x, original)


def test_a_rank_without_samples_gets_an_empty_batch_of_the_right_shape() -> None:
    rows = Rows(9, 4)
    for split in (in_memory(rows), split_of(rows), split_of(AllNoise(9))):
        loaders = [make_loader(split, batch_size=4, seed=0, shuffle=True, share=(rank, 3)) for rank in range(3)]
        last = [list(loader.epoch(0))[-1] for loader in loaders]
        assert [len(loader) for loader in loaders] == [3, 3, 3]
        assert sorted(batch.size for batch in last) == [0, 0, 1]
        for batch in last:
            assert batch.inputs.shape[1:] == split.dataset[0][0].shape
            assert batch.targets.dtype == torch.int64
            assert len(batch.index) == len(batch.inputs) == batch.size


def test_several_inputs_and_no_targets() -> None:
    a, b = torch.randn(10, 3), torch.randn(10, 2, 2)
    split = split_of(TensorDataset(a, b, torch.arange(10)), arrays=((a, b), None))
    batch = next(make_loader(split, batch_size=4, seed=0, shuffle=False).epoch(0))
    assert [part.shape for part in batch.inputs] == [(4, 3), (4, 2, 2)]
    assert batch.targets is None
    by_item = next(
        make_loader(split_of(TensorDataset(a, b, torch.arange(10))), batch_size=4, seed=0, shuffle=False).epoch(0)
    )
    assert torch.equal(by_item.inputs[1], b[:4])
    assert by_item.targets.tolist() == [0, 1, 2, 3]


class Items:
    """Items as given."""

    def __init__(self, *items: Any) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, row: int) -> Any:
        return self.items[row]


def first_batch(*items: Any, **more: Any) -> Batch:
    return next(make_loader(split_of(Items(*items), **more), batch_size=len(items), seed=0, shuffle=False).epoch(0))


def test_items_of_many_forms_become_batches_as_the_dataloader_makes_them() -> None:
    batch = first_batch((np.array([1.0, 2.0]), 3), (np.array([4.0, 5.0]), 6))
    assert batch.inputs.dtype == torch.float64
    assert batch.targets.tolist() == [3, 6]
    assert first_batch(torch.ones(2), torch.zeros(2)).targets is None
    assert first_batch([torch.ones(2), 1], [torch.zeros(2), 0]).targets.tolist() == [1, 0]
    assert first_batch((torch.ones(2),), (torch.zeros(2),)).inputs.shape == (2, 2)
    parts = first_batch(((torch.ones(2), torch.ones(3)), 1.5), ((torch.ones(2), torch.ones(3)), 2.5))
    assert [part.shape for part in parts.inputs] == [(2, 2), (2, 3)]
    named = first_batch(
        (torch.ones(1), {"box": torch.ones(4), "label": 1}), (torch.ones(1), {"box": torch.ones(4), "label": 0})
    )
    assert named.targets["box"].shape == (2, 4)
    assert named.targets["label"].tolist() == [1, 0]


def test_items_that_are_dicts_are_read_by_their_names() -> None:
    item = {"image": torch.ones(1, 2), "age": 3.0, "label": 1}
    batch = first_batch(item, item, keys=(["image", "age"], ["label"]))
    assert [len(part) for part in batch.inputs] == [2, 2]
    assert batch.targets.tolist() == [1, 1]
    assert first_batch({"inputs": torch.ones(2), "targets": 1}).targets.tolist() == [1]
    with pytest.raises(DataError, match="has no 'imge'"):
        first_batch(item, keys=(["imge"], ["label"]))


def test_one_item_may_become_several_samples() -> None:
    crops = [{"inputs": torch.full((2,), float(crop)), "targets": crop} for crop in range(3)]
    batch = first_batch(crops, crops)
    assert batch.size == 6
    assert batch.index.tolist() == [0, 0, 0, 1, 1, 1]
    assert batch.targets.tolist() == [0, 1, 2, 0, 1, 2]


def test_items_of_unlike_shape_are_named() -> None:
    with pytest.raises(DataError, match=r"case0\) has inputs \(2,\).*case2\) has inputs \(3,\)") as caught:
        first_batch((torch.ones(2), 1), (torch.ones(2), 1), (torch.ones(3), 1))
    assert "evaluation_batch_size: 1" in caught.value.hint


class Broken(Rows):
    """Some rows cannot be loaded."""

    bad = (3, 4, 20)

    def __getitem__(self, row: int) -> Any:
        if row in self.bad:
            raise OSError(f"disk trouble with {row}")
        return super().__getitem__(row)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_item_that_cannot_be_loaded_is_named_with_its_cause(workers: int) -> None:
    split = split_of(Broken(), source="train.csv", rows=range(2, 52), row_word="line")
    loader = make_loader(split, batch_size=8, seed=0, shuffle=False, num_workers=workers)
    try:
        with pytest.raises(DataError, match=r"train.csv line 5 \(case case3\): OSError: disk trouble with 3") as caught:
            list(loader.epoch(0))
    finally:
        loader.close()
    assert "on_bad_item" in caught.value.hint
    assert "disk trouble with 3" in str(caught.value.__cause__)
    if workers:
        assert "helpers.py" in str(caught.value.__cause__) or "test_loader.py" in str(caught.value.__cause__)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("base", [Rows, AllNoise])
def test_bad_items_are_skipped_counted_and_named(workers: int, base: type[Rows]) -> None:
    class Bad(base):  # type: ignore[misc, valid-type]
        def __getitem__(self, row: int) -> Any:
            if row in (3, 4, 20):
                raise OSError(f"disk trouble with {row}")
            return super().__getitem__(row)

    before = global_states()
    loader = make_loader(split_of(Bad(24), skip_bad=True), batch_size=8, seed=0, shuffle=False, num_workers=workers)
    try:
        batches = [list(loader.epoch(epoch)) for epoch in range(2)]
    finally:
        loader.close()
    assert [batch.size for batch in batches[1]] == [6, 8, 7]
    assert [row for batch in batches[0] for row in batch.index.tolist()] == [
        r for r in range(24) if r not in (3, 4, 20)
    ]
    assert loader.skipped_items == {f"case{row}": f"OSError: disk trouble with {row}" for row in (3, 4, 20)}
    assert global_states() == before


def test_a_batch_of_bad_items_only_is_empty() -> None:
    class Bad(Rows):
        def __getitem__(self, row: int) -> Any:
            if row < 4:
                raise OSError("gone")
            return super().__getitem__(row)

    loader = make_loader(split_of(Bad(8), skip_bad=True), batch_size=4, seed=0, shuffle=False)
    assert [(batch.size, tuple(batch.inputs.shape)) for batch in loader.epoch(0)] == [(0, (0, 6)), (4, (4, 6))]


def test_a_split_of_bad_items_only_is_an_error() -> None:
    class Bad(Rows):
        def __getitem__(self, row: int) -> Any:
            raise OSError("gone")

    with pytest.raises(DataError, match="not one item"):
        list(make_loader(split_of(Bad(8), skip_bad=True), batch_size=4, seed=0, shuffle=False).epoch(0))


@pytest.mark.parametrize(
    "wrong", [{"batch_size": 0}, {"batch_size": 2, "num_workers": -1}, {"batch_size": 2, "share": (2, 2)}]
)
def test_sizes_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        make_loader(split_of(Rows(5)), **{"seed": 0, "shuffle": True, **wrong})


def test_a_batch_moves_to_another_device_with_its_memory_format() -> None:
    batch = Batch((torch.ones(2, 3, 4, 4), torch.ones(2, 5)), {"mask": torch.ones(2, 4, 4)}, torch.arange(2), 2)
    moved = batch.to("meta", memory_format=torch.channels_last)
    assert moved.inputs[0].device.type == moved.targets["mask"].device.type == "meta"
    assert batch.to("cpu", memory_format=torch.channels_last).inputs[0].is_contiguous(memory_format=torch.channels_last)
    volume = Batch(torch.ones(1, 2, 3, 3, 3), None, torch.arange(1), 1).to("cpu", memory_format=torch.channels_last_3d)
    assert volume.inputs.is_contiguous(memory_format=torch.channels_last_3d)
