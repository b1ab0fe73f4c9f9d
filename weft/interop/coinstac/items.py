"""The datasets of a user as one split of Weft's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from weft.data import SplitData
from weft.data.samples import NO_SAMPLES, Sample
from weft.interop.usercode import called

SPLITS = ("train", "validation", "test")


class SiteItems:
    """Items of one dataset after the other. An item that is None or empty is left out, as the original does.

    What a batch says as its targets are two numbers for each item: the split, and the dataset.

    Args:
        split: one of `SPLITS`.
        datasets: map-style datasets.
    """

    def __init__(self, split: str, datasets: Sequence[Any]) -> None:
        self.split, self.datasets = split, list(datasets)
        self.places = [(number, row) for number, one in enumerate(self.datasets) for row in range(len(one))]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, row: int) -> Any:
        number, place = self.places[row]
        dataset = self.datasets[number]
        item = called(dataset, f"{type(dataset).__name__}.__getitem__({place})", dataset.__getitem__, place)
        if item is None or (isinstance(item, dict | list | tuple) and not item):
            return NO_SAMPLES
        return Sample(item, torch.tensor([SPLITS.index(self.split), number]))

    def cases(self) -> list[str]:
        """Names of the items, for messages: the first text of the entry in `indices`, where there is one."""
        return [self._name(*place) for place in self.places]

    def _name(self, number: int, row: int) -> str:
        entries = getattr(self.datasets[number], "indices", None)
        entry = entries[row] if isinstance(entries, list) and row < len(entries) else None
        parts = entry if isinstance(entry, list | tuple) else [entry]
        return next((str(part) for part in reversed(parts) if isinstance(part, str)), f"item {row}")


def split_data(name: str, found: Any) -> SplitData | None:
    """The split of what a data handle gave: a dataset, a list of datasets, or None; None where it has no items."""
    datasets = [one for one in (found if isinstance(found, list | tuple) else [found]) if one is not None]
    items = SiteItems(name, datasets)
    if not len(items):
        return None
    return SplitData(name, items, items.cases(), source=f"{name} items of {type(datasets[0]).__name__}")
