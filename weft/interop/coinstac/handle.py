"""The data of a site: its files, splits and datasets, as users of coinstac-dinunet write and call it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader, default_collate

from weft.errors import ConfigError, UsageError
from weft.interop.coinstac.arguments import within
from weft.interop.coinstac.config import max_size
from weft.interop.coinstac.dataset import base_directory
from weft.interop.coinstac.splitting import Split, prepare_splits, read_split
from weft.interop.usercode import file_of

# Of a loader's arguments, those that Weft's loaders have as well; `dataset` is one of the user's own.
LOADER_ARGUMENTS = (
    "dataset", "batch_size", "shuffle", "sampler", "drop_last", "num_workers", "pin_memory", "collate_fn",
    "worker_init_fn", "timeout",
)  # fmt: skip
_OF_TORCH = (*LOADER_ARGUMENTS, "batch_sampler")


class COINNDataHandle:
    """A site's data. Subclasses mostly write `list_files`.

    Args:
        cache: the site's arguments.
        input: what the site was sent.
        state: the site's folders and its name.
        dataloader_args: arguments of loaders by split: `{"train": {"drop_last": True}, …}`.

    Attributes:
        dataset: datasets by split, once they were made.
    """

    def __init__(
        self,
        cache: Any = None,
        input: Mapping[str, Any] | None = None,
        state: Mapping[str, Any] | None = None,
        dataloader_args: Mapping[str, Any] | None = None,
        **kw: Any,
    ) -> None:
        self.cache = {} if cache is None else cache
        self.input = {} if input is None else input
        self.state = {} if state is None else state
        self.dataset: dict[str, Any] = {}
        self.dataloader_args: dict[str, Any] = dict(self.cache.get("dataloader_args") or dataloader_args or {})
        self._batches: Iterator[Any] | None = None  # what a learner of the user's own takes its batches from

    @property
    def site(self) -> str:
        """The name of the site."""
        return str(self.state.get("clientId", "local0"))

    def list_files(self) -> list[Any]:
        """Names of the files that are divided into splits: those in `data_dir`, in order.

        Raises:
            ConfigError: there is no such folder.
        """
        named = self.cache.get("data_dir")
        if not named:
            return []
        folder = within(base_directory(self.state), named, "data_dir")
        if not folder.is_dir():
            raise ConfigError(
                f"data_dir of site {self.site} is {named!r}, but there is no folder {folder}", "check its inputspec"
            )
        return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))

    def prepare_data(self) -> dict[str, Any]:
        """Divide the files; called once, before the first fold."""
        prepare_splits(self)
        return {}

    def split(self) -> Split:
        """The files of the running fold, by split."""
        return read_split(Path(self.cache["split_dir"]) / str(self.cache["split_file"]))

    def get_dataset(self, handle_key: str, files: list[Any], dataset_cls: Any = None) -> Any:
        """A dataset of files; None where it has no items."""
        made = dataset_cls(
            mode=str(handle_key), cache=self.cache, input=self.input, state=self.state,
            limit=self.cache.get("load_limit", max_size),
        )  # fmt: skip
        made.add(files=files)
        self.dataset[str(handle_key)] = made if len(made) else None
        return self.dataset[str(handle_key)]

    def _chosen(self, name: str, dataset_cls: Any) -> Any:
        own = self.loader_arguments(name).get("dataset")
        if own is not None or dataset_cls is None:
            self.dataset[name] = own
            return own
        return self.get_dataset(name, self.split().get(name, []), dataset_cls=dataset_cls)

    def get_train_dataset(self, dataset_cls: Any) -> Any:
        """The training items of the running fold."""
        return self._chosen("train", dataset_cls)

    def get_validation_dataset(self, dataset_cls: Any) -> Any:
        """The validation items of the running fold."""
        return self._chosen("validation", dataset_cls)

    def get_test_dataset(self, dataset_cls: Any) -> Any:
        """The test items of the running fold; with `load_sparse` a list with a dataset for each file."""
        own = self.loader_arguments("test").get("dataset")
        if own is not None or dataset_cls is None or not self.cache.get("load_sparse"):
            return self._chosen("test", dataset_cls)
        files = self.split().get("test", [])[: self.cache.get("load_limit", max_size)]
        found = [self.get_dataset("test", [file], dataset_cls=dataset_cls) for file in files]
        return [one for one in found if one is not None]

    def loader_arguments(self, name: str) -> dict[str, Any]:
        """What `dataloader_args` says of a split.

        Raises:
            UsageError: it says something that Weft's loaders do not know.
        """
        given = self.dataloader_args.get(name) or {}
        if not isinstance(given, Mapping):
            raise UsageError(f"dataloader_args of {name} is {given!r}", "give a dict: {'train': {'drop_last': True}}")
        unknown = [key for key in given if key not in LOADER_ARGUMENTS]
        if unknown:
            known = ", ".join(LOADER_ARGUMENTS)
            raise UsageError(f"dataloader_args of {name} has {unknown[0]!r}", f"known are: {known}")
        return dict(given)

    def get_loader(self, handle_key: str = "", use_padded_sampler: bool = False, **kw: Any) -> Any:
        """A loader of torch's over a dataset, for loops of the user's own; training itself has Weft's loaders. An
        override says how: what it returns is read, and its sampler, sizes and `collate_fn` count.

        Args:
            handle_key: the split whose arguments count.
            use_padded_sampler: nothing is padded: no item counts twice.
            kw: arguments of the loader, `dataset` at least.
        """
        every = {**self.cache, **self.loader_arguments(str(handle_key)), **kw}
        arguments = {key: every[key] for key in _OF_TORCH if every.get(key) is not None}
        if arguments.get("sampler") is not None:
            arguments.pop("shuffle", None)
        return DataLoader(**{"collate_fn": safe_collate, **arguments})

    def begin_step(self, batches: Sequence[Any]) -> None:
        """Have `next_iter` give the batches of a step, as often as `local_iterations` says; a last one may be short."""
        count = int(self.cache.get("local_iterations", 1))
        self._batches = islice(cycle(batches), count)

    def next_iter(self, handle_key: str = "train", shuffle: bool = True) -> tuple[Any, dict[str, Any]]:
        """The next batch of the running step and what is to be told, for learners of the user's own.

        Raises:
            UsageError: it is called outside a step, or more often than a step has batches.
        """
        batch = next(self._batches, None) if self._batches is not None else None
        if batch is None:
            raise UsageError(
                "data_handle.next_iter() has no batch: a step has local_iterations batches",
                "call it so often in the learner's `backward`, and nowhere else",
            )
        return batch, {}


def require_plain_loading(kind: type[COINNDataHandle]) -> None:
    """Refuse what would not be called.

    Raises:
        UsageError: a class of a user's takes batches from a loader itself.
    """
    if kind.next_iter is not COINNDataHandle.next_iter:
        raise UsageError(
            f"{kind.__name__} has a next_iter of its own ({file_of(kind)}); Weft's loaders bring the batches, "
            "in an order that can be resumed",
            "say what differs in get_loader, in dataloader_args (sampler, collate_fn, …) or in the dataset",
        )


def safe_collate(items: list[Any]) -> Any:
    """A batch of the items that could be loaded: a dataset returns None for others."""
    return default_collate([item for item in items if item])
