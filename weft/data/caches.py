"""Items after the base transforms, kept in memory or on disk."""

from __future__ import annotations

import copy
import hashlib
import logging
import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from weft.data.packing import DamagedItem, pack, unpack
from weft.data.randomness import DrawWatch
from weft.errors import DataError

logger = logging.getLogger("weft")

Load = Callable[[int], Any]
_ABANDONED_AFTER = 3600.0  # seconds; nobody takes that long to write an item


class Maker:
    """Makes items that are to be kept. What is random must not be: it would depend on when it was first asked for.

    Args:
        load: makes an item by its row number.
    """

    def __init__(self, load: Load) -> None:
        self.load = load
        self._watch: DrawWatch | None = None  # of the process that loads

    def __call__(self, row: int) -> Any:
        if self._watch is None:
            self._watch = DrawWatch(self.load)
        self._watch.mark()
        item = self.load(row)
        if self._watch.drawn():
            self._watch.restore()
            raise DataError(
                "the item is random before dataset.transforms.train, so it must not be kept (use run.cache: none)",
                "set run.cache: none, or move what is random to dataset.transforms.train",
            )
        return item

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_watch": None}


class MemoryCache:
    """What the deterministic first transforms made of each item, kept in memory.

    Args:
        load: makes an item by its row number.
        length: number of items.
    """

    def __init__(self, load: Load, length: int) -> None:
        self.make = Maker(load)
        self.length = length
        self._items: dict[int, Any] = {}

    def __call__(self, row: int) -> Any:
        if row not in self._items:
            self._items[row] = self.make(row)
        return copy.deepcopy(self._items[row])  # transforms that follow may write into what they are given

    def fill(self) -> None:
        """Make every item now, before loader workers start: they share the memory instead of each filling a cache.

        Items that cannot be made are left to the one who asks for them, which tells where they come from.
        """
        for row in range(self.length):
            if row not in self._items:
                try:
                    self._items[row] = self.make(row)
                except DataError:
                    continue


class ItemFolder:
    """A folder of items that were made by one recipe, which runs, processes and loader workers share.

    Each item lies in a file of its own, written whole or not at all. Where the disk refuses (it is full, or may not be
    written to) that is told once, and nothing more is written.

    Args:
        root: the folder of all kept items.
        recipe: what items depend on besides their sources (see `weft.data.recipes.recipe`).
    """

    def __init__(self, root: Path, recipe: str) -> None:
        self.path = root / hashlib.sha256(recipe.encode()).hexdigest()[:16]
        self._refused = torch.zeros(1, dtype=torch.uint8)
        self._refused.share_memory_()  # type: ignore[no-untyped-call]  # known to all loader workers
        try:
            if not self.path.is_dir():
                self.path.mkdir(parents=True, exist_ok=True)
                (self.path / "recipe.json").write_text(recipe + "\n", encoding="utf-8")
                logger.info("items after the base transforms are kept in %s", self.path)
            _sweep(self.path / "incomplete")
        except OSError:
            pass  # writing an item will tell

    def read(self, key: str, *, verify: bool) -> Any:
        """The item of a key; raises FileNotFoundError where there is none, DamagedItem where there was one."""
        return unpack(self._file(key), verify=verify)

    def write(self, key: str, item: Any) -> None:
        """Keep an item, if the disk lets us.

        Raises:
            DataError: the item holds what cannot be written down.
        """
        if self._refused[0]:
            return
        content = pack(item)
        try:
            self._write(self._file(key), content)
        except OSError as error:
            if not self._refused[0]:
                self._refused[0] = 1
                logger.warning(
                    "items cannot be kept in %s: %s; training goes on, items that are not there are made each time "
                    "(free some space, or choose another folder by run.output)",
                    self.path,
                    error.strerror or type(error).__name__,
                )

    def _file(self, key: str) -> Path:
        return self.path / key[:2] / f"{key}.safetensors"

    def _write(self, file: Path, content: bytes) -> None:
        """Under a name of its own first: whoever reads meanwhile sees the whole file or none. It is not synced: what a
        power cut leaves of it is found damaged, and made anew."""
        temporary = self.path / "incomplete" / f"{os.getpid()}-{uuid.uuid4().hex}"
        temporary.parent.mkdir(parents=True, exist_ok=True)
        file.parent.mkdir(exist_ok=True)
        try:
            temporary.write_bytes(content)
            temporary.replace(file)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


class DiskCache:
    """What the deterministic first transforms made of each item, kept on disk.

    Args:
        load: makes an item by its row number.
        key: names an item by what it is made of (see `weft.data.recipes.ItemKeys`).
        folder: where items are kept.
    """

    def __init__(self, load: Load, key: Callable[[int], str], folder: ItemFolder) -> None:
        self.make = Maker(load)
        self.key = key
        self.folder = folder
        self._verified: set[int] = set()

    def __call__(self, row: int) -> Any:
        try:
            key = self.key(row)
        except FileNotFoundError:
            return self.make(row)  # tells what is missing in the words of who loads it
        try:
            item = self.folder.read(key, verify=row not in self._verified)
        except FileNotFoundError:
            pass
        except DamagedItem as error:
            logger.warning("a kept item is damaged and made anew: %s", error)
        else:
            self._verified.add(row)
            return item
        item = self.make(row)
        self.folder.write(key, item)
        return item


def _sweep(folder: Path) -> None:
    """Remove what killed processes left."""
    if not folder.is_dir():
        return
    for file in folder.iterdir():
        try:
            if time.time() - file.stat().st_mtime > _ABANDONED_AFTER:
                file.unlink()
        except FileNotFoundError:  # its process has just finished it
            continue
