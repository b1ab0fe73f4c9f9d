"""Map-style datasets over columns: files loaded, transforms applied, inputs scaled and shaped."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from weft.data.array_source import load_array
from weft.data.chain import Chain
from weft.data.parts import Column, Role
from weft.data.samples import Sample, samples_of
from weft.errors import DataError

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")


class ColumnItems:
    """Items as dicts, made from columns.

    Args:
        columns: inputs and targets.
        as_paths: give the names of files instead of what they hold, to transforms that load them.
    """

    def __init__(self, columns: Sequence[Column], as_paths: bool) -> None:
        self.columns = list(columns)
        self.as_paths = as_paths

    def __call__(self, row: int) -> dict[str, Any]:
        item: dict[str, Any] = {}
        for column in self.columns:
            value = column.values[row]
            if column.is_path:
                value = str(value) if self.as_paths else load_file(Path(value), column.role)
            elif isinstance(value, Tensor):
                value = value.clone()  # a transform that works in place must not change the data
            item[column.name] = value
        return item


class DatasetItems:
    """Items of a torch Dataset as dicts: (x, y) gets the names `inputs` and `targets`."""

    def __init__(self, dataset: Any, keys: tuple[Sequence[str], Sequence[str]]) -> None:
        self.dataset = dataset
        self.keys = keys

    def __call__(self, row: int) -> dict[str, Any]:
        item = self.dataset[row]
        if isinstance(item, Mapping):
            return dict(item)
        if isinstance(item, tuple | list) and len(item) == 2:
            return {"inputs": item[0], "targets": item[1]}
        return {"inputs": item}


class Transformed:
    """Items ready for a batch: base transforms (perhaps cached), scaling, shape, training transforms.

    Args:
        length: number of items.
        load: gives the item of a row after the base transforms.
        keys: names of inputs and of targets in the item.
        train: transforms for training; None for none.
        finish: applied to the inputs of the finished sample, by place (scaling, shape); None for nothing.
    """

    def __init__(
        self,
        length: int,
        load: Callable[[int], Any],
        keys: tuple[Sequence[str], Sequence[str]],
        *,
        train: Chain | None = None,
        finish: Callable[[Tensor, int], Tensor] | None = None,
    ) -> None:
        self.length = length
        self.load = load
        self.keys = keys
        self.train = train
        self.finish = finish

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, row: int) -> list[Sample] | tuple[Any, Any]:
        item = self.load(row)
        if self.train is not None:
            item = self.train(item)
        samples = samples_of(item, self.keys)
        if self.finish is not None:
            for sample in samples:
                sample.inputs = finish_inputs(sample.inputs, self.finish)
        if len(samples) == 1 and samples[0].spacing is None:
            return samples[0].inputs, samples[0].targets
        return samples

    def fill(self) -> None:
        """Fill the cache, where there is one."""
        fill = getattr(self.load, "fill", None)
        if fill is not None:
            fill()


class BaseItems:
    """Items after the base transforms, which are the same every time.

    Args:
        load: gives the item of a row.
        chain: the base transforms.
    """

    def __init__(self, load: Callable[[int], dict[str, Any]], chain: Chain) -> None:
        self.load = load
        self.chain = chain

    def __call__(self, row: int) -> Any:
        return self.chain(self.load(row))


def finish_inputs(inputs: Any, finish: Callable[[Tensor, int], Tensor]) -> Any:
    """Inputs with `finish` applied to each, which is told the place of the input."""
    if isinstance(inputs, tuple):
        return tuple(finish(torch.as_tensor(value), place) for place, value in enumerate(inputs))
    return finish(torch.as_tensor(inputs), 0)


def load_file(file: Path, role: Role) -> Tensor:
    """The content of an array or picture file.

    Args:
        file: `.npy`, `.npz`, or a picture.
        role: inputs become float32, pictures `[channels, height, width]` from 0 to 1; whole numbers of targets become
            int64 labels, those of a picture `[height, width]` as stored.

    Raises:
        DataError: the file is missing, damaged, or of another kind.
    """
    ending = file.suffix.lower()
    if ending in (".npy", ".npz"):
        array = load_array(file, role)
        if array.dtype.kind not in "biuf":
            raise DataError(f"{file} holds {array.dtype}, not numbers", "save numbers only")
        whole = role == "target" and array.dtype.kind in "biu"
        return torch.from_numpy(np.array(array, dtype=np.int64 if whole else np.float32, order="C"))
    if ending in PICTURES:
        return _picture(file, role)
    raise DataError(
        f"{file}: Weft itself reads .npy, .npz and pictures",
        "add a transform that loads the file first, e.g. transforms.base: [LoadImaged, EnsureChannelFirstd]",
    )


def _picture(file: Path, role: Role) -> Tensor:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file) as picture:
            if role == "target":
                return torch.from_numpy(np.array(picture, dtype=np.int64))
            deep = picture.mode.startswith("I")
            grey = deep or picture.mode in ("1", "L", "LA")
            array = np.array(picture if deep else picture.convert("L" if grey else "RGB"), dtype=np.float32)
    except (OSError, UnidentifiedImageError, ValueError) as error:
        raise DataError(f"{file} cannot be read as a picture: {error}", "open it in a viewer; save it anew") from error
    array = array / np.float32(65535 if deep else 255)
    return torch.from_numpy(np.ascontiguousarray(array[None] if grey else array.transpose(2, 0, 1)))
