"""Tables as a source: CSV, TSV and Parquet, with columns of numbers, class names and file paths."""

from __future__ import annotations

import csv
import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from weft.config import DatasetConfig
from weft.data.parts import Column, Part, Role
from weft.errors import DataError

_TRUTH = {"true": 1.0, "false": 0.0}
_TRIED_FOR_PATHS = 20  # cells looked at before a column of text counts as one without files


@dataclass(frozen=True)
class Table:
    """A table in memory.

    Args:
        file: what it was read from.
        columns: cells by column name; text from CSV, typed arrays from Parquet.
        lines: number of the line (CSV, from 1) or row (Parquet, from 0) of each row.
        line_word: "line" or "row".
    """

    file: Path
    columns: dict[str, Sequence[Any]]
    lines: Sequence[int]
    line_word: str

    def where(self, row: int) -> str:
        """Where a row stands, e.g. "train.csv line 14"."""
        return f"{self.file.name} {self.line_word} {self.lines[row]}"

    def column(self, name: str, wanted_by: str) -> Sequence[Any]:
        """The cells of a column; DataError with the nearest name where there is none."""
        if name in self.columns:
            return self.columns[name]
        near = difflib.get_close_matches(name, list(self.columns), n=1, cutoff=0.5)
        only = next(iter(self.columns)) if len(self.columns) == 1 else ""
        separator = next((mark for mark in ";\t|" if mark in only), None)
        hint = f"did you mean '{near[0]}'?" if near else f"its columns are {', '.join(self.columns)}"
        if separator:
            hint = f"its only column is '{only}': set table.separator: '{separator}'".replace("\t", "\\t")
        raise DataError(f"{self.file} has no column '{name}' ({wanted_by})", hint)


def read_table(file: Path, separator: str | None = None) -> Table:
    """Read a table whole.

    Args:
        file: `.csv`, `.tsv`, `.tab`, `.txt`, or `.parquet`; any other ending is read as CSV.
        separator: character between columns; told by the ending when None.

    Raises:
        DataError: missing file, no rows, a row with too few or too many cells, two columns of one name, no text.
    """
    if not file.is_file():
        near = difflib.get_close_matches(file.name, _names_in(file.parent), n=1)
        raise DataError(
            f"table not found: {file}",
            f"did you mean '{near[0]}'?" if near else "paths are relative to the experiment file",
        )
    table = _read_parquet(file) if file.suffix.lower() in (".parquet", ".pq") else _read_csv(file, separator)
    if not len(table.lines):
        raise DataError(f"{file} has no rows", "a table needs at least one row below its line of column names")
    return table


def _names_in(folder: Path) -> list[str]:
    return [entry.name for entry in folder.iterdir()] if folder.is_dir() else []


def _read_csv(file: Path, separator: str | None) -> Table:
    separator = separator or ("\t" if file.suffix.lower() in (".tsv", ".tab") else ",")
    rows, lines = [], []
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream, delimiter=separator)
            header = [name.strip() for name in next(reader, [])]
            _check_header(file, header)
            for cells in reader:
                if not cells:
                    continue
                if len(cells) != len(header):
                    raise DataError(
                        f"{file} line {reader.line_num} has {len(cells)} cells for {len(header)} column names",
                        f"cells are separated by {separator!r}; a cell that contains it needs double quotes",
                    )
                rows.append(cells)
                lines.append(reader.line_num)
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is no text in UTF-8: {error}", "save it again as CSV in UTF-8") from error
    except csv.Error as error:
        raise DataError(f"{file} line {reader.line_num} cannot be read: {error}", "look at its quotes") from error
    columns: dict[str, Sequence[Any]] = {
        name: [cells[place].strip() for cells in rows] for place, name in enumerate(header)
    }
    return Table(file, columns, lines, "line")


def _check_header(file: Path, header: list[str]) -> None:
    if not header:
        raise DataError(f"{file} is empty", "a table begins with a line of column names")
    twice = next((name for name in header if header.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{file} has the column '{twice}' twice", "rename one of the two")


def _read_parquet(file: Path) -> Table:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise DataError(f"{file}: reading Parquet needs the package pyarrow", "pip install 'weft[tables]'") from error
    try:
        table = pyarrow.parquet.read_table(file)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{file} cannot be read as Parquet: {error}", "write it anew") from error
    columns = {name: _typed(column) for name, column in zip(table.column_names, table.columns, strict=True)}
    return Table(file, columns, range(table.num_rows), "row")


def _typed(column: Any) -> Sequence[Any]:
    """Numbers as an array (missing ones become NaN), everything else as text (missing becomes empty)."""
    values = column.to_numpy(zero_copy_only=False)
    if values.dtype.kind in "biuf":
        return values  # type: ignore[no-any-return]
    if all(value is None or isinstance(value, bool) for value in values):
        return np.array([np.nan if value is None else float(value) for value in values])  # type: ignore[return-value]
    return ["" if value is None else str(value) for value in values]


def part_from_table(table: Table, config: DatasetConfig, root: Path) -> Part:
    """The inputs and targets of a table.

    Columns of numbers that follow each other in `inputs` become one vector; so do those in `targets`.

    Args:
        table: the table.
        config: names of inputs, targets, case and group.
        root: folder that file paths are relative to.

    Raises:
        DataError: a column or file is missing, a cell is empty, or a column mixes numbers and text.
    """
    if not config.inputs:
        raise DataError(f"{table.file}: dataset.inputs names no column", f"its columns are {', '.join(table.columns)}")
    may_lack = config.on_bad_item == "skip"
    columns = [
        *_columns(table, config.inputs, "input", root, may_lack),
        *_columns(table, config.targets, "target", root, may_lack),
    ]
    paths = [column for column in columns if column.is_path]
    cases = [f"{table.line_word} {line}" for line in table.lines]
    if config.case is not None:
        cases = [str(cell) for cell in table.column(config.case, "dataset.case")]
    elif paths:
        cases = [_stem(path) for path in paths[0].values]
    groups = None
    if config.group is not None:
        groups = [str(cell) for cell in table.column(config.group, "dataset.group")]
    files = [table.file, *(path for column in paths for path in column.values if not may_lack or path.exists())]
    return Part(table.file.name, cases, table.lines, table.line_word, columns, groups, files=files)


def _stem(path: Path) -> str:
    return path.name.split(".")[0]


def _columns(table: Table, names: Sequence[str], role: Role, root: Path, may_lack: bool) -> list[Column]:
    columns = [_column(table, name, role, root, may_lack) for name in names]
    if role == "target":
        return columns
    merged: list[Column] = []
    for column in columns:
        if not column.is_path and merged and not merged[-1].is_path:
            last = merged.pop()
            values = torch.cat([last.values, column.values], dim=1)
            merged.append(Column(f"{last.name}, {column.name}", role, values))
        else:
            merged.append(column)
    return merged


def _column(table: Table, name: str, role: Role, root: Path, may_lack: bool) -> Column:
    cells = table.column(name, f"dataset.{role}s")
    numbers = _as_numbers(cells)
    if numbers is not None:
        _check_numbers(table, name, numbers)
        if role == "input":
            return Column(name, role, torch.as_tensor(numbers.astype(np.float32))[:, None])
        return Column(name, role, numbers)
    empty = next((row for row, cell in enumerate(cells) if cell == ""), None)
    if empty is not None:
        raise DataError(f"{table.where(empty)}: column '{name}' is empty", "fill it in, or remove the row")
    paths = _as_paths(table, name, cells, root, may_lack)
    if paths is not None:
        return Column(name, role, paths, is_path=True)
    _check_not_mixed(table, name, cells)
    if role == "input":
        raise DataError(
            f"{table.where(0)}: input column '{name}' holds text ({cells[0]!r}), no numbers and no files below {root}",
            "write it as numbers (for classes one column of 0 and 1 each); for files, see table.root",
        )
    return Column(name, role, np.array(cells, dtype=object))


def _as_numbers(cells: Sequence[Any]) -> Any:
    """The cells as an array of numbers (whole ones as integers), None when one of them is none."""
    if isinstance(cells, np.ndarray):
        return cells
    try:
        numbers = np.array([_TRUTH[cell.lower()] if cell.lower() in _TRUTH else float(cell) for cell in cells])
    except ValueError:
        return None
    whole = not any("." in cell or "e" in cell.lower() for cell in cells) and bool(np.isfinite(numbers).all())
    return numbers.astype(np.int64) if whole and np.abs(numbers).max(initial=0) < 2**53 else numbers


def _check_numbers(table: Table, name: str, numbers: Any) -> None:
    bad: Any = np.flatnonzero(~np.isfinite(numbers)) if numbers.dtype.kind == "f" else []
    if len(bad):
        more = f" (and in {len(bad) - 1} more rows)" if len(bad) > 1 else ""
        raise DataError(
            f"{table.where(int(bad[0]))}: column '{name}' is {numbers[bad[0]]}{more}",
            "fill such values in or remove these rows before training",
        )


def _check_not_mixed(table: Table, name: str, cells: Sequence[str]) -> None:
    def is_number(cell: str) -> bool:
        try:
            float(cell)
        except ValueError:
            return False
        return True

    numeric = [is_number(cell) for cell in cells]
    if not any(numeric):
        return
    rare = sum(numeric) * 2 < len(numeric)  # what is rarer is the likelier mistake
    row = numeric.index(rare)
    raise DataError(
        f"{table.where(row)}: column '{name}' is {cells[row]!r}, but most of it is {'text' if rare else 'numbers'}",
        "a column holds either numbers or text",
    )


def _as_paths(table: Table, name: str, cells: Sequence[str], root: Path, may_lack: bool) -> list[Path] | None:
    """The cells as paths of files below root; None when they name no files. Some may be lacking where bad items are
    skipped: then they count as such."""
    looks = any(_looks_like_file(cell) for cell in cells[:_TRIED_FOR_PATHS])
    if not looks and not any((root / cell).is_file() for cell in cells[:_TRIED_FOR_PATHS]):
        return None
    paths = [root / cell for cell in cells]
    missing = [row for row, path in enumerate(paths) if not path.exists()]
    if missing and (not may_lack or len(missing) == len(paths)):
        row = missing[0]
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        near = difflib.get_close_matches(paths[row].name, _names_in(paths[row].parent), n=1)
        raise DataError(
            f"{table.where(row)}: column '{name}' names a file that does not exist: {paths[row]}{more}",
            f"did you mean '{near[0]}'?" if near else "paths are relative to table.root, or to the table's own folder",
        )
    return paths


def _looks_like_file(cell: str) -> bool:
    name = cell.replace("\\", "/").rsplit("/", 1)[-1]
    ending = name.rpartition(".")[2]
    return "." in name[1:] and 1 <= len(ending) <= 5 and ending.isalnum() and not ending.isdigit() and " " not in ending
