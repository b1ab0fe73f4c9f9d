"""The data of an experiment, opened: splits of items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class SplitData:
    """One split: training, validation or test data.

    Args:
        name: train, validation or test.
        dataset: map-style dataset of the items, without augmentation.
        cases: name of each item.
        groups: group of each item (e.g. the patient), None where the data have none.
        arrays: (inputs, targets) when all items lie in memory and need no transform; each a tensor whose first axis
            is the item, a tuple of such, or (targets only) None.
        augmented: the dataset with the training transforms, None where there are none.
        keys: names of inputs and of targets in items that are dicts.
        source: what the items were read from, for messages.
        rows: number of each item in the source (a line of a table, a row of an array), for messages.
        row_word: what such a number counts: "row", "line".
        skip_bad: items that cannot be loaded are left out instead of being an error.
    """

    name: str
    dataset: Any
    cases: list[str]
    groups: list[str] | None = None
    arrays: tuple[Any, Any] | None = None
    augmented: Any = None
    keys: tuple[Sequence[str], Sequence[str]] = ((), ())
    source: str = ""
    rows: Sequence[int] = field(default_factory=list)
    row_word: str = "row"
    skip_bad: bool = False

    def __len__(self) -> int:
        return len(self.cases)

    def where(self, index: int) -> str:
        """Where an item comes from, e.g. "train.csv line 14 (case subject7)"."""
        place = f" {self.row_word} {self.rows[index]}" if len(self.rows) else ""
        case = self.cases[index]
        name = f" (case {case})" if not place.endswith(f" {case}") else ""
        return f"{self.source or self.name}{place}{name}"
