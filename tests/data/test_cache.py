"""Items kept in memory or on disk: the same to the bit as those that are made each time, with any number of workers."""

from __future__ import annotations

import logging
import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.data.helpers import Rows, assert_same, opened, volumes
from tests.runs.small_disk import run_on_disk
from weft.config import Component, load_experiment
from weft.data import Batch, Data, make_loader
from weft.errors import ConfigError, DataError, UsageError

BASE = [
    "LoadImaged",
    "EnsureChannelFirstd",
    {"Orientationd": {"axcodes": "PLS", "labels": None}},
    {"Spacingd": {"pixdim": [2, 2, 2], "mode": ["bilinear", "nearest"]}},
    {"ScaleIntensityd": {"keys": ["image"]}},
]
TRAIN = [
    {"RandRotated": {"range_x": 0.3, "prob": 0.7, "mode": ["bilinear", "nearest"]}},
    {"Spacingd": {"pixdim": [1.9, 2, 2.1], "mode": ["bilinear", "nearest"]}},  # needs the metadata
    {"RandSpatialCropd": {"roi_size": [6, 6, 6], "random_size": False}},
    {"NormalizeIntensityd": {"keys": ["image"]}},  # rounds by the order of its sums
    {"RandGaussianNoised": {"keys": ["image"], "prob": 0.5}},
]


def kept(folder: Path, cache: str = "disk", *, base: Any = BASE, train: Any = TRAIN, **fields: Any) -> Data:
    """Volumes of a folder through MONAI's transforms; a cache on disk lies in `folder/.cache`."""
    section = {"table": {"train": "train.csv"}, "inputs": ["image"], "targets": ["label"], **fields}
    transforms = {"base": list(base), "train": list(train)}
    return opened(folder, **section, transforms=transforms, more={"cache": cache, "cache_folder": folder / ".cache"})


def epochs(data: Data, workers: int = 0, *, augment: bool = True) -> list[Batch]:
    """Two epochs of the training split."""
    loader = make_loader(data.splits["train"], batch_size=2, seed=3, shuffle=True, num_workers=workers, augment=augment)
    try:
        return [batch for epoch in range(2) for batch in loader.epoch(epoch)]
    finally:
        loader.close()


def entries(folder: Path) -> list[Path]:
    """The kept items."""
    return sorted((folder / ".cache").rglob("*.safetensors"))


@pytest.fixture
def table(tmp_path: Path) -> Path:
    volumes(tmp_path)
    return tmp_path


def test_batches_are_the_same_to_the_bit_with_any_cache_and_any_number_of_workers(table: Path) -> None:
    expected = epochs(kept(table, "none"))
    assert expected[0].spacing is not None
    for workers in (1, 0, 2):  # the first of those on disk makes the items, the others find them
        for cache in ("memory", "disk", "none"):
            found = epochs(kept(table, cache), workers)
            assert_same(found, expected)
            assert all(torch.equal(one.spacing, other.spacing) for one, other in zip(found, expected, strict=True))
    assert len(entries(table)) == 6
    assert not list((table / ".cache").rglob("incomplete/*"))


def test_several_workers_may_fill_the_cache_at_once(table: Path) -> None:
    assert_same(epochs(kept(table), 2), epochs(kept(table, "none")))
    assert len(entries(table)) == 6


def counted(item: dict[str, Any]) -> dict[str, Any]:
    _made.append(item["inputs"].sum().item())
    return {**item, "inputs": item["inputs"] * 2}


_made: list[float] = []


def digits(folder: Path, cache: str = "disk") -> Data:
    """The first digits, with a transform that counts."""
    return opened(
        folder,
        arrays={"sklearn.datasets.load_digits": {"return_X_y": True}},
        split={"ratio": [0.8, 0.2]},
        load_limit=24,
        transforms={"base": [Component.of(counted)]},
        more={"cache": cache, "cache_folder": folder / ".cache"},
    )


def test_what_is_kept_is_not_made_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _made.clear()
    with caplog.at_level(logging.INFO, "weft"):
        expected = epochs(digits(tmp_path))
    assert len(_made) == 24
    assert [record.message for record in caplog.records if str(tmp_path / ".cache") in record.message]
    caplog.clear()
    assert_same(epochs(digits(tmp_path)), expected)
    assert len(_made) == 24
    assert not caplog.records


def test_changed_sources_and_transforms_make_new_items_and_leave_the_old(table: Path) -> None:
    first = epochs(kept(table))
    image = table / "image2.nii.gz"
    status = image.stat()
    os.utime(image, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert_same(epochs(kept(table)), first)
    assert len(entries(table)) == 7
    other = [*BASE[:3], {"Spacingd": {"pixdim": [2, 2, 3], "mode": ["bilinear", "nearest"]}}]
    epochs(kept(table, base=other))
    assert len(entries(table)) == 13
    assert_same(epochs(kept(table)), first)
    assert len(entries(table)) == 13
    assert all((entry.parents[1] / "recipe.json").is_file() for entry in entries(table))


def test_files_that_arguments_name_count(table: Path) -> None:
    atlas = table / "atlas.txt"
    for text, count in (("1", 6), ("1", 6), ("2.0", 12)):
        atlas.write_text(text) if not atlas.exists() or atlas.read_text() != text else None
        epochs(kept(table, base=[*BASE, Component.of(Divided, atlas="atlas.txt")]))
        assert len(entries(table)) == count


class Divided:
    def __init__(self, atlas: str) -> None:
        self.atlas = atlas

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        return item


def test_damaged_items_are_made_anew(table: Path, caplog: pytest.LogCaptureFixture) -> None:
    expected = epochs(kept(table))
    whole = [entry.read_bytes() for entry in entries(table)]
    damaged = [whole[0][:100], b"", whole[2][:-1], bytes(len(whole[3])), whole[4].replace(b'"', b"'", 1)]
    for entry, content in zip(entries(table), damaged, strict=False):
        entry.write_bytes(content)
    assert_same(epochs(kept(table)), expected)
    assert [entry.read_bytes() for entry in entries(table)] == whole
    assert sum("is damaged and made anew" in record.message for record in caplog.records) == 5


FULL = """
import logging, sys
from pathlib import Path
sys.path.insert(0, {repository!r})
from tests.data.helpers import assert_same
from tests.data.test_cache import digits, epochs
logging.basicConfig(level=logging.WARNING, format="%(message)s")
disk = Path(sys.argv[1])
for workers in (0, 2):
    assert_same(epochs(digits(disk), workers), epochs(digits(disk, "none"), workers))
    print("kept", len(list(disk.rglob("*.safetensors"))), "left", len(list(disk.rglob("incomplete/*"))))
"""


@pytest.mark.parametrize(
    ("options", "reason"),
    [("size=32k", "No space left"), pytest.param("ro,size=1m", "Read-only", marks=pytest.mark.slow)],
)
def test_a_disk_that_refuses_is_told_once_and_training_goes_on(tmp_path: Path, options: str, reason: str) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    repository = str(Path(__file__).resolve().parents[2])
    done = run_on_disk(disk, options, FULL.format(repository=repository))
    assert done.returncode == 0, done.stderr
    warnings = [line for line in done.stderr.splitlines() if line.startswith("items cannot be kept in")]
    assert len(warnings) == 2, done.stderr  # one for each opening of the data
    assert all(reason in line for line in warnings)
    assert all(line.endswith("left 0") for line in done.stdout.splitlines())
    assert ("kept 0" in done.stdout) == (reason == "Read-only")


def _fill(folder: str, results: Any) -> None:
    torch.set_num_threads(1)
    batches = epochs(kept(Path(folder)), 0)
    results.put([batch.inputs.sum().item() for batch in batches])


def test_several_processes_may_share_a_cache_that_is_being_filled(table: Path) -> None:
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    processes = [context.Process(target=_fill, args=(str(table), results)) for _ in range(4)]
    for process in processes:
        process.start()
    found = [results.get(timeout=120) for _ in processes]
    for process in processes:
        process.join()
    assert found == [[batch.inputs.sum().item() for batch in epochs(kept(table, "none"))]] * 4
    assert len(entries(table)) == 6


def unwritable(item: dict[str, Any]) -> dict[str, Any]:
    return {**item, "made": object()}


@pytest.mark.parametrize("workers", [0, 2])
def test_items_that_cannot_be_written_down_are_an_error_with_its_place(table: Path, workers: int) -> None:
    with pytest.raises(DataError, match=r"train.csv line \d \(case image\d\): .*item\['made'\] is a builtins.object"):
        epochs(kept(table, base=[*BASE[:2], unwritable]), workers)


def noisy(item: dict[str, Any]) -> dict[str, Any]:
    return {**item, "image": item["image"] + torch.rand(())}


@pytest.mark.parametrize("cache", ["memory", "disk"])
def test_random_items_are_not_kept(table: Path, cache: str) -> None:
    with pytest.raises(DataError, match="random before dataset.transforms.train"):
        epochs(kept(table, cache, base=[*BASE[:2], noisy]))


def test_items_of_torch_datasets_are_not_kept_on_disk(tmp_path: Path) -> None:
    section = {"class": Component.of(Rows, length=12), "split": {"ratio": [0.5, 0.5]}}
    with pytest.raises(UsageError, match="nothing tells when items of a torch dataset change"):
        opened(tmp_path, **section, more={"cache": "disk", "cache_folder": tmp_path})
    model = {"MLP": {"in_features": 6, "out_features": 3, "hidden": [4]}}
    training = {"task": "classification", "epochs": 1, "batch_size": 2}
    experiment = {"dataset": section, "model": model, "training": training, "run": {"cache": "disk"}}
    with pytest.raises(ConfigError, match="run.cache: items of a torch dataset cannot be kept on disk"):
        load_experiment(experiment)
