"""The rows of cases that an evaluation left (scores/<split>.csv), as columns. Imports no torch."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy

from weft.errors import DataError
from weft.metrics.formulas import Array


@dataclass(slots=True)
class CaseTable:
    """Rows of cases by column.

    Args:
        columns: cells of each column; text, or numbers.
        numbers_of, codes_of: columns already turned into numbers, or into numbers of classes.
    """

    columns: dict[str, Sequence[str] | Array]
    numbers_of: dict[str, Array] = field(default_factory=dict)
    codes_of: dict[tuple[str, tuple[str, ...]], Array] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def __contains__(self, name: str) -> bool:
        return name in self.columns

    def texts(self, name: str) -> Sequence[str]:
        """A column as text."""
        cells = self.columns[name]
        return [str(cell) for cell in cells] if isinstance(cells, numpy.ndarray) else cells

    def codes(self, name: str, labels: tuple[str, ...]) -> Array:
        """A column of classes as their places in `labels`; a KeyError for one that is not among them."""
        key = (name, labels)
        if key not in self.codes_of:
            place = {label: index for index, label in enumerate(labels)}
            self.codes_of[key] = numpy.array([place[cell] for cell in self.texts(name)], numpy.int64)
        return self.codes_of[key]

    def numbers(self, name: str) -> Array:
        """A column as float64; what is empty or no number is nan."""
        if name not in self.numbers_of:
            cells = self.columns[name]
            self.numbers_of[name] = (
                numpy.asarray(cells, numpy.float64) if isinstance(cells, numpy.ndarray) else _floats(cells)
            )
        return self.numbers_of[name]

    def named(self, prefix: str) -> dict[str, str]:
        """The columns whose names begin so: {the rest of the name: the name}."""
        return {name.removeprefix(prefix): name for name in self.columns if name.startswith(prefix)}

    def take(self, rows: Array) -> CaseTable:
        """The table with these rows, by number."""
        if len(rows) == len(self) and bool((rows == numpy.arange(len(rows))).all()):
            return self
        picked = rows.tolist()
        columns: dict[str, Sequence[str] | Array] = {
            name: cells[rows] if isinstance(cells, numpy.ndarray) else [cells[row] for row in picked]
            for name, cells in self.columns.items()
        }
        return CaseTable(columns)

    def replaced(self, columns: Mapping[str, Sequence[str] | Array]) -> CaseTable:
        """The table with other cells in some columns."""
        return CaseTable({**self.columns, **columns})

    def keys(self) -> list[tuple[str, int]]:
        """What tells rows apart: the case's name, and how often it came before."""
        seen: dict[str, int] = {}
        keys = []
        for name in self.texts("case"):
            seen[name] = seen.get(name, -1) + 1
            keys.append((name, seen[name]))
        return keys


def joined_cases(parts: Sequence[tuple[str, CaseTable]]) -> CaseTable:
    """The rows of several sites below each other, with the columns that all have and one that names the site.

    Args:
        parts: (site, table); the site stands before the names of its cases.
    """
    common = [name for name in parts[0][1].columns if all(name in table for _, table in parts)]
    columns: dict[str, Sequence[str] | Array] = {
        name: [cell for _, table in parts for cell in table.texts(name)] for name in common
    }
    columns["case"] = [f"{site}/{case}" for site, table in parts for case in table.texts("case")]
    columns.setdefault("site", [site for site, table in parts for _ in range(len(table))])
    return CaseTable(columns)


def _floats(cells: Sequence[str]) -> Array:
    try:
        return numpy.fromiter(map(float, cells), numpy.float64, len(cells))
    except ValueError:  # some are empty
        return numpy.array([_float(cell) for cell in cells])


def _float(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return float("nan")


_REMEDY = "score the run again with `weft evaluate RUN --out DIR` and copy the file from there"


def read_cases(file: Path) -> CaseTable | None:
    """Read the rows of cases of a split; None where there are none.

    Raises:
        DataError: the file is damaged.
    """
    try:
        text = file.read_bytes().decode("utf-8")
        names, columns = _split(text) or _parsed(text)
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file} cannot be read: {error}", _REMEDY) from error
    if "case" not in names or (columns and len(columns) != len(names)):
        raise DataError(f"{file} is damaged: it is no table of cases", _REMEDY)
    return CaseTable(dict(zip(names, columns, strict=True))) if columns else None


def _split(text: str) -> tuple[list[str], list[Sequence[str]]] | None:
    """Names and columns of a table without quotes, whose rows are alike: some times faster than parsing it."""
    lines = text.removesuffix("\n").split("\n")
    commas = text.count(",", 0, len(lines[0]))
    if '"' in text or "\r" in text or any(line.count(",") != commas for line in lines) or "" in lines:
        return None
    cells, width = ",".join(lines).split(","), commas + 1
    return cells[:width], [cells[place::width] for place in range(width, 2 * width)] if len(lines) > 1 else []


def _parsed(text: str) -> tuple[list[str], list[Sequence[str]]]:
    """Names and columns; no columns match the names where the rows are of unlike lengths."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    names = next(reader, [])
    rows = list(reader)
    if any(len(row) != len(names) for row in rows):
        return [], []
    return names, list(zip(*rows, strict=True))
