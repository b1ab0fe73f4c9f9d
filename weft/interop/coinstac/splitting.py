"""Which files of a site are for training, validation and test: given in files, by folds, or by ratio."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from weft.data.splits import NAMES, divide_by_ratio, divide_into_folds
from weft.errors import ConfigError, DataError, Problem
from weft.interop.coinstac.arguments import within
from weft.interop.coinstac.config.keys import Mode
from weft.interop.coinstac.dataset import base_directory
from weft.runs.files import write_atomically

if TYPE_CHECKING:
    from weft.interop.coinstac.handle import COINNDataHandle

Split = dict[str, list[Any]]


def prepare_splits(handle: COINNDataHandle) -> dict[str, str]:
    """Write a split file for each fold into the site's output, and note them in its cache.

    `split_dir` (or a folder `splits` beside the data) counts before `split_files`, these before `num_folds`, and that
    before `split_ratio`. A site that only tests, and is told nothing, tests with all its files.

    Args:
        handle: the site's.

    Returns:
        names of files by the number of the fold, as a text from "0".

    Raises:
        ConfigError: `split_dir` is no folder of the site.
        DataError: there are no files, fewer than folds, or a split file is damaged.
    """
    return write_splits(handle.list_files, handle.cache, handle.state)


def init_k_folds(files: Sequence[Any], cache: dict[str, Any], state: Mapping[str, Any]) -> dict[str, Any]:
    """Divide given files, for a data handle with a `prepare_data` of its own; see `prepare_splits`."""
    write_splits(lambda: list(files), cache, state)
    return {}


def write_splits(
    list_files: Callable[[], list[Any]], cache: dict[str, Any], state: Mapping[str, Any]
) -> dict[str, str]:
    """What `prepare_splits` does, of files that are listed where they are needed."""
    folder = Path(state["outputDirectory"]) / str(cache["task_id"]) / "splits"
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.json"):
        old.unlink()
    splits = _given(cache, state) or _made(list_files(), cache, str(state.get("clientId", "local0")))
    for name, split in splits.items():
        write_atomically(folder / name, json.dumps(split, default=_plain).encode())
    cache["split_dir"] = str(folder)
    cache["splits"] = {str(number): name for number, name in enumerate(splits)}
    return dict(cache["splits"])


def _given(cache: dict[str, Any], state: Mapping[str, Any]) -> dict[str, Split] | None:
    """The splits that lie in files, in the order of their names, numbers counting as numbers."""
    base = base_directory(state)
    named = cache.setdefault("given_split_dir", cache.get("split_dir"))  # `split_dir` is where they lie afterwards
    folder = within(base, named or "splits", "split_dir")
    if named and not folder.is_dir():
        raise ConfigError(
            f"split_dir is {named!r}, but there is no folder {folder}", "check the inputspec of this site"
        )
    files = [file for file in folder.iterdir() if file.suffix == ".json"] if folder.is_dir() else []
    if named and not files:
        raise DataError(f"split_dir {folder} holds no JSON file", 'a split file is {"train": [...], "test": [...]}')
    if not files and cache.get("split_files"):
        files = [within(base, name, "split_files") for name in cache["split_files"]]
    ordered = sorted(files, key=lambda file: (len(file.stem), file.stem))
    return {file.name: read_split(file) for file in ordered} or None


def _plain(value: Any) -> Any:
    """Names that come from NumPy or pandas, as those of JSON."""
    if isinstance(value, np.generic):
        return value.item()
    raise DataError(f"list_files named {value!r}, a {type(value).__name__}", "name files by texts or numbers")


def read_split(file: Path) -> Split:
    """The lists of a split file.

    Raises:
        DataError: it cannot be read, or says something else.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read as JSON: {error}", "a split file names lists of files") from error
    good = isinstance(content, dict) and set(content) <= set(NAMES)
    if not good or not all(isinstance(files, list) for files in content.values()):
        raise DataError(f"{file} is no split file", 'write {"train": [...], "validation": [...], "test": [...]}')
    found: Split = content
    return found


def _made(files: list[Any], cache: Mapping[str, Any], site: str) -> dict[str, Split]:
    seed = int(cache.get("seed") or 0)
    if not files:
        where = f"data_dir {cache['data_dir']!r} is empty" if cache.get("data_dir") else "the inputspec has no data_dir"
        raise DataError(
            f"site {site} has no files: {where}",
            "name the folder of the data below the site's own: data_dir; or write list_files in a COINNDataHandle",
        )
    if cache.get("num_folds"):
        return {f"SPLIT_{number}.json": split for number, split in enumerate(folds(files, cache["num_folds"], seed))}
    if cache["mode"] == Mode.TEST or not cache.get("split_ratio"):
        first = "test" if cache["mode"] == Mode.TEST else "train"
        return {"SPLIT.json": {name: files if name == first else [] for name in NAMES}}
    return {"SPLIT.json": by_ratio(files, cache, seed)}


def by_ratio(files: Sequence[Any], cache: Mapping[str, Any], seed: int | None) -> Split:
    """One split of files, divided by `split_ratio`; of one part or two, `first_key` names the first, "train" else.

    Args:
        files: what is divided.
        cache: of the site.
        seed: of the division; None leaves the files in their order.

    Raises:
        ConfigError: `first_key` names no split.
    """
    ratio, first = list(cache["split_ratio"]), str(cache.get("first_key") or NAMES[0])
    if first not in NAMES:
        raise ConfigError(
            Problem(f"first_key is {first!r}", f"name one of {', '.join(NAMES)}", ("inputspec", "first_key"))
        )
    names = {1: (first,), 2: (first, "test"), 3: (first, *NAMES[1:])}[len(ratio)]
    parts = divide_by_ratio(len(files), ratio, seed or 0)
    parts = _in_order(parts) if seed is None else parts
    chosen = {name: [files[row] for row in rows] for name, rows in zip(names, parts, strict=True)}
    return {name: chosen.get(name, []) for name in NAMES}


def _in_order(parts: Sequence[Sequence[int]]) -> list[list[int]]:
    """Parts of the same sizes, of rows one after the other."""
    ends = accumulate(len(part) for part in parts)
    return [list(range(end - len(part), end)) for end, part in zip(ends, parts, strict=True)]


def folds(files: Sequence[Any], count: int, seed: int | None) -> list[Split]:
    """Splits in which each file is tested once, and validated on once.

    Args:
        files: what is divided.
        count: of folds, from 3.
        seed: of the division; None leaves the files in their order.

    Raises:
        DataError: there are fewer files than folds.
    """
    if len(files) < count:
        raise DataError(f"{len(files)} files are too few for num_folds: {count}", "use fewer folds")
    parts = divide_into_folds(len(files), count, seed or 0)
    parts = _in_order(parts) if seed is None else parts
    found = []
    for number in range(count):
        test, validation = parts[number], parts[(number + 1) % count]
        held = {*test, *validation}
        rows = {"train": [row for row in range(len(files)) if row not in held], "validation": validation, "test": test}
        found.append({name: [files[row] for row in rows[name]] for name in NAMES})
    return found
