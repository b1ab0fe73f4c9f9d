"""Items as bytes and back: the same to the bit, strides and metadata included, or an error."""

from __future__ import annotations

import collections
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from weft.data.packing import DamagedItem, pack, unpack
from weft.errors import DataError

TYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int16, torch.uint8, torch.bool]


def again(item: Any, folder: Path) -> Any:
    file = folder / "item"
    file.write_bytes(pack(item))
    return unpack(file)


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    """Tensors of many types and sizes, laid out in memory in many ways."""
    sizes = draw(st.lists(st.integers(0, 7), max_size=4))
    tensor = (torch.rand(sizes) * 100 - 50).to(draw(st.sampled_from(TYPES)))
    if draw(st.booleans()):
        tensor = tensor.permute(draw(st.permutations(range(tensor.dim()))))
    if draw(st.booleans()):
        tensor = tensor[tuple(slice(draw(st.integers(0, 2)), None, draw(st.integers(1, 2))) for _ in sizes)]
    if draw(st.booleans()):
        tensor = tensor[None].expand(draw(st.integers(0, 3)), *tensor.shape)
    return tensor


@given(tensor=tensors())
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_tensors_come_back_with_type_values_and_strides(tensor: torch.Tensor, tmp_path: Path) -> None:
    (found,) = again([tensor], tmp_path)
    assert type(found) is torch.Tensor
    assert (found.dtype, found.shape, found.stride()) == (tensor.dtype, tensor.shape, tensor.stride())
    assert torch.equal(found, tensor)
    assert torch.equal(found.float().sum(), tensor.float().sum())
    if not any(stride == 0 for stride in found.stride()):
        found.zero_()  # memory of its own


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray:
    sizes = draw(st.lists(st.integers(0, 6), max_size=3))
    types = ["<f4", ">f4", "<f8", "<i2", ">u4", "?", "<c16", "<U5", "S3", "<M8[s]"]
    array = np.random.default_rng(0).integers(0, 99, sizes).astype("<i8").astype(draw(st.sampled_from(types)))
    if draw(st.booleans()):
        array = np.asfortranarray(array)
    if draw(st.booleans()) and sizes:
        array = array[tuple(slice(None, None, draw(st.sampled_from([1, 2, -1, -2]))) for _ in sizes)]
    if draw(st.booleans()):
        array = np.broadcast_to(array, (2, *array.shape))
    return array


@given(array=arrays())
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_arrays_come_back_with_type_values_and_strides(array: np.ndarray, tmp_path: Path) -> None:
    (found,) = again([array], tmp_path)
    assert type(found) is np.ndarray
    assert (found.dtype.str, found.shape) == (array.dtype.str, array.shape)
    if array.size:  # else, and along axes of one entry, strides mean nothing
        strides = zip(array.shape, found.strides, array.strides, strict=True)
        assert all(mine == theirs for size, mine, theirs in strides if size > 1)
    assert np.array_equal(found, array)
    assert found.flags.writeable


def test_plain_values_come_back_as_they_were(tmp_path: Path) -> None:
    item = {
        "numbers": [1, -2.5, 1e-300, 2**70, True, None, math.inf],
        "text": "grüße",
        3: ("a", ("b", []), {}),
        "path": Path("a/b"),
        "bytes": b"\0\xff",
        "type": torch.float16,
        "scalar": np.float32(0.1),
        "text of NumPy": np.str_("x"),
        "sizes": torch.Size([2, 3]),
    }
    found = again(item, tmp_path)
    assert found == item
    assert [type(value) for value in found["numbers"]] == [type(value) for value in item["numbers"]]
    assert type(found["scalar"]) is np.float32
    assert list(found) == list(item)
    assert math.isnan(again(math.nan, tmp_path))


def test_what_occurs_twice_stays_one_object(tmp_path: Path) -> None:
    tensor, array = torch.randn(3), np.zeros(2)
    found = again({"a": tensor, "b": [tensor, array], "c": array, "d": tensor.clone()}, tmp_path)
    assert found["a"] is found["b"][0]
    assert found["c"] is found["b"][1]
    assert found["d"] is not found["a"]


def test_metadata_of_monai_come_back(tmp_path: Path) -> None:
    monai = pytest.importorskip("monai.transforms")
    from monai.data import MetaTensor

    affine = torch.diag(torch.tensor([1.5, 2.0, 3.0, 1.0], dtype=torch.float64))
    image = MetaTensor(torch.rand(1, 8, 9, 10), affine=affine, meta={"note": "ours", "spaces": np.arange(3)})
    turning = monai.Compose(
        [monai.Flip(spatial_axis=0), monai.Orientation("PLS", labels=None), monai.Spacing([2.0] * 3)]
    )
    turned = turning(image)
    found = again({"image": turned}, tmp_path)["image"]
    assert type(found) is MetaTensor
    assert torch.equal(found.as_tensor(), turned.as_tensor())
    assert found.stride() == turned.stride()
    assert torch.equal(found.affine, turned.affine)
    assert found.pixdim.tolist() == turned.pixdim.tolist()
    assert list(found.meta) == list(turned.meta)
    assert found.meta["note"] == "ours"
    assert [entry["class"] for entry in found.applied_operations] == ["Flip", "Orientation", "SpatialResample"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        back = turning.inverse(found)  # transforms of another process are taken for those that were applied
    assert torch.equal(back.as_tensor(), turning.inverse(turned).as_tensor())


class Own:
    pass


Pair = collections.namedtuple("Pair", ["first", "second"])


@pytest.mark.parametrize(
    ("item", "where"),
    [
        ({"image": {"meta": [1, Own()]}}, r"item\['image'\]\['meta'\]\[1\] is a tests.data.test_packing.Own"),
        ({"a": np.array([Own()])}, "is a numpy.ndarray of object"),
        ({"a": torch.zeros(2).to_sparse()}, "torch.sparse_coo"),
        ({"a": torch.nn.Parameter(torch.zeros(2))}, "torch.nn.parameter.Parameter"),
        ({"a": {1, 2}}, "is a builtins.set"),
        ([Pair(1, 2)], "Pair"),
        ({"a": np.ma.masked_array([1.0])}, "numpy.ma"),
    ],
)
def test_what_cannot_be_written_down_exactly_is_refused(item: Any, where: str) -> None:
    with pytest.raises(DataError, match=where):
        pack(item)


def test_damage_of_any_kind_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "item"
    whole = pack({"a": torch.randn(40, 40), "b": "text", "c": np.arange(3)})
    generator = np.random.default_rng(0)
    for length in [0, 1, 7, 8, 100, *generator.integers(0, len(whole), 30)]:
        file.write_bytes(whole[:length])
        with pytest.raises(DamagedItem):
            unpack(file)
    for place in [*range(0, 400, 3), *generator.integers(0, len(whole), 100)]:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(generator.integers(8))
        file.write_bytes(damaged)
        try:
            found = unpack(file)
        except DamagedItem:
            continue
        assert pack(found) == whole  # a blank of the header that nobody reads
    file.write_bytes(whole + b"more")
    with pytest.raises(DamagedItem):
        unpack(file)
    with pytest.raises(FileNotFoundError):
        unpack(tmp_path / "none")
