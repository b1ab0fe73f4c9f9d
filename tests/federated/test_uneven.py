"""Sites with fewer batches than others: they count nothing, end the epoch for all, or begin their items again."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import Dataset

from tests.federated.lab import SIZES, distance_to_union, outcome, rows_of, simulate_and_die, study
from weft.actions.opening import load, open_experiment_data
from weft.data import SplitData, make_loader
from weft.errors import ConfigError
from weft.federated.site import site_experiment
from weft.federated.study import simulate

pytest.importorskip("sklearn")


class _Numbers(Dataset[Any]):
    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, row: int) -> tuple[torch.Tensor, int]:
        return torch.tensor([row]), 0


@given(
    items=st.integers(1, 13), size=st.integers(1, 5), batches=st.integers(1, 17), epoch=st.integers(0, 3),
    skip=st.integers(0, 17), dropping=st.booleans(),
)  # fmt: skip
def test_an_epoch_of_any_number_of_batches_visits_items_evenly_and_begins_anywhere(
    items: int, size: int, batches: int, epoch: int, skip: int, dropping: bool
) -> None:
    split = SplitData("train", _Numbers(items), [str(row) for row in range(items)])
    dropping = dropping and items >= size
    loader = make_loader(split, batch_size=size, seed=3, shuffle=True, drop_last=dropping, batches=batches)
    plain = make_loader(split, batch_size=size, seed=3, shuffle=True, drop_last=dropping)
    visited = [batch.index.tolist() for batch in loader.epoch(epoch)]
    assert len(visited) == len(loader) == batches
    assert visited[: len(plain)] == [batch.index.tolist() for batch in plain.epoch(epoch)][:batches]
    assert [batch.index.tolist() for batch in loader.epoch(epoch, skip=skip)] == visited[skip:]
    for start in range(0, batches, len(plain)):  # nothing twice before everything once
        rows = [row for batch in visited[start : start + len(plain)] for row in batch]
        assert len(set(rows)) == len(rows)
    rows = [row for batch in visited for row in batch]
    assert max(rows.count(row) for row in range(items)) <= math.ceil(batches / len(plain))


def test_items_that_come_again_come_in_a_new_order_and_are_augmented_anew() -> None:
    from weft.data.order import epoch_order, one_after_another, plan_batches

    laps = [plan_batches(epoch_order(64, shuffle=True, seed=1, epoch=2, lap=lap), 8) for lap in range(3)]
    orders = [lap.rows.tolist() for lap in laps]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(64))
    assert orders[0] != orders[1] != orders[2] != orders[0]
    assert one_after_another(laps, 20).occurrences == [0] * 64 + [1] * 64 + [2] * 32


def _batches(written: dict[str, Any]) -> dict[str, int]:
    experiment = load(written)
    train = {name: open_experiment_data(site_experiment(experiment, name)).splits["train"] for name in SIZES}
    return {name: math.ceil(len(split) / 8) for name, split in train.items()}


@pytest.mark.parametrize("uneven", ["stop", pytest.param("wrap", marks=pytest.mark.slow)])
def test_every_site_takes_every_step(uneven: str, tmp_path: Path) -> None:
    written = study(federation__uneven=uneven, training__scheduler={"OneCycleLR": {"max_lr": 0.05}})
    found = _batches(written)
    epoch = min(found.values()) if uneven == "stop" else max(found.values())
    assert len(set(found.values())) > 1  # else it shows nothing
    done = simulate(written, out=tmp_path / "study")
    assert done.result["steps"] == 3 * epoch
    for name in SIZES:
        steps = rows_of(done.path / "sites" / name / "steps.csv")
        assert len(steps) == 3 * epoch
        assert all(row["loss"] for row in steps)
        assert float(steps[-1]["learning_rate"]) < 1e-3  # the schedule is as long as the study


@pytest.mark.parametrize("uneven", [pytest.param("stop", marks=pytest.mark.slow), "wrap"])
def test_a_step_is_one_on_the_union_of_the_sites_batches(uneven: str, tmp_path: Path) -> None:
    written = study(federation__uneven=uneven, federation__exact=True)
    found = _batches(written)
    epoch = min(found.values()) if uneven == "stop" else max(found.values())
    done = simulate(written, out=tmp_path / "study")
    assert distance_to_union(done.path, written, epochs=3, batches=epoch) < 1e-12


def _rows(start: int, stop: int) -> dict[str, Any]:
    return {"tests.federated.lab.Rows": {"start": start, "stop": stop}}


def test_a_site_without_training_data_ends_no_epoch(tmp_path: Path) -> None:
    whole = {"north": {"train": _rows(0, 37)}, "south": {"train": _rows(37, 127)}, "tested": {"test": _rows(240, 270)}}
    written = study({name: {"class": parts} for name, parts in whole.items()}, federation__uneven="stop")
    written["dataset"] = {}
    done = simulate(written, out=tmp_path / "study")
    assert done.result["steps"] == 3 * math.ceil(37 / 8)
    assert done.result["sites"]["tested"]["items"] == {"test": 30}


@pytest.mark.parametrize("uneven", ["weight_zero", "stop", "wrap"])
def test_a_site_with_too_few_items_for_a_batch_is_told(uneven: str, tmp_path: Path) -> None:
    parts = {"north": {"train": _rows(0, 37)}, "south": {"train": _rows(37, 40)}}
    sites = {name: {"class": part} for name, part in parts.items()}
    written = study(sites, federation__uneven=uneven, training__drop_last=True)
    written["dataset"] = {}
    with pytest.raises(ConfigError, match="3 items are fewer than a batch of 8"):
        simulate(written, out=tmp_path / "study")


@pytest.mark.slow
@pytest.mark.parametrize("uneven", ["stop", "wrap"])
@pytest.mark.parametrize("saves", [1, 3])
def test_a_study_killed_inside_an_epoch_goes_on_to_the_same_bits(uneven: str, saves: int, tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "federation__uneven": uneven,
        "model": {"tests.engine.studies.DoubleNet": {"dropout": 0.3}},
        "run__checkpoint_every": {"steps": 3, "epochs": None},
    }
    undisturbed = simulate(study(**settings), out=tmp_path / "undisturbed")
    simulate_and_die(study(**settings), tmp_path / "killed", "west", saves)
    done = simulate(tmp_path / "killed", ["run.observers=[]"], resume=True)
    assert outcome(done.path) == outcome(undisturbed.path)
