"""Sharded models: each process has a part of every parameter; what comes out is what comes out of one process."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from tests.faults.nursery import Nursery
from tests.faults.runs import outcome, result_of
from tests.processes.children import WITHOUT_DROPOUT, left_behind, require_alike, start, write_job
from tests.processes.launch import train
from tests.processes.test_world_size import largest_difference

pytestmark = pytest.mark.slow

FSDP = {"run": {"sharding": "fsdp"}}
SHARDED = {"run.sharding": "fsdp"}

# Blocks that are put together one by one; batches of which a third process gets nothing.
CASES: dict[str, tuple[dict[str, Any], float]] = {
    "float64, batch statistics, norms of gradients clipped": (
        {"model": {"batch_norm": True, "depth": 2, "blocks": True}, "training": {"clip_norm": 0.5}},
        1e-10,
    ),
    "float64, empty shares, accumulated, frozen, recomputed": (
        {
            "model": {"hidden": 20, "depth": 3, "blocks": True},
            "weights": {"freeze": ["layers.4.*", "layers.0.*"], "unfreeze": {2: ["layers.4.0.weight"]}},
            "training": {"accumulate": 3, "batch_size": 4, "train_batches": 26, "clip_value": 0.1},
        },
        1e-10,
    ),
    "float32": ({"model": {"float64": False, "hidden": 33, "depth": 2, "blocks": True}}, 1e-5),
}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", CASES)
def test_one_two_and_three_processes_train_the_same(name: str, tmp_path: Path) -> None:
    settings, tolerance = CASES[name]
    alone = train(settings, 1, tmp_path)[0]
    run = {"sharding": "fsdp", "activation_checkpointing": "recomputed" in name}
    for world in (2, 3):
        outcomes = train({**settings, "run": run}, world, tmp_path)
        assert len({outcome["model_sha256"] for outcome in outcomes}) == 1
        assert largest_difference(alone, outcomes[0]) < tolerance
        for split, scores in alone["scores"].items():
            assert outcomes[0]["scores"][split]["accuracy"] == scores["accuracy"]
            for score, value in scores.items():
                assert outcomes[0]["scores"][split][score] == pytest.approx(value, abs=max(tolerance, 1e-6))
        assert outcomes[0]["cases"] == alone["cases"]


@pytest.mark.parametrize(("held_out", "world"), [(33, 2), (1, 3)])
def test_scores_count_every_sample_once(held_out: int, world: int, tmp_path: Path) -> None:
    settings = {
        "ratio": [1 - held_out / 42, held_out / 42], "count": 42,
        "training": {"epochs": 1, "optimizer": {"SGD": {"lr": 0.0}}, "evaluation_batch_size": 6},
    }  # fmt: skip
    alone = train(settings, 1, tmp_path)[0]
    for outcome_there in train({**settings, **FSDP}, world, tmp_path):
        assert outcome_there["cases"] == alone["cases"]
        for score in ("accuracy", "auroc", "f1"):
            values = (one["scores"]["validation"][score] for one in (outcome_there, alone))
            first, second = values
            assert first == second or all(map(math.isnan, (first, second)))


@pytest.fixture(scope="module")
def untouched(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What comes out of two processes that are left alone."""
    folder = tmp_path_factory.mktemp("sharded")
    ended = start(nursery, "train", write_job(folder, SHARDED), "--out", folder / "run", "--processes", "2").wait()
    assert ended.code == 0, ended.text
    return outcome(folder / "run")


@pytest.mark.timeout(600)
def test_a_run_whose_processes_are_killed_ends_with_the_weights_of_one_left_alone(
    nursery: Nursery, tmp_path: Path, untouched: dict[str, Any]
) -> None:
    """In steps, and in validation; AdamW, dropout and a schedule."""
    run = tmp_path / "run"
    places = [(1, 4), (0, 11), (1, -2)]
    kills = [{"rank": rank, "attempt": n, "at": at, "do": "kill"} for n, (rank, at) in enumerate(places)]
    file = write_job(tmp_path, SHARDED)
    job = start(nursery, "train", file, "--out", run, "--processes", "2", "--restarts", "3", sabotage=kills)
    ended = job.wait(500)
    assert ended.code == 0, ended.text
    assert ended.err.count("was killed by SIGKILL") == 3, ended.err
    assert "Traceback" not in ended.err
    assert outcome(run) == untouched
    assert not left_behind(run)


@pytest.mark.timeout(600)
def test_it_goes_on_with_more_processes_with_one_and_with_one_that_was_never_sharded(
    nursery: Nursery, tmp_path: Path, alone: Path
) -> None:
    """2 (each the whole) -> 2 -> 3 -> 1 (the whole)."""
    file, run = write_job(tmp_path, WITHOUT_DROPOUT), tmp_path / "run"
    begin: tuple[str | Path, ...] = ("train", file, "--out", run)
    for at, count in ((4, "2"), (8, "2"), (14, "3")):
        kill = [{"rank": 0, "at": at, "do": "kill"}]
        broken = start(nursery, *begin, "--processes", count, sabotage=kill).wait(200)
        assert "killed by SIGKILL" in broken.err, broken.text
        assert bool(list((run / "checkpoints").glob("shards-*/part-00002.safetensors"))) == (count == "3")
        begin = ("train", "--resume", run, "--set", "run.sharding=fsdp")
    resumed = start(nursery, *begin, "--processes", "1").wait(200)
    assert resumed.code == 0, resumed.text
    require_alike(run, alone)


@pytest.mark.timeout(600)
def test_a_damaged_part_is_noticed_and_the_checkpoint_before_is_taken(
    nursery: Nursery, tmp_path: Path, untouched: dict[str, Any]
) -> None:
    file, run = write_job(tmp_path, SHARDED), tmp_path / "run"
    kill = [{"rank": 0, "at": 11, "do": "kill"}]
    assert start(nursery, "train", file, "--out", run, "--processes", "2", sabotage=kill).wait(200).code == 1
    folders = sorted((run / "checkpoints").glob("shards-*"))
    assert [folder.name[:16] for folder in folders] == [f"shards-{step:09d}" for step in (6, 9)]
    part = folders[1] / "part-00001.safetensors"
    data = bytearray(part.read_bytes())
    data[-3] ^= 1
    part.write_bytes(data)
    resumed = start(nursery, "train", "--resume", run, "--processes", "2").wait(200)
    assert resumed.code == 0, resumed.text
    assert "is damaged" in resumed.err
    assert part.name in resumed.err
    assert outcome(run) == untouched
    checkpoints = [entry.name for entry in (run / "checkpoints").iterdir()]
    assert sum(name.startswith("shards-") for name in checkpoints) == 2
    assert not [name for name in checkpoints if name.startswith(".")]


@pytest.mark.timeout(600)
def test_a_process_that_is_asked_to_stop_in_validation_stops_all(
    nursery: Nursery, tmp_path: Path, untouched: dict[str, Any]
) -> None:
    file, run = write_job(tmp_path, SHARDED), tmp_path / "run"
    asked = [{"rank": 1, "at": -2, "do": "term"}]
    ended = start(nursery, "train", file, "--out", run, "--processes", "2", sabotage=asked).wait(200)
    assert ended.code == 75, ended.text
    assert result_of(run)["status"] == "stopped"
    resumed = start(nursery, "train", "--resume", run, "--processes", "2").wait(200)
    assert resumed.code == 0, resumed.text
    assert outcome(run) == untouched
