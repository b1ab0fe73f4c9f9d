"""Division of items into training, validation and test: by ratio, folds or given files; by class and by group."""

from __future__ import annotations

import difflib
import itertools
import json
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from weft.config import SplitConfig
from weft.data.order import seed_for
from weft.errors import DataError

NAMES = ("train", "validation", "test")


def divide_by_ratio(
    length: int,
    ratio: Sequence[float],
    seed: int,
    *,
    strata: Sequence[Hashable] | None = None,
    groups: Sequence[Hashable] | None = None,
) -> list[list[int]]:
    """Rows of each part, ascending.

    Args:
        length: number of items.
        ratio: size of each part; they sum to 1.
        seed: of the division.
        strata: class of each item; each part gets its share of every class, to within one item.
        groups: group of each item; a group is never divided, sizes are as near as whole groups allow.

    Returns:
        One list of rows per entry of `ratio`. Together they hold every row once.
    """
    random = np.random.Generator(np.random.PCG64(seed_for(seed, 0)))
    if groups is not None:
        return _divide_groups(length, ratio, random, strata, groups)
    if strata is None:
        return _sorted(_cut(random.permutation(length).tolist(), _sizes(length, ratio)))
    return _divide_strata(ratio, random, strata)


def divide_into_folds(
    length: int,
    folds: int,
    seed: int,
    *,
    strata: Sequence[Hashable] | None = None,
    groups: Sequence[Hashable] | None = None,
) -> list[list[int]]:
    """Rows of each fold, ascending; arguments as for `divide_by_ratio`."""
    return divide_by_ratio(length, [1 / folds] * folds, seed, strata=strata, groups=groups)


def _sorted(parts: list[list[int]]) -> list[list[int]]:
    return [sorted(part) for part in parts]


def _cut(rows: list[int], sizes: Sequence[int]) -> list[list[int]]:
    stops = np.cumsum([0, *sizes]).tolist()
    return [rows[start:stop] for start, stop in itertools.pairwise(stops)]


def _sizes(length: int, ratio: Sequence[float]) -> list[int]:
    """Whole numbers that sum to length and are within one of ratio * length (largest remainders get the rest)."""
    exact = [length * part for part in ratio]
    sizes = [int(size + 1e-9) for size in exact]
    by_remainder = sorted(range(len(ratio)), key=lambda part: (sizes[part] - exact[part], part))
    for part in by_remainder[: length - sum(sizes)]:
        sizes[part] += 1
    return sizes


def _divide_strata(ratio: Sequence[float], random: np.random.Generator, strata: Sequence[Hashable]) -> list[list[int]]:
    """Each part gets its share of each class; what is left over goes where the whole is farthest below its share."""
    members: dict[Hashable, list[int]] = {}
    for row, stratum in enumerate(strata):
        members.setdefault(stratum, []).append(row)
    parts: list[list[int]] = [[] for _ in ratio]
    wanted = np.zeros(len(ratio))
    for rows in members.values():
        exact = [len(rows) * part for part in ratio]
        sizes = [int(size + 1e-9) for size in exact]
        wanted += exact
        lacks = [
            (len(parts[part]) + sizes[part] - wanted[part] if exact[part] > sizes[part] + 1e-9 else np.inf, part)
            for part in range(len(ratio))
        ]
        for _, part in sorted(lacks)[: len(rows) - sum(sizes)]:
            sizes[part] += 1
        shuffled = [rows[place] for place in random.permutation(len(rows)).tolist()]
        for members_of_part, chosen in zip(parts, _cut(shuffled, sizes), strict=True):
            members_of_part.extend(chosen)
    return _sorted(parts)


def _divide_groups(
    length: int,
    ratio: Sequence[float],
    random: np.random.Generator,
    strata: Sequence[Hashable] | None,
    groups: Sequence[Hashable],
) -> list[list[int]]:
    """Greedy, the largest group first: each to the part that comes nearest to its share (of every class) by it."""
    members: dict[Hashable, list[int]] = {}
    for row, group in enumerate(groups):
        members.setdefault(group, []).append(row)
    classes = sorted(set(strata), key=str) if strata is not None else [None]
    column_of = {name: column for column, name in enumerate(classes)}
    shuffled = [list(members.values())[place] for place in random.permutation(len(members)).tolist()]
    counts = np.zeros((len(ratio), len(classes)))
    totals = np.zeros(len(classes))
    for row in range(length):
        totals[column_of[strata[row] if strata is not None else None]] += 1
    wanted = np.outer(ratio, totals)
    parts: list[list[int]] = [[] for _ in ratio]
    for rows in sorted(shuffled, key=len, reverse=True):
        adds = np.zeros(len(classes))
        for row in rows:
            adds[column_of[strata[row] if strata is not None else None]] += 1
        # The error after adding, in units of each class's total, so that rare classes weigh as much as common ones.
        change = ((counts + adds - wanted) ** 2 - (counts - wanted) ** 2) / np.maximum(totals, 1) ** 2
        change = change / np.maximum(np.asarray(ratio)[:, None], 1e-12)
        best = int(np.argmin(change.sum(axis=1)))
        parts[best].extend(rows)
        counts[best] += adds
    return _sorted(parts)


def divide(
    length: int,
    split: SplitConfig,
    *,
    seed: int,
    fold: int | None,
    base: Path,
    cases: Sequence[str],
    strata: Sequence[Hashable] | None,
    groups: Sequence[Hashable] | None,
) -> dict[str, list[int]]:
    """Rows of train, validation and (where asked for) test.

    Args:
        length: number of items.
        split: what the experiment says.
        seed: the experiment's; `split.seed` comes first.
        fold: which fold is validated on, from 1; None where there are no folds.
        base: folder that `split.files` is relative to.
        cases: name of each item, that split files use.
        strata, groups: as for `divide_by_ratio`, used when the split is stratified or grouped.

    Raises:
        DataError: the division is impossible (fewer groups than parts, a missing class or case, an empty part).
    """
    if split.files is not None:
        return read_split_file(split_file(base / split.files, fold), cases)
    seed = seed if split.seed is None else split.seed
    chosen_strata = _required(strata, "stratified", "class targets") if split.stratified else None
    chosen_groups = _required(groups, "grouped", "a column `group`") if split.grouped else None
    if split.folds is None:
        ratio = split.ratio or [0.7, 0.15, 0.15]
        parts = divide_by_ratio(length, ratio, seed, strata=chosen_strata, groups=chosen_groups)
        return _checked(dict(zip(NAMES, parts)), ratio, length, chosen_groups)
    return _fold(length, split, seed, fold, chosen_strata, chosen_groups)


def _fold(
    length: int,
    split: SplitConfig,
    seed: int,
    fold: int | None,
    strata: Sequence[Hashable] | None,
    groups: Sequence[Hashable] | None,
) -> dict[str, list[int]]:
    folds = split.folds or 0
    if fold is None or not 1 <= fold <= folds:
        raise DataError(f"fold is {fold}, but the split has the folds 1 to {folds}", "set fold, e.g. fold: 1")
    test: list[int] = []
    rest = list(range(length))
    if split.test:
        rest, test = divide_by_ratio(length, [1 - split.test, split.test], seed, strata=strata, groups=groups)
    inner = divide_into_folds(
        len(rest),
        folds,
        seed,
        strata=None if strata is None else [strata[row] for row in rest],
        groups=None if groups is None else [groups[row] for row in rest],
    )
    if not all(inner):  # said before the first fold is trained, not when it is the empty one's turn
        units = f"{len(set(groups))} groups" if groups is not None else f"{len(rest)} items"
        raise DataError(f"{folds} folds are too many for {units}: one would be empty", "use fewer folds")
    held_out = {rest[place] for place in inner[fold - 1]}
    parts = {
        "train": [row for row in rest if row not in held_out],
        "validation": sorted(held_out),
    }
    if split.test:
        parts["test"] = test
    return _checked(parts, [1.0] * len(parts), length, groups)


def _required(values: Sequence[Hashable] | None, what: str, needs: str) -> Sequence[Hashable]:
    if values is None:
        raise DataError(f"the split is to be {what}, but the data have no {needs}", f"name it, or set {what}: false")
    return values


def _checked(
    parts: dict[str, list[int]], ratio: Sequence[float], length: int, groups: Sequence[Hashable] | None
) -> dict[str, list[int]]:
    for (name, rows), share in zip(parts.items(), ratio):
        if not rows and share > 0:
            units = f"{len(set(groups))} groups" if groups is not None else f"{length} items"
            raise DataError(f"the split leaves nothing for {name}: there are only {units}", "use fewer or larger parts")
    return {name: rows for (name, rows), share in zip(parts.items(), ratio) if share > 0}


def split_files(folder: Path) -> list[Path]:
    """The split files of a folder, in the order of folds: numbers in names count as numbers."""
    if not folder.is_dir():
        raise DataError(f"folder of split files not found: {folder}", "paths are relative to the experiment file")
    files = list(folder.glob("SPLIT_*.json")) or list(folder.glob("*.json"))
    if not files:
        raise DataError(f"{folder} holds no JSON file", 'a split file is {"train": [...], "validation": [...]}')
    return sorted(files, key=lambda file: [int(part) if part.isdigit() else part for part in _digits_apart(file.stem)])


def _digits_apart(text: str) -> list[str]:
    parts = [""]
    for character in text:
        if character.isdigit() != parts[-1][-1:].isdigit():
            parts.append("")
        parts[-1] += character
    return parts


def split_file(folder: Path, fold: int | None) -> Path:
    """The split file of a fold; DataError where there is none."""
    files = split_files(folder)
    if fold is None and len(files) == 1:
        return files[0]
    if fold is None or not 1 <= fold <= len(files):
        raise DataError(f"fold is {fold}, but {folder} has the split files 1 to {len(files)}", "set fold, e.g. fold: 1")
    return files[fold - 1]


def read_split_file(file: Path, cases: Sequence[str]) -> dict[str, list[int]]:
    """Rows of each split that a JSON file names: by case, or by row number from 0."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise DataError(f"{file} cannot be read as JSON: {error}", "see the line it names") from error
    if not isinstance(content, dict) or not all(isinstance(rows, list) for rows in content.values()):
        raise DataError(f"{file} is no split file", 'write {"train": [...], "validation": [...], "test": [...]}')
    unknown = set(content) - set(NAMES)
    if unknown or "train" not in content:
        raise DataError(f"{file} has the splits {', '.join(content)}", f"the splits are {', '.join(NAMES)}")
    row_of = {case: row for row, case in enumerate(cases)}
    if len(row_of) < len(cases):
        row_of = {}  # names that stand for several items tell none of them
    splits = {
        name: [_row(file, name, entry, row_of, len(cases)) for entry in content[name]]
        for name in NAMES
        if name in content
    }
    owner: dict[int, str] = {}
    for name, rows in splits.items():
        for row in rows:
            if row in owner:
                raise DataError(f"{file}: '{cases[row]}' is in {owner[row]} and in {name}", "an item has one place")
            owner[row] = name
    return splits


def _row(file: Path, split: str, entry: Any, row_of: dict[str, int], length: int) -> int:
    if isinstance(entry, int) and not isinstance(entry, bool) and 0 <= entry < length:
        return entry
    if isinstance(entry, str) and entry in row_of:
        return row_of[entry]
    near = difflib.get_close_matches(str(entry), list(row_of), n=1)
    if near:
        hint = f"did you mean '{near[0]}'?"
    elif row_of:
        hint = f"the data have {length} items, e.g. '{next(iter(row_of))}'"
    else:
        hint = (
            "several items have the same name: use row numbers from 0, or a column dataset.case that tells them apart"
        )
    raise DataError(f"{file}: {split} names {entry!r}, which is no item of the data", hint)
