"""The dataset of a site, as users of coinstac-dinunet write it."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from weft.errors import ConfigError
from weft.interop.coinstac.arguments import within
from weft.interop.coinstac.config import max_size


class COINNDataset(Dataset[Any]):
    """Base class of a site's dataset. Subclasses fill `indices` in `load_index` and load an item in `__getitem__`.

    Args:
        mode: "train", "validation" or "test".
        cache: the site's arguments.
        input: what the site was sent.
        state: the site's folders and its name, as COINSTAC says them.
        limit: no further file is indexed once there are so many entries.

    Attributes:
        indices: one entry for each item.
    """

    def __init__(
        self,
        mode: str = "init",
        cache: Any = None,
        input: Mapping[str, Any] | None = None,
        state: Mapping[str, Any] | None = None,
        limit: float = max_size,
        **kw: Any,
    ) -> None:
        self.mode, self.limit = mode, limit
        self.cache = {} if cache is None else cache
        self.input = {} if input is None else input
        self.state = {} if state is None else state
        self.indices: list[Any] = []

    @property
    def site(self) -> str:
        """The name of the site."""
        return str(self.state.get("clientId", "local0"))

    @property
    def inputspecs(self) -> dict[str, Any]:
        """The site's arguments by its name."""
        return {self.site: self.cache}

    def load_index(self, file: Any) -> None:
        """Add the entries of a file to `indices`. It may be written with two arguments: the site and the file."""
        self.indices.append([file])

    def _load_indices(self, files: Iterable[Any], **kw: Any) -> None:
        both = _arguments(self.load_index) > 1
        for file in files:
            if len(self) >= self.limit:
                break
            self.load_index(*((self.site, file) if both else (file,)))

    def add(self, files: Iterable[Any]) -> None:
        """Index files, up to the limit."""
        self._load_indices(files=files)

    def __getitem__(self, index: int) -> Any:
        raise NotImplementedError(f"{type(self).__name__} has no __getitem__")

    def __len__(self) -> int:
        return len(self.indices)

    def transforms(self, **kw: Any) -> Any:
        """What is done to an item; nothing."""
        return None

    def path(self, root_dir: str = "baseDirectory", cache_key: str = "") -> str:
        """A folder or file of this site.

        Args:
            root_dir: a folder of `state`; or the name of the site, whose input folder is meant.
            cache_key: the argument that holds the path below it; the folder itself where it is not given.

        Raises:
            ConfigError: there is no such folder, or the path leaves it.
        """
        name = "baseDirectory" if root_dir == self.site or root_dir not in self.state else root_dir
        if root_dir not in (self.site, "baseDirectory") and root_dir not in self.state:
            raise ConfigError(
                f"path({root_dir!r}): this is site {self.site}, which sees its own folders only",
                f"use path({self.site!r}, …), or one of {', '.join(map(str, self.state))}",
            )
        if name not in self.state:
            raise ConfigError(f"the state of site {self.site} has no {name}", "start the site as COINSTAC does")
        below = self.cache.get(cache_key) if cache_key else None
        return str(within(self.state[name], below or "", cache_key or root_dir))


def _arguments(function: Any) -> int:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    every = inspect.signature(function).parameters.values()
    return sum(1 for one in every if one.kind in kinds and one.default is inspect.Parameter.empty)


def base_directory(state: Mapping[str, Any]) -> Path:
    """The folder of a site's data.

    Raises:
        ConfigError: the state does not say it.
    """
    if not state.get("baseDirectory"):
        raise ConfigError("the state of the site has no baseDirectory", "start the site as COINSTAC does")
    return Path(state["baseDirectory"])
