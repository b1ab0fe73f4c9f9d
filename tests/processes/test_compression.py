"""Gradients that travel compressed: nearly the same network, and exactly the same one after a kill."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.faults.nursery import Nursery
from tests.processes.children import start, write_job
from tests.processes.launch import train
from tests.processes.test_dying import outcome
from tests.processes.test_world_size import largest_difference

pytestmark = pytest.mark.slow

POWERSGD = {"method": "powersgd", "rank": 2, "warmup_steps": 5}


@pytest.mark.parametrize(("compression", "far"), [("bf16", 0.02), (POWERSGD, 0.2)])
def test_two_processes_end_alike_and_near_to_one_that_compresses_nothing(
    compression: Any, far: float, tmp_path: Path
) -> None:
    settings = {"model": {"hidden": 40, "depth": 2, "float64": False}}
    alone = train(settings, 1, tmp_path)[0]
    outcomes = train({**settings, "training": {"gradient_compression": compression}}, 2, tmp_path)
    assert len({outcome["model_sha256"] for outcome in outcomes}) == 1
    assert 1e-5 < largest_difference(alone, outcomes[0]) < far  # it was compressed, and trained
    assert outcomes[0]["scores"]["train"]["accuracy"] == pytest.approx(alone["scores"]["train"]["accuracy"], abs=0.05)


def test_a_run_with_powersgd_that_was_killed_ends_with_the_weights_of_one_left_alone(
    nursery: Nursery, tmp_path: Path
) -> None:
    """The factors, and what each process still owes to them, are part of the state."""
    file = write_job(tmp_path, {"training.gradient_compression": POWERSGD})
    runs = []
    for name, sabotage in (("undisturbed", []), ("killed", [{"rank": 1, "at": 13, "do": "kill"}])):
        runs.append(tmp_path / name)
        job = start(
            nursery, "train", file, "--out", runs[-1], "--processes", "2", "--restarts", "1", sabotage=sabotage
        )  # fmt: skip
        ended = job.wait(300)
        assert ended.code == 0, ended.text
        assert ("was killed by SIGKILL" in ended.err) == bool(sabotage)
    assert outcome(runs[0]) == outcome(runs[1])
    state = torch.load(next((runs[1] / "checkpoints").glob("last-*.pt")), weights_only=True)
    errors = [process["strategy"]["errors"] for process in state["processes"]]
    assert any(float(error.abs().max()) > 0 for error in errors[0].values())
