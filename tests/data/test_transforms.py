"""Transforms: the item as a dict through a chain; several samples of one item; caching; MONAI on real volumes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.data.helpers import Rows, assert_same, opened, volumes
from weft.config import Component
from weft.data import Data, make_loader
from weft.errors import DataError

ARRAYS = {"sklearn.datasets.load_digits": {"return_X_y": True}}


def add_noise(item: dict[str, Any]) -> dict[str, Any]:
    return {**item, "inputs": item["inputs"] + torch.randn(item["inputs"].shape)}


def double(item: dict[str, Any]) -> dict[str, Any]:
    item["inputs"] *= 2  # in place, as careless transforms do
    return item


def crops(item: dict[str, Any]) -> list[dict[str, Any]]:
    return [{**item, "inputs": item["inputs"][start : start + 4]} for start in (0, 4, 8)]


class Scale:
    """Has `keys`, as transforms for dicts do."""

    def __init__(self, keys: list[str], factor: float = 3.0) -> None:
        self.keys = keys
        self.factor = factor

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        return {**item, **{key: item[key] * self.factor for key in self.keys}}


def digits(cache: str = "none", train: Any = (), base: Any = (), **fields: Any) -> Data:
    transforms = {"train": list(train), "base": list(base)}
    return opened(
        Path(),
        arrays=ARRAYS,
        split={"ratio": [0.9, 0.1]},
        transforms=transforms,
        load_limit=40,
        more={"cache": cache},
        **fields,
    )


def inputs(data: Data, split: str = "train", **more: Any) -> torch.Tensor:
    loader = make_loader(data.splits[split], **{"batch_size": 16, "seed": 0, "shuffle": False, **more})
    try:
        return torch.cat([batch.inputs for batch in loader.epoch(0)])
    finally:
        loader.close()


def test_training_transforms_are_for_augmented_training_only() -> None:
    plain, noisy = digits(), digits(train=[add_noise])
    assert noisy.splits["train"].arrays is not None
    assert torch.equal(inputs(noisy, augment=False), inputs(plain))
    assert torch.equal(inputs(noisy, "validation"), inputs(plain, "validation"))
    assert not torch.equal(inputs(noisy), inputs(plain))
    assert torch.equal(inputs(noisy), inputs(noisy, num_workers=2))


@pytest.mark.parametrize("cache", ["none", "memory"])
def test_base_transforms_are_for_every_split_and_change_no_data(cache: str) -> None:
    plain, doubled = digits(), digits(cache, base=[double])
    for name in ("train", "validation"):
        for _ in range(2):
            assert torch.equal(inputs(doubled, name), inputs(plain, name) * 2)


@pytest.mark.parametrize("workers", [0, 2])
def test_cached_items_are_those_that_are_not_cached(workers: int) -> None:
    kinds = [digits(cache, base=[Component.of(Scale)], train=[add_noise, double]) for cache in ("none", "memory")]
    loaders = [
        make_loader(kind.splits["train"], batch_size=7, seed=2, shuffle=True, num_workers=workers) for kind in kinds
    ]
    try:
        for epoch in range(2):
            assert_same(loaders[0].epoch(epoch), loaders[1].epoch(epoch))
    finally:
        for loader in loaders:
            loader.close()


def test_keys_are_the_inputs_where_none_are_written() -> None:
    assert torch.equal(inputs(digits(base=[Component.of(Scale)])), inputs(digits()) * 3)
    named = digits(base=[Component.of(Scale, keys=["inputs"], factor=5.0)])
    assert torch.equal(inputs(named), inputs(digits()) * 5)


def test_an_item_may_become_several_samples() -> None:
    data = digits(train=[crops, double])
    batch = next(make_loader(data.splits["train"], batch_size=5, seed=0, shuffle=False).epoch(0))
    assert batch.size == 15
    assert batch.index.tolist() == [row for row in range(5) for _ in range(3)]
    assert torch.equal(batch.inputs[1], (data.splits["train"].arrays or ())[0][0][4:8] * 2)


def test_scaling_and_shape_follow_the_transforms() -> None:
    data = digits(base=[double], standardize=True, shape=[8, 8])
    assert torch.allclose(inputs(data).reshape(-1, 64), inputs(digits(standardize=True)), atol=1e-5)
    assert inputs(data).shape == (40, 8, 8)


def fails(item: dict[str, Any]) -> dict[str, Any]:
    raise ValueError("no luck")


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (fails, "transform fails failed: ValueError: no luck"),
        (lambda item: None, "returned NoneType, expected an item"),
    ],
)
def test_a_transform_that_fails_is_named_with_the_item(transform: Any, message: str) -> None:
    data = digits(base=[transform])
    with pytest.raises(DataError, match=message) as caught:
        inputs(data)
    assert "sklearn.datasets.load_digits row" in caught.value.message


def test_transforms_of_a_dataset_see_its_items_as_dicts() -> None:
    data = opened(
        Path(), **{"class": {"train": Component.of(Rows, length=12)}}, transforms={"base": [Component.of(Scale)]}
    )
    assert torch.equal(inputs(data), Rows(12).x * 3)


CROP = {"RandCropByPosNegLabeld": {"spatial_size": [8, 8, 8], "num_samples": 2}}  # keys, label_key: from the table


@pytest.mark.parametrize("cache", ["none", "memory"])
def test_monai_transforms_give_the_same_crops_with_any_number_of_workers(tmp_path: Path, cache: str) -> None:
    transforms = {
        "base": ["LoadImaged", "EnsureChannelFirstd", {"ScaleIntensityd": {"keys": ["image"]}}],
        "train": [
            CROP,
            {"RandFlipd": {"prob": 0.5, "spatial_axis": 0}},
            {"RandGaussianNoised": {"keys": ["image"], "prob": 0.5}},
        ],
    }
    data = opened(tmp_path, **volumes(tmp_path), transforms=transforms, more={"cache": cache})
    split = data.splits["train"]
    assert split.cases == [f"image{case}" for case in range(6)]
    expected = list(make_loader(split, batch_size=2, seed=0, shuffle=True).epoch(1))
    assert [batch.size for batch in expected] == [4, 4, 4]
    assert type(expected[0].inputs) is torch.Tensor
    assert expected[0].inputs.shape == (4, 1, 8, 8, 8)
    assert expected[0].spacing is not None
    assert expected[0].spacing.tolist() == [[1.5, 2.0, 3.0]] * 4
    loader = make_loader(split, batch_size=2, seed=0, shuffle=True, num_workers=2)
    try:
        assert_same(loader.epoch(1), expected)
        assert_same(loader.epoch(1, skip=2), expected[2:])
    finally:
        loader.close()
    other = next(make_loader(split, batch_size=2, seed=1, shuffle=True).epoch(1))
    assert not torch.equal(other.inputs, expected[0].inputs)


def test_files_that_no_transform_loads_are_told(tmp_path: Path) -> None:
    data = opened(tmp_path, **volumes(tmp_path, 1))
    with pytest.raises(DataError, match="Weft itself reads") as caught:
        inputs(data)
    assert "LoadImaged" in str(caught.value.__cause__)


def test_hippocampus_volumes_load_with_their_cases(shared_data: Path) -> None:
    pytest.importorskip("monai")
    pytest.importorskip("nibabel")
    folder = shared_data / "hippocampus"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    transforms = {
        "base": ["LoadImaged", "EnsureChannelFirstd"],
        "train": [{"RandSpatialCropd": {"roi_size": [16, 16, 16], "random_size": False}}],
    }
    tables = {name: f"{name}.csv" for name in ("train", "validation", "test")}
    data = opened(folder, table=tables, inputs=["image"], targets=["label"], transforms=transforms, load_limit=4)
    assert {name: len(split) for name, split in data.splits.items()} == dict.fromkeys(tables, 4)
    assert data.splits["train"].cases[0] == "hippocampus_001"
    batch = next(make_loader(data.splits["train"], batch_size=4, seed=0, shuffle=True).epoch(0))
    assert batch.inputs.shape == batch.targets.shape == (4, 1, 16, 16, 16)
    assert set(batch.targets.unique().tolist()) <= {0, 1, 2}
    assert batch.spacing is not None
    assert batch.spacing.tolist() == [[1.0, 1.0, 1.0]] * 4
    summary = data.summary()["splits"]["validation"]
    assert summary["inputs"]["shape"][0] == 1
    with pytest.raises(DataError, match="items of a batch differ: .*case hippocampus_"):
        next(make_loader(data.splits["validation"], batch_size=4, seed=0, shuffle=False).epoch(0))


class Sized(Rows):
    """Volumes, one of which has another size; its label as well, if wanted."""

    def __init__(self, length: int = 6, labels: bool = False) -> None:
        super().__init__(length)
        self.labels = labels
        self.cases = [f"patient{row}" for row in range(length)]

    def __getitem__(self, row: int) -> tuple[torch.Tensor, torch.Tensor]:
        size = 9 if row == 4 else 8
        return torch.zeros(1, size, 8), torch.zeros(size, 8, dtype=torch.int64) if self.labels else self.y[row]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("labels", [False, True])
def test_items_of_unlike_shapes_are_told_with_both_cases_and_the_remedy(workers: int, labels: bool) -> None:
    data = opened(Path(), **{"class": {"train": Component.of(Sized, labels=labels)}})
    loader = make_loader(data.splits["train"], batch_size=6, seed=0, shuffle=False, num_workers=workers)
    with pytest.raises(DataError) as caught:
        list(loader.epoch(0))
    loader.close()
    assert "item 0 (case patient0) has inputs (1, 8, 8) float32" in caught.value.message
    assert "item 4 (case patient4) has inputs (1, 9, 8) float32" in caught.value.message
    assert ("targets (9, 8) int64" in caught.value.message) == labels
    assert "training.evaluation_batch_size: 1" in caught.value.hint
    assert "crop, pad or resize" in caught.value.hint
    assert len(list(make_loader(data.splits["train"], batch_size=1, seed=0, shuffle=False).epoch(0))) == 6
