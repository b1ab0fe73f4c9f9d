"""Arrays, folders of pairs, datasets; scaling and shape; digests."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.preprocessing import StandardScaler

from tests.data.helpers import Rows, TorchNoise, config, opened
from weft.config import Component, Namespace
from weft.data import digest_data, make_loader
from weft.data.standardize import Moments
from weft.errors import DataError

DIGITS = {"sklearn.datasets.load_digits": {"return_X_y": True}}
CANCER = {"sklearn.datasets.load_breast_cancer": {"return_X_y": True}}


def test_arrays_of_a_component_become_float32_and_labels() -> None:
    data = opened(Path(), arrays=DIGITS, shape=[1, 8, 8])
    x, y = load_digits(return_X_y=True)
    inputs, targets = data.splits["train"].arrays or ()
    assert torch.equal(inputs, torch.tensor(x, dtype=torch.float32).reshape(-1, 1, 8, 8))
    assert torch.equal(targets, torch.tensor(y))
    assert data.classes == [str(digit) for digit in range(10)]


def test_standardize_is_fitted_on_the_training_split_only() -> None:
    data = opened(Path(), arrays=CANCER, split={"ratio": [0.7, 0.3]}, standardize=True)
    x = load_breast_cancer().data.astype(np.float32).astype(np.float64)
    rows = {name: list(map(int, split.cases)) for name, split in data.splits.items()}
    scaler = StandardScaler().fit(x[rows["train"]])
    for name, split in data.splits.items():
        assert np.abs((split.arrays or ())[0].numpy() - scaler.transform(x[rows[name]])).max() < 1e-5


def test_statistics_of_an_earlier_run_scale_as_its_training_did() -> None:
    first = opened(Path(), arrays=CANCER, split={"ratio": [0.7, 0.3]}, standardize=True)
    kept = json.loads(json.dumps(first.statistics))
    again = opened(Path(), seed=9, arrays=CANCER, standardize=True, more={"statistics": kept})
    rows = list(map(int, first.splits["validation"].cases))
    assert torch.equal((again.splits["train"].arrays or ())[0][rows], (first.splits["validation"].arrays or ())[0])


def test_constant_inputs_are_left_at_scale_1_and_reported() -> None:
    data = opened(Path(), arrays=DIGITS, standardize=True)
    x = load_digits().data
    constant = np.flatnonzero(x.max(0) == x.min(0)).tolist()
    assert data.summary()["constant_inputs"] == [constant]
    inputs = (data.splits["train"].arrays or ())[0]
    assert torch.isfinite(inputs).all()
    assert (inputs[:, constant] == 0).all()


def test_moments_taken_in_pieces_are_those_of_the_whole() -> None:
    for shape in ((100, 4), (100, 5, 5), (100, 3, 5, 5)):
        values = torch.randn(shape, dtype=torch.float64) * 3 + 1e4
        moments = Moments()
        for start in range(0, 100, 17):
            moments.add(values[start : start + 17])
        axes = (0,) if len(shape) == 2 else (0, 1, 2) if len(shape) == 3 else (0, 2, 3)
        found = moments.as_dict()
        assert torch.allclose(torch.tensor(found["mean"]).squeeze().double(), values.mean(axes), rtol=1e-6)
        expected = values.std(axes, correction=0)
        assert torch.allclose(torch.tensor(found["scale"], dtype=torch.float64).squeeze(), expected, rtol=1e-6)


def test_load_limit_holds_for_each_split() -> None:
    data = opened(Path(), arrays=CANCER, split={"ratio": [0.7, 0.15, 0.15]}, load_limit=10)
    assert [len(split) for split in data.splits.values()] == [10, 10, 10]


def test_array_files_and_their_mistakes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.save(tmp_path / "x.npy", rng.normal(size=(6, 2)))
    np.savez(tmp_path / "both.npz", x=rng.normal(size=(6, 2)), y=np.arange(6))
    np.save(tmp_path / "short.npy", np.arange(5))
    np.save(tmp_path / "nan.npy", np.array([[1.0, 2], [3, np.nan]]))
    np.save(tmp_path / "objects.npy", np.array([{}, 1], dtype=object), allow_pickle=True)
    (tmp_path / "torn.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:100])
    data = opened(tmp_path, arrays={"inputs": "both.npz", "targets": "both.npz"})
    assert (data.splits["train"].arrays or ())[1].tolist() == list(range(6))
    for pair, message in (
        ({"inputs": "x.npy", "targets": "short.npy"}, "targets have 5 rows, inputs have 6"),
        ({"inputs": "gone.npy"}, "gone.npy"),
        ({"inputs": "nan.npy"}, "nan.npy row 1: 'inputs' is nan"),
        ({"inputs": "objects.npy"}, "objects.npy cannot be read"),
        ({"inputs": "torn.npy"}, "torn.npy cannot be read"),
    ):
        with pytest.raises(DataError, match=message):
            opened(tmp_path, arrays=pair)


def test_a_shape_that_does_not_fit_is_told() -> None:
    with pytest.raises(DataError, match=r"\[64\] cannot be brought to dataset.shape \[1, 9, 9\]"):
        opened(Path(), arrays=DIGITS, shape=[1, 9, 9])


def folder_of_pairs(folder: Path) -> None:
    rng = np.random.default_rng(1)
    for split, count in (("train", 6), ("validation", 3)):
        for kind in ("x", "y"):
            (folder / split / kind).mkdir(parents=True)
            for number in range(count):
                values = rng.normal(size=(1, 4, 4)) if kind == "x" else rng.integers(0, 2, (4, 4))
                np.save(folder / split / kind / f"case{number}.npy", values)


def test_a_folder_of_pairs(tmp_path: Path) -> None:
    folder_of_pairs(tmp_path)
    data = opened(tmp_path, folder=".")
    assert {name: split.cases for name, split in data.splits.items()}["validation"] == ["case0", "case1", "case2"]
    batch = next(make_loader(data.splits["train"], batch_size=6, seed=0, shuffle=False).epoch(0))
    assert torch.equal(batch.inputs[2], torch.tensor(np.load(tmp_path / "train/x/case2.npy"), dtype=torch.float32))
    assert batch.targets.dtype == torch.int64
    scaled = opened(tmp_path, folder=".", standardize=True, shape=[16])
    x = torch.cat([b.inputs for b in make_loader(scaled.splits["train"], batch_size=4, seed=0, shuffle=False).epoch(0)])
    assert x.shape == (6, 16)
    assert abs(x.mean()) < 1e-6
    assert abs(x.std(correction=0) - 1) < 1e-6


def test_a_file_without_partner_is_named(tmp_path: Path) -> None:
    folder_of_pairs(tmp_path)
    (tmp_path / "train/y/case3.npy").unlink()
    with pytest.raises(DataError, match=r"case3.npy has no partner in .*y"):
        opened(tmp_path, folder=".")


def test_a_folder_without_train_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no folder train/"):
        opened(tmp_path, folder=".")


def test_a_dataset_class_is_divided_and_loaded() -> None:
    data = opened(Path(), **{"class": Component.of(TorchNoise, length=40)}, split={"ratio": [0.75, 0.25]})
    split = data.splits["train"]
    assert len(split) == 30
    first = list(make_loader(split, batch_size=8, seed=0, shuffle=True).epoch(0))
    again = list(make_loader(split, batch_size=8, seed=0, shuffle=True).epoch(0))
    assert torch.equal(first[0].inputs, again[0].inputs)
    rows = [int(case) for case in split.cases]
    assert torch.equal(first[0].targets, Rows(40).y[[rows[index] for index in first[0].index.tolist()]])


def test_a_dataset_for_each_split() -> None:
    kinds = {name: Component.of(Rows, length=length) for name, length in (("train", 20), ("test", 6))}
    data = opened(Path(), **{"class": kinds})
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 20, "test": 6}


class Endless:
    def __iter__(self) -> Any:
        return iter([])


class Lengthless:
    def __getitem__(self, row: int) -> int:
        return row


@pytest.mark.parametrize(
    ("component", "message"),
    [
        (Component.of(Endless), "no __getitem__"),
        (Component.of(Lengthless), "no length"),
        (Component.of(Rows, length=0), "no items"),
    ],
)
def test_a_dataset_that_cannot_be_visited_is_told(component: Component, message: str) -> None:
    with pytest.raises(DataError, match=message):
        opened(Path(), **{"class": component})


def test_the_digest_depends_on_content_only(tmp_path: Path) -> None:
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        folder_of_pairs(tmp_path / name)
    cache = tmp_path / "cache" / "digests.json"
    one = digest_data(config(folder="here"), tmp_path, cache)
    assert one == digest_data(config(folder="here"), tmp_path, cache)
    assert len(one.files) == 18
    assert one.files[0].path == "here/train/x/case0.npy"
    assert digest_data(config(folder="there"), tmp_path, cache).digest == one.digest
    np.save(tmp_path / "there/train/x/case0.npy", np.zeros((1, 4, 4)))
    assert digest_data(config(folder="there"), tmp_path, cache).digest != one.digest


def test_digests_come_from_the_cache_as_long_as_size_and_time_are_the_same(tmp_path: Path) -> None:
    folder_of_pairs(tmp_path)
    cache = tmp_path / "digests.json"
    dataset = config(folder=".")
    unknown = digest_data(dataset, tmp_path, cache, only_cached=True)
    assert unknown.digest is None
    assert "18 of 18 files" in unknown.undigested
    known = digest_data(dataset, tmp_path, cache)
    assert digest_data(dataset, tmp_path, cache, only_cached=True) == known
    file = tmp_path / "train/x/case0.npy"
    status = file.stat()
    np.save(file, np.ones((1, 4, 4)))
    assert digest_data(dataset, tmp_path, cache, only_cached=True).digest is None
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert digest_data(dataset, tmp_path, cache, only_cached=True) == known
    cache.write_text("{torn")
    assert digest_data(dataset, tmp_path, cache).digest != known.digest


def test_arrays_of_a_component_are_digested_by_their_content() -> None:
    one = digest_data(config(arrays=CANCER), Path(), None, namespace=Namespace())
    assert one.digest == digest_data(config(arrays=CANCER), Path(), None).digest
    assert one.digest != digest_data(config(arrays=DIGITS), Path(), None).digest
    assert digest_data(config(arrays=CANCER), Path(), None, only_cached=True).digest is None


def test_datasets_are_not_digested_and_say_so() -> None:
    manifest = digest_data(config(**{"class": Component.of(Rows)}), Path(), None)
    assert manifest.digest is None
    assert manifest.undigested
