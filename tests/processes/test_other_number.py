"""A run that goes on with another number of processes than it began with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.faults.nursery import Nursery
from tests.faults.runs import history_of, result_of
from tests.processes.children import start, write_job

pytestmark = pytest.mark.slow

CHANGES = {
    "model": {"Net": {"dropout": 0.0}},
    "training.optimizer": {"SGD": {"lr": 0.05, "momentum": 0.9}},
}


@pytest.mark.parametrize(("before", "after"), [(2, 1), (2, 3)])
def test_it_ends_as_one_that_was_never_disturbed(before: int, after: int, nursery: Nursery, tmp_path: Path) -> None:
    file, alone, run = write_job(tmp_path, CHANGES), tmp_path / "alone", tmp_path / "run"
    assert start(nursery, "train", file, "--out", alone).wait().code == 0
    kill = [{"rank": 0, "at": 11, "do": "kill"}]
    broken = start(nursery, "train", file, "--out", run, "--processes", str(before), sabotage=kill).wait()
    assert broken.code == 1, broken.text
    resumed = start(nursery, "train", "--resume", run, "--processes", str(after)).wait()
    assert resumed.code == 0, resumed.text
    weights, expected = (load_file(folder / "model.safetensors") for folder in (run, alone))
    for name, tensor in expected.items():
        assert torch.allclose(weights[name].double(), tensor.double(), rtol=0, atol=1e-5), name
    assert result_of(run)["steps"] == result_of(alone)["steps"] == 24
    for row, alike in zip(history_of(run), history_of(alone), strict=True):
        for name, cell in row.items():
            assert float(cell) == pytest.approx(float(alike[name]), abs=1e-5), (name, row["epoch"])
