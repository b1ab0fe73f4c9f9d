"""Items and index: what is None is left out, the index is one, its shuffle is a function of the epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.interop.scorch.files import result, same, train, weights
from weft.data import make_loader
from weft.data.split_data import SplitData
from weft.interop.scorch import ScorchItems

ITEM = "return [img], [target]"


class Index:
    """Items in an order that shuffle changes."""

    made = 0

    def __init__(self, path: str, items: int = 10) -> None:
        type(self).made += 1
        self.order = np.random.permutation(items)
        self.shuffles = 0

    def shuffle(self) -> None:
        self.shuffles += 1
        np.random.shuffle(self.order)


class Steady:
    """An index without shuffle."""

    def __init__(self, path: str) -> None:
        self.order = list(range(10))


class DataSet:
    def __init__(self, ds_index: Any, mode: str = "train") -> None:
        self.ds_index, self.mode = ds_index, mode

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> Any:
        return [torch.tensor([float(self.ds_index.order[index])]), None], [index, None]


def values(items: ScorchItems) -> list[float]:
    return [float(items[row].inputs[0]) for row in range(len(items))]


def test_modes_share_one_index_and_a_second_run_has_its_own() -> None:
    first, valid, second = (ScorchItems(DataSet, ".", mode, Steady) for mode in ("train", "valid", "train"))
    assert first.steady.ds_index is valid.steady.ds_index
    assert first.steady.ds_index is not second.steady.ds_index


def test_an_index_is_made_once_for_all_modes() -> None:
    Index.made = 0
    items = [ScorchItems(DataSet, ".", mode, Index) for mode in ("train", "valid", "test")]
    assert Index.made == 1
    assert len({id(item.steady.ds_index) for item in items}) == 1


def test_what_an_index_draws_follows_from_the_seed() -> None:
    one, same_seed, other = (ScorchItems(DataSet, ".", "train", Index, seed=seed) for seed in (1, 1, 2))
    assert values(one) == values(same_seed) != values(other)


def test_the_order_of_an_epoch_is_a_function_of_the_epoch() -> None:
    items = ScorchItems(DataSet, ".", "train", Index)
    orders = []
    for epoch in (0, 1, 2, 3):
        items.set_epoch(epoch)
        orders.append(values(items))
    assert len({tuple(order) for order in orders}) == 4
    assert items.current.ds_index.shuffles == 3
    for epoch in (2, 0, 3, 1):  # as a resumed run, a loader worker that comes late, or scoring asks for it
        items.set_epoch(epoch)
        assert values(items) == orders[epoch]


def test_shuffling_leaves_the_items_of_other_modes_alone() -> None:
    train_items, valid = (ScorchItems(DataSet, ".", mode, Index) for mode in ("train", "valid"))
    before = values(valid)
    train_items.set_epoch(2)
    assert values(valid) == before


@pytest.mark.parametrize("workers", [0, 2])
def test_a_shuffled_index_reaches_loader_workers(workers: int) -> None:
    split = SplitData("train", ScorchItems(DataSet, ".", "train", Index), [str(row) for row in range(10)])
    alone = make_loader(split, batch_size=4, seed=1, shuffle=True)
    loader = make_loader(split, batch_size=4, seed=1, shuffle=True, num_workers=workers)
    try:
        for epoch in (0, 1, 1, 2, 0):
            found = torch.cat([batch.inputs[0] for batch in loader.epoch(epoch)])
            assert torch.equal(found, torch.cat([batch.inputs[0] for batch in alone.epoch(epoch)]))
    finally:
        loader.close()


def test_nones_inside_an_item_are_left_out() -> None:
    sample = ScorchItems(DataSet, ".", "train", Index)[3]
    assert (len(sample.inputs), sample.targets) == (1, (3,))


def test_values_of_other_kinds_become_what_torch_makes_of_them(tmp_path: Path) -> None:
    """Whole numbers int64, others float64, text a list, dicts dicts."""
    kinds = {ITEM: "return [img, 2, {'a': 0.5}, numpy.float32(3), [1, 2]], [target, 'text', 1.5]"}
    check = {
        "return torch.nn.functional.cross_entropy(pred[0], target[0])":
        "assert [type(part).__name__ for part in target] == ['Tensor', 'list', 'Tensor'], target\n"
        "        assert (target[0].dtype, target[2].dtype) == (torch.int64, torch.float64)\n"
        "        return torch.nn.functional.cross_entropy(pred[0], target[0])",
        "return [self.last":
        "assert input[1].dtype == torch.int64 and input[2]['a'].dtype == torch.float64\n"
        "        return [self.last",
    }  # fmt: skip
    assert result(train(tmp_path, model=check, dataset=kinds, epochs=1))["status"] == "finished"


def test_items_that_are_none_are_left_out_of_training_and_scores(tmp_path: Path) -> None:
    """As if they were not there: a batch of eight with three of them is one of five."""
    some = {ITEM: "return None if index % 3 == 1 else ([img], [target])"}
    counts = {"return torch.nn": "print(len(pred[0]), end=' ', file=open(COUNTS, 'a'))\n        return torch.nn"}
    counts = {old: new.replace("COUNTS", repr(str(tmp_path / "counts"))) for old, new in counts.items()}
    train(tmp_path, model=counts, dataset=some, epochs=1, batch_size=24)
    assert set((tmp_path / "counts").read_text().split()) == {"16"}


@pytest.mark.slow
def test_a_batch_in_which_every_item_is_none_changes_nothing(tmp_path: Path) -> None:
    some = {ITEM: "return None if self.mode == 'train' and index > 1 else ([img], [target])"}
    run = train(tmp_path, dataset=some, epochs=2, batch_size=2)
    assert result(run)["status"] == "finished"


@pytest.mark.slow
def test_workers_do_not_change_a_run(tmp_path: Path) -> None:
    shuffling = {"class DataSet()": "DataSetIndex.shuffle = lambda self: numpy.random.shuffle(self.rows['train'])\n\n\n"
                 "class DataSet()", ITEM: "return [img + torch.randn(4)], [target]"}  # fmt: skip
    for workers in (0, 2):
        train(tmp_path, dataset=shuffling, out=f"workers-{workers}", workers=workers)
    assert same(weights(tmp_path, "workers-0"), weights(tmp_path, "workers-2"))
