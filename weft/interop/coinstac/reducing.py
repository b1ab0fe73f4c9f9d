"""The remote's side of a reducer that a user wrote."""

from __future__ import annotations

import copy
import io
import math
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from weft.engine.collectives import Answer, Collective
from weft.errors import DataError, MessageRefused
from weft.interop.coinstac.keeping import kept, restored
from weft.interop.coinstac.parcels import Parcel, decode, encode, packed, unpacked
from weft.interop.coinstac.reducer import COINNReducer
from weft.interop.coinstac.storing import without_live, write
from weft.interop.coinstac.trainer import COINNTrainer
from weft.interop.coinstac.utils import jsonable
from weft.interop.usercode import called, file_of

_TIMES, _HERE = "_weft_reduced_", "_weft_reduced_here_"  # keys of the cache


class InProcess:
    """What stands for a pool of processes: everything is done here."""

    def map(self, function: Callable[..., Any], values: Iterable[Any]) -> list[Any]:
        """`function` of each value."""
        return [function(value) for value in values]

    def starmap(self, function: Callable[..., Any], values: Iterable[Any]) -> list[Any]:
        """`function` of each tuple of values."""
        return [function(*value) for value in values]


class ReducersMemory:
    """What a reducer wrote into the remote's cache that JSON does not know, tensors and arrays, for the next process.

    There is a file for each time that something was reduced. How often that was stands in the cache, which counts once
    a call is over, so that a call that is made again finds what it found before.

    Args:
        folder: of the remote's own.
        cache: the remote's.
    """

    def __init__(self, folder: Path, cache: dict[str, Any]) -> None:
        self.folder, self.cache = folder, cache
        self.times = int(cache.get(_TIMES, 0))

    def recall(self) -> None:
        """Put back what was there, where this process is not the one that wrote it."""
        file = self._file(self.times)
        if _HERE not in self.cache and file.exists():
            self.cache.update(restored(torch.load(file, weights_only=True), torch.device("cpu")))
        self.cache[_HERE] = object()  # no process can tell another one

    def keep(self) -> None:
        """Keep what is there now."""
        content = kept({key: value for key, value in without_live(self.cache).items() if not jsonable(value)})
        self.cache[_TIMES] = self.times + 1
        if content:
            buffer = io.BytesIO()
            torch.save(content, buffer)
            write(self._file(self.times + 1), buffer.getvalue())
        self._file(self.times - 1).unlink(missing_ok=True)

    def _file(self, times: int) -> Path:
        return self.folder / f"reducer-{times}.pt"


def _items(name: str, parcel: Parcel) -> float:
    items = parcel.said.get("items")
    if isinstance(items, bool) or not isinstance(items, int | float) or not 0 <= items < math.inf:
        raise MessageRefused(f"site {name} says that its batch has {items!r} items", "it is no site of Weft's")
    return items


def reduced(
    reducer: type[COINNReducer], trainer: COINNTrainer, names: Sequence[str], collectives: Sequence[Collective]
) -> Answer:
    """The answer to what all sites ask of a reducer.

    Args:
        reducer: the user's class; it is called where every site says `reduce`.
        trainer: the remote's; it is not changed, but for its cache.
        names: the sites, in order.
        collectives: what each asks.

    Raises:
        DataError: the reducer fails, or returns no dict.
        MessageRefused: what a site sent is damaged.
    """
    parcels = {name: decode(asked.tensors)[0] for name, asked in zip(names, collectives, strict=True)}
    parcels = {name: parcel for name, parcel in parcels.items() if _items(name, parcel) > 0}
    if not parcels or not all(parcel.said.get("reduce") for parcel in parcels.values()):
        return encode(Parcel())  # as the original: sites gather, and nobody steps
    with tempfile.TemporaryDirectory(prefix="weft-reduce-") as place:
        received, sent = Path(place) / "received", Path(place) / "sent"
        sent.mkdir()
        facing = copy.copy(trainer)
        facing.input = {name: unpacked(parcel, received / name) for name, parcel in parcels.items()}
        facing.state = {**trainer.state, "baseDirectory": str(received), "transferDirectory": str(sent)}
        made = called(reducer, reducer.__name__, reducer, trainer=facing, mp_pool=InProcess())
        out = called(reducer, f"{reducer.__name__}.reduce", made.reduce)
        if not isinstance(out, dict):
            raise DataError(
                f"{file_of(reducer)}: {reducer.__name__}.reduce returned a {type(out).__name__}",
                "return a dict, with names of files that lie in transferDirectory",
            )
        return encode(packed(out, sent))
