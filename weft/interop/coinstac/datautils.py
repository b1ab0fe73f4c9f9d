"""The division of files under the names of the original's module, for a `prepare_data` of users."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from weft.interop.coinstac.splitting import Split, by_ratio, folds, init_k_folds
from weft.runs.files import write_atomically

__all__ = ["create_k_fold_splits", "create_ratio_split", "init_k_folds", "split_place_holder"]


def create_ratio_split(
    files: Sequence[Any], cache: Mapping[str, Any], shuffle_files: bool = True, name: str = "SPLIT"
) -> Split | None:
    """Divide files by `split_ratio` of the cache into a file `NAME.json` in its `split_dir`.

    Args:
        files: what is divided.
        cache: of the site; `first_key` names the first part, "train" where it does not.
        shuffle_files: in an order that follows from the cache's seed, not as they come.
        name: of the file.

    Returns:
        the split where the cache has no `split_dir`.
    """
    split = by_ratio(list(files), cache, _seed(cache, shuffle_files))
    return _written(cache, {f"{name}.json": split})


def create_k_fold_splits(
    files: Sequence[Any], cache: Mapping[str, Any], shuffle_files: bool = True, name: str = "SPLIT"
) -> Split | None:
    """Divide files into `num_folds` of the cache, a file `NAME_N.json` for each; see `create_ratio_split`.

    Returns:
        the first fold's split where the cache has no `split_dir`.
    """
    found = folds(list(files), cache["num_folds"], _seed(cache, shuffle_files))
    return _written(cache, {f"{name}_{number}.json": split for number, split in enumerate(found)})


def split_place_holder(files: Sequence[Any] | None, cache: Mapping[str, Any]) -> None:
    """A split without files, for a site whose datasets come by `dataloader_args`."""
    _written(cache, {"empty_split.json": {"train": [], "validation": [], "test": []}})


def _seed(cache: Mapping[str, Any], shuffle_files: bool) -> int | None:
    return int(cache.get("seed") or 0) if shuffle_files else None


def _written(cache: Mapping[str, Any], splits: Mapping[str, Split]) -> Split | None:
    if not cache.get("split_dir"):
        return next(iter(splits.values()))
    for name, split in splits.items():
        write_atomically(Path(cache["split_dir"]) / name, json.dumps(split).encode())
    return None
