"""Columns of the data by which cases can be grouped."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from weft.errors import UsageError
from weft.report.reading import RunFiles, holders_of, read_run


def column_of(files: RunFiles, split: str, name: str) -> Sequence[str]:
    """The cell of every case of a split: of its rows, of the group column, or of the experiment's table.

    Args:
        files: the run.
        split: whose cases.
        name: of the column.

    Raises:
        UsageError: there is no such column, or cases cannot be found in it.
        DataError: the table is gone or damaged.
    """
    rows = files.cases[split]
    if name in rows:
        return rows.texts(name)
    groups = files.groups_of(split)
    if groups is not None and name == files.group_name:
        return groups
    sites = [folder for site, folder in holders_of(files.directory) if site]
    if sites:
        return _at_sites(files, split, name, {folder.path.name: folder.path for folder in sites})
    tables = _tables(files)
    holders = [columns for columns in tables if name in columns]
    if not holders:
        raise _no_column(files, split, name, tables)
    return _looked_up(files, rows.texts("case"), name, holders)


def _at_sites(files: RunFiles, split: str, name: str, folders: Mapping[str, Path]) -> list[str]:
    """The cells in the tables of a study's sites, whose cases are named `SITE/CASE`."""
    cases = files.cases[split].texts("case")
    runs = {site: read_run(folder, whole=False) for site, folder in folders.items()}
    tables = {site: _tables(run) for site, run in runs.items()}
    if not any(name in columns for part in tables.values() for columns in part):
        raise _no_column(files, split, name, [columns for part in tables.values() for columns in part])
    cells: dict[str, str] = {}
    for site, run in runs.items():
        own = [case.removeprefix(f"{site}/") for case in cases if case.startswith(f"{site}/")]
        holders = [columns for columns in tables[site] if name in columns]
        if own and not holders:
            raise UsageError(f"the data of site {site} have no column '{name}'", "choose one that all sites have")
        cells |= zip([f"{site}/{case}" for case in own], _looked_up(run, own, name, holders)) if own else ()
    return [cells[case] for case in cases]


def _tables(files: RunFiles) -> list[dict[str, Sequence[Any]]]:
    return [_read(file, files) for file in table_files(files)]


def table_files(files: RunFiles) -> list[Path]:
    """The tables that the experiment's data came from."""
    table = files.dataset.get("table")
    if not isinstance(table, dict):
        return []
    base = Path(str(files.provenance.get("base") or "."))
    root = base / str(table.get("root") or ".")
    found = []
    for part in ("file", "train", "validation", "test"):
        if table.get(part):
            path = base / str(table[part])
            found.append(path if path.is_file() or not (root / str(table[part])).is_file() else root / str(table[part]))
    return found


def _read(file: Path, files: RunFiles) -> dict[str, Sequence[Any]]:
    from weft.data.tables import read_table  # the data room needs torch; most reports do not

    table = read_table(file, files.dataset["table"].get("separator"))
    lines = [f"{table.line_word} {line}" for line in table.lines]
    return {**table.columns, _LINES: lines}


_LINES = "\0lines"  # no column of a table can have this name


def _looked_up(
    files: RunFiles, cases: Sequence[str], name: str, tables: Sequence[Mapping[str, Sequence[Any]]]
) -> list[str]:
    """Cells by the names of cases, however these came about; see `weft.data.tables`."""
    for naming in _namings(files):
        cells: dict[str, str] = {}
        double = ""
        for columns in tables:
            for case, cell in zip(naming(columns), columns[name]):
                if cells.setdefault(case, str(cell)) != str(cell):
                    double = case
        if all(case in cells for case in cases):
            if double in cases:
                raise UsageError(
                    f"case '{double}' has several values of '{name}'",
                    "name cases by a column that tells them apart: dataset.case",
                )
            return [cells[case] for case in cases]
    raise UsageError(
        f"the cases of {files.directory.path} are not in the tables of the experiment (looked for '{cases[0]}')",
        "were the tables changed since? put them back, or name cases by a column: dataset.case",
    )


def _namings(files: RunFiles) -> Iterator[Any]:
    case = files.dataset.get("case")
    if case:
        yield lambda columns: [str(cell) for cell in columns.get(case, ())]
        return
    yield lambda columns: columns[_LINES]
    for column in [*_listed(files.dataset.get("inputs")), *_listed(files.dataset.get("targets"))]:
        yield lambda columns, column=column: [Path(str(cell)).name.split(".")[0] for cell in columns.get(column, ())]


def _listed(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []


def _no_column(files: RunFiles, split: str, name: str, tables: Sequence[Mapping[str, Sequence[Any]]]) -> UsageError:
    known = [column for column in files.cases[split].columns if column != "case"]
    if files.groups_of(split) is not None:
        known.append(files.group_name)
    known += [column for columns in tables for column in columns if column != _LINES]
    known = list(dict.fromkeys(known))
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(known[:20])}"
    return UsageError(f"neither the rows of cases nor the experiment's tables have a column '{name}'", hint)
