"""The datasets of a user as one split of Weft's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from weft.data import SplitData
from weft.data.samples import NO_SAMPLES, Apart, Sample
from weft.errors import DataError
from weft.interop.coinstac.loading import Loading
from weft.interop.usercode import SHOWN, called

SPLITS = ("train", "validation", "test")


class SiteItems:
    """Items of one dataset after the other. An item that is None or empty is left out, as the original does.

    What a batch says as its targets are two numbers for each item: the split, and the dataset.

    Args:
        split: one of `SPLITS`.
        datasets: map-style datasets.
        collate: makes a batch of a list of items; None for torch's own way.
    """

    hint_for_bad_items = "repair or remove the item; one for which __getitem__ returns None is left out"
    hint_for_unlike_items = "bring them to one shape in __getitem__, or put them together in a collate_fn of get_loader"

    def __init__(self, split: str, datasets: Sequence[Any], collate: Callable[[list[Any]], Any] | None = None) -> None:
        self.split, self.datasets, self.collate = split, list(datasets), collate
        self.places = [(number, row) for number, one in enumerate(self.datasets) for row in range(len(one))]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, row: int) -> Any:
        number, place = self.places[row]
        dataset = self.datasets[number]
        try:
            item = called(dataset, f"{type(dataset).__name__}.__getitem__({place})", dataset.__getitem__, place)
        except DataError as error:
            raise DataError(error.message, error.hint.replace(SHOWN, "")) from error.__cause__
        if item is None or (isinstance(item, dict | list | tuple) and not item):
            return NO_SAMPLES
        inputs = item if self.collate is None else Apart(item, self._together)
        return Sample(inputs, torch.tensor([SPLITS.index(self.split), number]))

    def _together(self, items: list[Any]) -> Any:
        return called(self.collate, f"collate_fn of {self.split}", self.collate, items)

    def cases(self) -> list[str]:
        """Names of the items, for messages: the first text of the entry in `indices`, where there is one."""
        return [self._name(*place) for place in self.places]

    def _name(self, number: int, row: int) -> str:
        entries = getattr(self.datasets[number], "indices", None)
        entry = entries[row] if isinstance(entries, list) and row < len(entries) else None
        parts = entry if isinstance(entry, list | tuple) else [entry]
        return next((str(part) for part in reversed(parts) if isinstance(part, str)), f"item {row}")


def split_data(name: str, loading: Loading) -> SplitData | None:
    """A split of Weft's; None where it has no items."""
    items = SiteItems(name, loading.datasets, loading.collate)
    if not len(items):
        return None
    return SplitData(name, items, items.cases(), source=f"{name} items of {type(loading.datasets[0]).__name__}")
