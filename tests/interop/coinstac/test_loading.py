"""Loaders that users make are read: their dataset, sampler, sizes and collate_fn count, and batches can be resumed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, SequentialSampler, Subset, WeightedRandomSampler

from tests.interop.coinstac.tables import SIZES, Patients, Trainer, alive_and_revived, site_run, train, write_sites
from weft.errors import DataError, UsageError, WeftError
from weft.interop.coinstac import COINNDataHandle, COINNLearner
from weft.interop.coinstac.data import safe_collate
from weft.interop.coinstac.running import SiteRun, UserCode


def names_and_numbers(items: list[Any]) -> dict[str, Any]:
    """A batch of lists, as torch itself makes none of tensors."""
    return {"inputs": [item["inputs"] for item in items], "labels": torch.tensor([item["labels"] for item in items])}


class OfLists(Trainer):
    """Takes such batches."""

    sizes: list[tuple[str, bool, int]] = []

    def iteration(self, batch: Any) -> dict[str, Any]:
        assert isinstance(batch["inputs"], list)
        site, training = self.state["clientId"], self.nn["model"].training
        type(self).sizes.append((site, training, len(batch["inputs"])))
        return super().iteration({**batch, "inputs": torch.stack(batch["inputs"])})


class Own(COINNDataHandle):
    """As users write it: a loader from scratch."""

    def get_loader(self, handle_key: str = "", use_padded_sampler: bool = False, **kw: Any) -> Any:
        sizes = {"train": 4, "validation": 3, "test": 3}
        return DataLoader(
            kw["dataset"], batch_size=sizes[handle_key], shuffle=kw["shuffle"], collate_fn=names_and_numbers
        )


class Super(COINNDataHandle):
    """As users write it: the loader of the base class, with something more."""

    def get_loader(self, handle_key: str = "", **kw: Any) -> Any:
        return super().get_loader(handle_key, collate_fn=names_and_numbers, **kw)


def outcome(run: SiteRun) -> torch.Tensor:
    assert run.run is not None
    return torch.cat([value.flatten() for value in run.run.state.model.state_dict().values()])


@pytest.mark.parametrize("handle", [Own, Super])
def test_batches_of_a_users_collate_fn_reach_the_trainer(tmp_path: Path, handle: type[COINNDataHandle]) -> None:
    write_sites(tmp_path)
    OfLists.sizes.clear()
    runs = [site_run(tmp_path, name, code=UserCode(OfLists, Patients, handle), epochs=1) for name in SIZES]
    report = train(runs)["local0"]
    tested = sum(len(run.handle.dataset["test"]) for run in runs)
    assert sum(report["test_sums"]["metrics"]) == tested
    of_first = [size for site, training, size in OfLists.sizes if site == "local0" and training]
    assert of_first == ([4] * 6 if handle is Own else [8] * 3)


def test_a_loader_that_says_nothing_new_trains_as_without_it(tmp_path: Path) -> None:
    class Same(COINNDataHandle):
        def get_loader(self, handle_key: str = "", use_padded_sampler: bool = False, **kw: Any) -> Any:
            return super().get_loader(handle_key, use_padded_sampler, **kw)

    found = []
    for handle in (COINNDataHandle, Same):
        write_sites(tmp_path / handle.__name__)
        runs = [
            site_run(tmp_path / handle.__name__, name, code=UserCode(Trainer, Patients, handle), epochs=2)
            for name in SIZES
        ]
        train(runs)
        found.append(outcome(runs[0]))
    assert torch.equal(*found)


def test_a_site_with_loaders_of_its_own_that_dies_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    class Weighted(COINNDataHandle):
        def get_loader(self, handle_key: str = "", **kw: Any) -> Any:
            if handle_key != "train":
                return super().get_loader(handle_key, **kw)
            sampler = WeightedRandomSampler([1.0 + row % 3 for row in range(len(kw["dataset"]))], 20)
            return DataLoader(kw["dataset"], batch_size=8, sampler=sampler, collate_fn=safe_collate)

    write_sites(tmp_path)
    code = UserCode(Trainer, Patients, Weighted)
    found = [outcome(run) for run in alive_and_revived(tmp_path, code, [9, 14], num_workers=0)]
    assert torch.equal(*found)


def test_a_dataset_that_the_loader_narrows_down_is_what_is_trained_on(tmp_path: Path) -> None:
    class Narrow(COINNDataHandle):
        def get_loader(self, handle_key: str = "", **kw: Any) -> Any:
            kw["dataset"] = Subset(kw["dataset"], range(3))
            return super().get_loader(handle_key, **kw)

    write_sites(tmp_path)
    runs = [site_run(tmp_path, name, code=UserCode(Trainer, Patients, Narrow), epochs=1) for name in SIZES]
    assert sum(train(runs)["local0"]["test_sums"]["metrics"]) == 3 * len(SIZES)


def test_with_load_sparse_files_stay_apart_in_batches_of_a_users_making(tmp_path: Path) -> None:
    seen: list[int] = []

    class Noting(OfLists):
        def save_predictions(self, dataset: Any, its: dict[str, Any]) -> None:
            seen.append(len(dataset))
            assert its["prediction"].shape == (1,)

    write_sites(tmp_path)
    runs = [
        site_run(tmp_path, name, code=UserCode(Noting, Patients, Own), epochs=1, load_sparse=True) for name in SIZES
    ]
    report = train(runs)["local0"]
    assert sum(report["test_sums"]["metrics"]) == len(seen)
    assert set(seen) == {1}


def test_a_collate_fn_may_be_an_argument_of_loaders_and_what_is_not_used_is_told(tmp_path: Path, caplog: Any) -> None:
    write_sites(tmp_path)
    every = {"collate_fn": names_and_numbers}
    given = {"train": {**every, "worker_init_fn": print, "timeout": 3}, "validation": every, "test": every}
    options = {"dataloader_args": given}
    runs = [site_run(tmp_path, name, code=UserCode(OfLists, Patients), epochs=1, options=options) for name in SIZES]
    assert train(runs)["local0"]["test_metrics"]
    for words in ("worker_init_fn is not used: what is random follows from the seed", "timeout is not used"):
        assert caplog.text.count(f"site local1: dataloader_args of train: {words}") == 1


@pytest.mark.parametrize("by_loader", [False, True])
def test_a_sampler_may_be_a_list_of_rows(tmp_path: Path, by_loader: bool) -> None:
    rows = [2, 0, 1, 1]

    class Listing(COINNDataHandle):
        def get_loader(self, handle_key: str = "", **kw: Any) -> Any:
            return DataLoader(kw["dataset"], batch_size=3, sampler=rows if handle_key == "train" else None)

    seen: list[list[float]] = []

    class Seeing(Trainer):
        def iteration(self, batch: Any) -> dict[str, Any]:
            if self.nn["model"].training:
                seen.append(batch["inputs"][:, 0].tolist())
            return super().iteration(batch)

    write_sites(tmp_path)
    options = None if by_loader else {"dataloader_args": {"train": {"sampler": rows}}}
    code = UserCode(Seeing, Patients, Listing if by_loader else COINNDataHandle)
    run = site_run(tmp_path, "local0", ["local0"], code=code, epochs=1, batch_size=3, options=options)
    train([run])
    dataset = run.handle.dataset["train"]
    expected = [float(dataset[row]["inputs"][0]) for row in rows]
    assert [value for batch in seen for value in batch] == expected
    assert [len(batch) for batch in seen] == [3, 1]


class Stream(IterableDataset[Any]):
    """A dataset without places."""

    def __iter__(self) -> Iterator[Any]:
        return iter([])

    def __len__(self) -> int:
        return 3


class OwnOrder(DataLoader[Any]):
    """A loader that makes batches in a way of its own."""

    def __iter__(self) -> Any:
        return super().__iter__()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda dataset: [], "returned a list, no DataLoader"),
        (lambda dataset: OwnOrder(dataset), "OwnOrder with an __iter__ of its own"),
        (lambda dataset: DataLoader(Stream()), "has an IterableDataset"),
        (
            lambda dataset: DataLoader(dataset, batch_sampler=BatchSampler(SequentialSampler(dataset), 2, False)),
            "has a batch_sampler",
        ),
        (lambda dataset: dataset.nothing, "get_loader failed: AttributeError"),
    ],
)
def test_loaders_that_cannot_be_resumed_are_refused_with_what_to_return(tmp_path: Path, make: Any, words: str) -> None:
    class Handle(COINNDataHandle):
        def get_loader(self, *args: Any, **kw: Any) -> Any:
            return make(kw["dataset"])

    write_sites(tmp_path)
    runs = [site_run(tmp_path, name, code=UserCode(Trainer, Patients, Handle)) for name in SIZES]
    with pytest.raises(WeftError, match=words) as raised:
        train(runs)
    assert "test_loading.py" in raised.value.message


def test_a_collate_fn_that_fails_is_told_with_its_line(tmp_path: Path) -> None:
    def failing(items: list[Any]) -> Any:
        return items[0]["no such key"]

    write_sites(tmp_path)
    options = {"dataloader_args": {"train": {"collate_fn": failing}}}
    runs = [site_run(tmp_path, name, options=options) for name in SIZES]
    with pytest.raises(DataError, match=r"test_loading\.py:\d+: collate_fn of train failed: KeyError: 'no such key'"):
        train(runs)


class Mine(COINNLearner):
    """A learner of the user's own."""


def test_batches_of_ones_own_cannot_be_divided_for_a_learner(tmp_path: Path) -> None:
    write_sites(tmp_path)
    code = UserCode(OfLists, Patients, Own, Mine)
    runs = [site_run(tmp_path, name, code=code, local_iterations=2, options={"reduced": True}) for name in SIZES]
    with pytest.raises(UsageError, match="go together with local_iterations: 1 only"):
        train(runs)
