"""The remote's side of a reducer that a user wrote."""

from __future__ import annotations

import copy
import math
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from weft.engine.collectives import Answer, Collective
from weft.errors import DataError, MessageRefused
from weft.interop.coinstac.parcels import Parcel, decode, encode, packed, unpacked
from weft.interop.coinstac.reducer import COINNReducer
from weft.interop.coinstac.trainer import COINNTrainer
from weft.interop.usercode import called, file_of


class InProcess:
    """What stands for a pool of processes: everything is done here."""

    def map(self, function: Callable[..., Any], values: Iterable[Any]) -> list[Any]:
        """`function` of each value."""
        return [function(value) for value in values]

    def starmap(self, function: Callable[..., Any], values: Iterable[Any]) -> list[Any]:
        """`function` of each tuple of values."""
        return [function(*value) for value in values]


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
