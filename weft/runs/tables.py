"""Tables of a run that grow while it goes on: a row per epoch (history.csv), a row per logged step (steps.csv).

A row is one `write` of one line, so a killed process leaves whole lines; a line torn by a power cut is cut off when the
table is opened again. New columns may appear with any row: the file is then written anew, whole. Floats are written by
`repr`, which reads back to the same bits. An empty cell means "no value".
"""

from __future__ import annotations

import csv
import io
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from weft.errors import RunDirectoryError, UsageError
from weft.runs.files import explained, write_atomically

Value = float | int | str
Row = dict[str, Value]

TIMING_COLUMNS = ("seconds_train", "seconds_validation", "items_per_second")
"""Columns of history.csv that tell how long things took: the only ones in which two equal runs may differ."""

_FORBIDDEN = "\r\n\0"  # what would break "one row, one line"

_log = logging.getLogger(__name__)


class Table:
    """A CSV file to which rows are appended.

    Args:
        path: the file; it appears with the first row. A damaged end is cut off at once and named in the log, so open a
            table for writing only (`read_rows` looks without touching).

    Raises:
        RunDirectoryError: the file cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.columns: list[str] = []
        self._descriptor: int | None = None
        if path.exists():
            self._repair()

    def append(self, row: Mapping[str, object]) -> None:
        """Add a row; columns not seen before are added to the table.

        Args:
            row: numbers (also NumPy's) or text without line breaks by column name; None is an empty cell.

        Raises:
            UsageError: a value that does not fit in a cell.
            RunDirectoryError: the disk is full or read-only; the rows so far are kept.
        """
        values = _checked(row, self.path)
        new = [name for name in values if name not in self.columns]
        if new:
            self._widen([*self.columns, *new])
        self._write_line(_line([values.get(name, "") for name in self.columns]))

    def close(self) -> None:
        """Close the file; the next `append` opens it again."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _repair(self) -> None:
        good, total = 0, self.path.stat().st_size
        for end, _ in _whole_lines(self.path):
            good = end
        if good < total:
            _log.warning("%s: cut off a damaged end of %d bytes, left by an interrupted write", self.path, total - good)
            with explained(self.path, kept=f"the first {good} bytes"):
                os.truncate(self.path, good)
        self.columns = read_columns(self.path)

    def _write_line(self, line: bytes) -> None:
        with explained(self.path, kept="the rows written before"):
            if self._descriptor is None:
                self._descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            start = os.fstat(self._descriptor).st_size
            try:
                written = os.write(self._descriptor, line)
                while written < len(line):  # a disk that is nearly full takes a part first and refuses the rest
                    written += os.write(self._descriptor, line[written:])
            except OSError:
                os.ftruncate(self._descriptor, start)
                raise

    def _widen(self, columns: list[str]) -> None:
        self._rewrite(columns, _raw_rows(self.path))

    def _rewrite(self, columns: list[str], rows: Iterable[Mapping[str, object]]) -> None:
        def write(file: BinaryIO) -> None:
            file.write(_line(columns))
            for row in rows:
                file.write(_line([row.get(name, "") for name in columns]))

        self.close()
        write_atomically(self.path, write)
        self.columns = columns


class History(Table):
    """The history of a run, a row per epoch, kept in memory too.

    Args:
        path: history.csv of the run.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.rows: list[Row] = list(read_rows(path))

    def append(self, row: Mapping[str, object]) -> None:
        super().append(row)
        self.rows.append(_checked(row, self.path))

    def restore(self, rows: Iterable[Mapping[str, object]]) -> None:
        """Make the history exactly `rows` (those of a checkpoint), in the file too, in one step."""
        checked = [_checked(row, self.path) for row in rows]
        columns = list(dict.fromkeys(name for row in checked for name in row))
        if columns:
            self._rewrite(columns, checked)
        else:
            self.close()
            self.path.unlink(missing_ok=True)
            self.columns = []
        self.rows = checked


class StepLog(Table):
    """The log of steps, a row per logged step; it can grow long and is not kept in memory.

    Args:
        path: steps.csv of the run.
    """

    def truncate_after(self, step: int) -> None:
        """Forget what was logged after `step`: a resumed run passes through those steps again."""
        if self.columns:
            self._rewrite(self.columns, (row for row in _raw_rows(self.path) if float(row.get("step") or 0) <= step))


def read_columns(path: Path) -> list[str]:
    """The column names of a table; empty when there is no table yet."""
    for _, cells in _whole_lines(path):
        return cells
    return []


def read_rows(path: Path) -> Iterator[Row]:
    """Read a table without touching it, also while its run still writes: whole lines only, empty cells left out.

    Args:
        path: a table; one that does not exist has no rows.

    Yields:
        a row: numbers as int or float, everything else as text.
    """
    for row in _raw_rows(path):
        yield {name: _parsed(cell) for name, cell in row.items() if cell != ""}


def _raw_rows(path: Path) -> Iterator[dict[str, str]]:
    lines = _whole_lines(path)
    _, columns = next(lines, (0, []))
    for _, cells in lines:
        yield dict(zip(columns, cells))


def _whole_lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield (offset of the line's end in bytes, cells) up to the first torn or damaged line."""
    width, end = 0, 0
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    except OSError as error:
        raise RunDirectoryError(f"cannot read {path}: {error.strerror}", "check the permissions of the run") from error
    with file:
        for line in file:
            cells = _cells(line)
            if not cells or (width and len(cells) != width):
                return
            width = len(cells)
            end += len(line)
            yield end, cells


def _cells(line: bytes) -> list[str]:
    if not line.endswith(b"\n") or b"\0" in line:  # a power cut can leave blocks of zeros
        return []
    try:
        return next(csv.reader([line.decode("utf-8")], strict=True), [])
    except (UnicodeDecodeError, csv.Error):
        return []


def _line(cells: Sequence[object]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow([repr(cell) if isinstance(cell, float) else cell for cell in cells])
    return text.getvalue().encode("utf-8")


def _parsed(cell: str) -> Value:
    for kind in (int, float):
        try:
            return kind(cell) if "_" not in cell else cell  # int("1_000") is Python's spelling, not a number in a table
        except ValueError:
            continue
    return cell


def _checked(row: Mapping[str, object], path: Path) -> Row:
    """The row as plain int, float and str, without empty cells."""
    checked: Row = {}
    for name, value in row.items():
        if any(character in name for character in _FORBIDDEN):
            raise UsageError(f"{path}: the column name {name!r} has a line break", "leave the line break out")
        item = getattr(value, "item", None)  # NumPy numbers and tensors of one element
        plain = item() if callable(item) else value
        if plain is None:
            continue
        if not isinstance(plain, float | int | str):
            raise UsageError(f"{path}: column {name!r} got {plain!r}", "give a number, text or None")
        if isinstance(plain, str) and any(character in plain for character in _FORBIDDEN):
            raise UsageError(f"{path}: column {name!r}: line break in {plain!r}", "leave the line break out")
        checked[name] = int(plain) if isinstance(plain, bool) else plain
    return checked
