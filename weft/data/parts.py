"""What is read from a source before it is divided: columns of equal length, or a dataset of somebody else's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

Role = Literal["input", "target"]


@dataclass(frozen=True)
class Column:
    """One input or target of every item.

    Args:
        name: the column's name; a key of the item where transforms see it as a dict.
        role: whether the model gets it or shall predict it.
        values: a tensor `[n, ...]`, an array whose kind is not decided yet (numbers or class names), or paths of files.
        is_path: the values are paths of files.
    """

    name: str
    role: Role
    values: Any
    is_path: bool = False

    def take(self, rows: Sequence[int]) -> Column:
        """The column with the given rows only."""
        if self.is_path:
            return replace(self, values=[self.values[row] for row in rows])
        if isinstance(self.values, Tensor):
            return replace(self, values=self.values[torch.tensor(rows, dtype=torch.int64)])
        return replace(self, values=self.values[np.asarray(rows, dtype=np.int64)])


@dataclass(frozen=True)
class Part:
    """Items of one source.

    Args:
        source: where they come from, for messages.
        cases: name of each item.
        rows: number of each item in the source, for messages.
        row_word: what such a number counts: "row", "line".
        columns: inputs and targets; empty when there is a dataset.
        groups: group of each item, None where there are none.
        dataset: map-style dataset, instead of columns.
        labels: class of each item of a dataset, for stratified splits; None where unknown.
        files: every file that was read, or will be.
    """

    source: str
    cases: list[str]
    rows: Sequence[int]
    row_word: str = "row"
    columns: list[Column] = field(default_factory=list)
    groups: list[str] | None = None
    dataset: Any = None
    labels: Any = None
    files: list[Path] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.cases)

    def where(self, row: int) -> str:
        """Where an item comes from, e.g. "train.csv line 14"."""
        return f"{self.source} {self.row_word} {self.rows[row]}" if len(self.rows) else self.source

    def of(self, role: Role) -> list[Column]:
        """The inputs, or the targets."""
        return [column for column in self.columns if column.role == role]

    def take(self, rows: Sequence[int]) -> Part:
        """The part with the given rows only, in their order."""
        if list(rows) == list(range(len(self))):
            return self
        return replace(
            self,
            cases=[self.cases[row] for row in rows],
            rows=[self.rows[row] for row in rows] if len(self.rows) else [],
            columns=[column.take(rows) for column in self.columns],
            groups=None if self.groups is None else [self.groups[row] for row in rows],
            dataset=None if self.dataset is None else torch.utils.data.Subset(self.dataset, list(rows)),
            labels=None if self.labels is None else [self.labels[row] for row in rows],
        )
