"""Code and arguments of users that cannot work are told, with the file, the site or the name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset, WeightedRandomSampler

from tests.interop.coinstac.tables import SIZES, Patients, Trainer, site_run, train, write_sites
from weft.engine import Strategy
from weft.errors import CheckpointError, ConfigError, DataError, WeftError
from weft.interop.coinstac.running import UserCode


def runs_of(folder: Path, kind: type[Trainer] = Trainer, own: Any = None, **spec: Any) -> list[Any]:
    if not (folder / "local0").exists():
        write_sites(folder)
    code = UserCode(kind, Patients)
    return [site_run(folder, name, code=code, own=own, **{"epochs": 1, **spec}) for name in SIZES]


def returning(change: Any) -> type[Trainer]:
    class Changed(Trainer):
        def iteration(self, batch: Any) -> Any:
            return change(super().iteration(batch))

    return Changed


def without(key: str) -> Any:
    return lambda it: {name: value for name, value in it.items() if name != key}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("loss"), "test_mistakes.py: Changed.iteration returned no loss: a dict with out, averages"),
        (lambda it: None, "iteration returned no loss: NoneType"),
        (lambda it: {**it, "loss": 1.0}, "a loss of a float, not one number as a tensor"),
        (lambda it: {**it, "loss": torch.ones(3)}, r"a loss of shape \[3\]"),
        (without("metrics"), "iteration returned no metrics: NoneType"),
        (lambda it: it["nothing"], r"test_mistakes.py:\d+: iteration failed: KeyError: 'nothing'"),
    ],
)
def test_an_iteration_that_returns_something_else_is_told(tmp_path: Path, change: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        train(runs_of(tmp_path, returning(change)))


class NoNetwork(Trainer):
    def _init_nn_model(self) -> None:
        pass


class NoModule(Trainer):
    def _init_nn_model(self) -> None:
        self.nn["model"] = "net"  # type: ignore[assignment]


class NoOptimizer(Trainer):
    def _init_optimizer(self) -> None:
        pass


class Elsewhere(Trainer):
    def _init_optimizer(self) -> None:
        self.optimizer["sgd"] = torch.optim.SGD(torch.nn.Linear(2, 2).parameters(), lr=0.1)


class Twice(Trainer):
    def _init_optimizer(self) -> None:
        for name in ("one", "two"):
            self.optimizer[name] = torch.optim.SGD(self.nn["model"].parameters(), lr=0.1)


class OwnLoop(Trainer):
    def evaluation(self, **kw: Any) -> Any:
        return {}


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (NoNetwork, "_init_nn_model made no network"),
        (NoModule, r"nn\['model'\] is a str"),
        (NoOptimizer, "_init_optimizer made no optimizer"),
        (Elsewhere, "optimizer 'sgd' trains a parameter that belongs to no network"),
        (Twice, "optimizers 'one' and 'two' train one parameter"),
        (OwnLoop, "OwnLoop.evaluation would not be called"),
    ],
)
def test_a_trainer_that_cannot_work_is_told(tmp_path: Path, kind: type[Trainer], message: str) -> None:
    with pytest.raises(WeftError, match=message):
        train(runs_of(tmp_path, kind))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"agg_engine": "dSDG"}, "agg_engine is 'dSDG', which there is not"),
        ({"agg_engine": "os.system"}, "agg_engine is 'os.system', which there is not"),
        ({"agg_engine": "FedProx", "FedProx_args": {"muu": 1}}, "FedProx.*muu"),
        ({"agg_engine": "powerSGD", "warm_start": False}, "warm_start is False"),
        ({"monitor_metric": "dice"}, "monitor_metric is 'dice', which Prf1a does not measure"),
        ({"pretrained_path": "../../weights.pt"}, "pretrained_path is .*, which leaves"),
        ({"pretrained_path": "/etc/passwd"}, "pretrained_path is .*, which leaves"),
        ({"pretrained_path": "none.pt"}, "pretrained_path is 'none.pt', but there is no file"),
    ],
)
def test_arguments_that_cannot_work_are_told(tmp_path: Path, spec: dict[str, Any], message: str) -> None:
    with pytest.raises(WeftError, match=message):
        train(runs_of(tmp_path, **spec))


def test_a_file_of_weights_that_holds_something_else_is_not_executed(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "executed",)

    write_sites(tmp_path)
    torch.save({"source": "coinstac", "models": Bomb()}, tmp_path / "local0" / "in" / "weights.pt")
    with pytest.raises(CheckpointError, match="weights.pt cannot be loaded into model"):
        train(
            [
                site_run(tmp_path, name, **({"pretrained_path": "weights.pt"} if name == "local0" else {}))
                for name in SIZES
            ]
        )
    assert not (tmp_path / "executed").exists()


def test_weights_that_the_constructor_names_may_lie_anywhere(tmp_path: Path) -> None:
    runs = runs_of(tmp_path)
    train(runs)
    runs[0].trainer.save_checkpoint(tmp_path / "elsewhere.pt")
    again = runs_of(tmp_path, own={"pretrained_path": str(tmp_path / "elsewhere.pt")}, mode="test")
    assert train(again)["local0"]["test_metrics"]


def test_sites_must_be_told_the_same(tmp_path: Path) -> None:
    write_sites(tmp_path)
    with pytest.raises(ConfigError, match="learning_rate is 0.01 at site local0 and 0.5 at local2"):
        train([site_run(tmp_path, name, **({"learning_rate": 0.5} if name == "local2" else {})) for name in SIZES])


class Missing(Patients):
    """Some items cannot be loaded, and one raises."""

    def __getitem__(self, ix: int) -> Any:
        if self.cache.get("raises"):
            return {}["no such file"]
        return None if ix % 2 else super().__getitem__(ix)


def test_items_that_are_none_are_left_out(tmp_path: Path) -> None:
    write_sites(tmp_path)
    runs = [site_run(tmp_path, name, code=UserCode(Trainer, Missing), epochs=1) for name in SIZES]
    report = train(runs)["local0"]
    tested = sum(-(-len(run.handle.dataset["test"]) // 2) for run in runs)
    assert sum(report["test_sums"]["metrics"]) == tested


def test_an_item_that_fails_is_told_with_its_name(tmp_path: Path) -> None:
    write_sites(tmp_path)
    runs = [site_run(tmp_path, name, code=UserCode(Trainer, Missing), epochs=1, raises=True) for name in SIZES]
    with pytest.raises(DataError, match=r"patient\d+.txt.*Missing.__getitem__.*failed: KeyError: 'no such file'"):
        train(runs)


class Numbers(Dataset[Any]):
    """A dataset that is no COINNDataset."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, row: int) -> Any:
        return {"inputs": torch.full((30,), float(row)), "labels": row % 2}


def test_datasets_and_samplers_may_be_given_as_arguments_of_loaders(tmp_path: Path) -> None:
    write_sites(tmp_path)
    seen: dict[str, list[list[int]]] = {name: [] for name in SIZES}

    class Seeing(Trainer):
        def iteration(self, batch: Any) -> dict[str, Any]:
            if self.nn["model"].training:
                seen[self.state["clientId"]].append(batch["inputs"][:, 0].int().tolist())
            return super().iteration(batch)

    given: dict[str, dict[str, Any]] = {
        "local0": {"dataset": Numbers(10), "shuffle": False, "drop_last": True},
        "local1": {"dataset": Numbers(10), "sampler": WeightedRandomSampler([0.0] * 9 + [1.0], 5), "batch_size": 5},
        "local2": {"dataset": Numbers(10), "batch_size": 3, "num_workers": 0},
    }
    runs = [
        site_run(
            tmp_path, name, code=UserCode(Seeing), epochs=1, batch_size=4,
            options={"dataloader_args": {"train": train_arguments, "test": {"dataset": Numbers(7)}}},
        )
        for name, train_arguments in given.items()
    ]  # fmt: skip
    report = train(runs)["local0"]
    assert seen["local0"] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert seen["local1"] == [[9] * 5]
    assert [len(batch) for batch in seen["local2"]] == [3, 3, 3, 1]
    assert sorted(row for batch in seen["local2"] for row in batch) == [*range(10)]
    assert sum(report["test_sums"]["metrics"]) == 21


def test_items_come_in_another_order_in_each_epoch(tmp_path: Path) -> None:
    write_sites(tmp_path)
    orders: list[list[int]] = [[], []]

    class Noting(Trainer):
        def on_iteration_end(self, i: int, ep: int, it: dict[str, Any]) -> None:
            orders[ep - 1] += it["rows"]

        def iteration(self, batch: Any) -> dict[str, Any]:
            return {**super().iteration(batch), "rows": batch["inputs"][:, 0].int().tolist()}

    options = {"dataloader_args": {"train": {"dataset": Numbers(10)}, "test": {"dataset": Numbers(3)}}}
    train([site_run(tmp_path, "local0", ["local0"], code=UserCode(Noting), epochs=2, options=options)])
    assert sorted(orders[0]) == sorted(orders[1]) == [*range(10)]
    assert orders[0] != orders[1]


class OwnStrategy(Strategy):
    """Exchanges nothing."""


def test_a_strategy_of_ones_own_may_be_given_by_code(tmp_path: Path) -> None:
    runs = runs_of(tmp_path, own={"agg_engine": OwnStrategy})
    train(runs)
    first, second = (run.trainer.nn["model"].out.bias for run in runs[:2])
    assert not torch.equal(first, second)  # nobody agreed on anything


def test_halved_numbers_travel_in_half_the_bytes(tmp_path: Path) -> None:
    sent = []
    for bits in (32, 16):
        report = train(runs_of(tmp_path / str(bits), precision_bits=bits))["local0"]
        sent.append(report["traffic"]["by_kind"]["gradients"]["sent"])
    assert sent[1] < 0.56 * sent[0]
