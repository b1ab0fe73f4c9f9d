"""How the items of a split become batches: arguments of loaders, and what a `get_loader` of the user's own says.

Weft's loaders bring the batches, since these can be resumed to the bit. A loader that the user makes is read, not
iterated: its dataset, sampler, sizes and `collate_fn` count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch.utils.data import DataLoader, IterableDataset, RandomSampler, Sampler, SequentialSampler, default_collate

from weft.errors import UsageError
from weft.interop.coinstac.config.keys import Mode
from weft.interop.coinstac.handle import COINNDataHandle, safe_collate
from weft.interop.coinstac.overrides import is_overridden
from weft.interop.usercode import called, file_of


class Listed(Sampler[int]):
    """Rows in the order of a list.

    Args:
        rows: their numbers.
    """

    def __init__(self, rows: Iterable[int]) -> None:
        self.rows = [int(row) for row in rows]

    def __iter__(self) -> Iterator[int]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(slots=True)
class Loading:
    """The items of a split, and how they become batches.

    Args:
        datasets: one after the other.
        arguments: of the loader, as `dataloader_args` has them.
        collate: makes a batch of a list of items; None for torch's own way.
        unused: words about what is not used.
    """

    datasets: list[Any]
    arguments: dict[str, Any] = field(default_factory=dict)
    collate: Callable[[list[Any]], Any] | None = None
    unused: list[str] = field(default_factory=list)


def loading_of(handle: COINNDataHandle, name: str, found: Any) -> Loading:
    """How a split is loaded.

    Args:
        handle: the site's.
        name: of the split.
        found: what the handle gave: a dataset, a list of datasets, or None.

    Raises:
        UsageError: it is to be loaded in a way that cannot be resumed.
    """
    given = handle.loader_arguments(name)
    if isinstance(given.get("sampler"), list | tuple | range):
        given["sampler"] = Listed(given["sampler"])
    datasets = [one for one in (found if isinstance(found, list | tuple) else [found]) if one is not None]
    made = Loading(datasets, given, _own_collate(given.get("collate_fn")), _unused(given, f"dataloader_args of {name}"))
    if not datasets or not is_overridden(handle, COINNDataHandle, "get_loader"):
        return made
    trains = name == Mode.TRAIN
    loaders = [
        called(
            handle, "get_loader", handle.get_loader, handle_key=Mode(name), dataset=one, shuffle=trains,
            use_padded_sampler=name != Mode.TEST,
        )
        for one in datasets
    ]  # fmt: skip
    where = f"{file_of(handle)}: {type(handle).__name__}.get_loader for {name}"
    for loader in loaders:
        _require_readable(loader, where)
    return _read(loaders, given, where)


def _read(loaders: Sequence[DataLoader[Any]], given: dict[str, Any], where: str) -> Loading:
    first = loaders[0]
    arguments = {key: value for key, value in given.items() if key in ("num_workers",)}
    arguments |= {"batch_size": first.batch_size, "drop_last": first.drop_last}
    if first.num_workers:
        arguments["num_workers"] = first.num_workers
    sampler: Any = first.sampler
    sampler = Listed(sampler) if isinstance(sampler, list | tuple | range) else sampler
    length = len(first.dataset)  # type: ignore[arg-type]
    if isinstance(sampler, SequentialSampler):
        arguments["shuffle"] = False
    elif not (type(sampler) is RandomSampler and not sampler.replacement and sampler.num_samples == length):
        if len(loaders) > 1:
            raise UsageError(
                f"{where} returned a {type(sampler).__name__} for one of {len(loaders)} files",
                "with load_sparse the items of each file come in their order: leave the sampler out",
            )
        arguments["sampler"] = sampler
    unused = _unused({"worker_init_fn": first.worker_init_fn, "timeout": first.timeout}, where)
    return Loading([loader.dataset for loader in loaders], arguments, _own_collate(first.collate_fn), unused)


def _require_readable(loader: Any, where: str) -> None:
    """Refuse loaders whose batches only they can make."""
    hint = "return a torch DataLoader(dataset, batch_size=…, sampler=…, collate_fn=…): Weft reads it and loads itself"
    if not isinstance(loader, DataLoader):
        raise UsageError(f"{where} returned a {type(loader).__name__}, no DataLoader", hint)
    if type(loader).__iter__ is not DataLoader.__iter__:
        raise UsageError(f"{where} returned a {type(loader).__name__} with an __iter__ of its own", hint)
    if isinstance(loader.dataset, IterableDataset):
        raise UsageError(f"{where} has an IterableDataset", "give a dataset with __len__ and __getitem__")
    if loader.batch_size is None:
        raise UsageError(
            f"{where} has a batch_sampler", "say the order by a sampler, and the number of items by batch_size"
        )


def _own_collate(function: Any) -> Callable[[list[Any]], Any] | None:
    return None if function is None or function in (default_collate, safe_collate) else function


def _unused(given: dict[str, Any], where: str) -> list[str]:
    words = {
        "worker_init_fn": "what is random follows from the seed and the item, in any worker",
        "timeout": "a worker that dies is told anyway",
    }
    return [f"{where}: {key} is not used: {words[key]}" for key in words if given.get(key)]


def require_shares(loading: Mapping[str, Loading], trainer: Any) -> None:
    """Refuse batches that cannot be divided into those of `local_iterations`, for learners of the user's own.

    Raises:
        UsageError: a `collate_fn` makes them, and there are several.
    """
    train = loading.get("train")
    if train is not None and train.collate is not None and int(trainer.cache.get("local_iterations") or 1) > 1:
        raise UsageError(
            "a learner of one's own and a collate_fn of one's own go together with local_iterations: 1 only",
            "leave one of the three out",
        )
