"""Checkpoints that are written beside the training, and several best epochs: killed, stopped, on a full disk."""

from __future__ import annotations

import json
import random
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.faults.nursery import Nursery
from tests.faults.runs import VARIANTS, outcome, result_of, write_experiment
from weft.engine.checkpoint_files import read_checkpoint, scored_weights_of

# A moving average, several best epochs, and epochs that are better and worse than those before them.
CHANGES: dict[str, Any] = VARIANTS["warm-up and average"] | {
    "training.monitor": {"metric": "accuracy"},
    "training.epochs": 5,
    "run.keep_best": 2,
    "run.keep_last": 3,
}
BESIDE = CHANGES | {"run.checkpoint_async": True}
SAVES_OF_EPOCHS = {"run.checkpoint_every": {"epochs": 1, "steps": 3}}


def kept_of(run: Path) -> list[tuple[Any, ...]]:
    """The epochs whose weights were kept, with the weights."""
    found = []
    for kept in result_of(run)["kept_epochs"]:
        content = read_checkpoint(run / kept["file"])
        assert isinstance(content, dict)
        weights = {name: tensor.tolist() for name, tensor in scored_weights_of(content).items()}
        found.append((kept["epoch"], kept["step"], kept["value"], weights))
    return found


@pytest.fixture(scope="module")
def undisturbed(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], list[Any]]:
    """Outcome and kept epochs of the run that is left alone and waits for each checkpoint."""
    folder = tmp_path_factory.mktemp("alone")
    ended = nursery.weft("train", write_experiment(folder, CHANGES | SAVES_OF_EPOCHS), "--out", folder / "run")
    assert ended.code == 0, ended.text
    return outcome(folder / "run"), kept_of(folder / "run")


def seeded_points() -> list[dict[str, Any]]:
    """12 moments: 4 between steps, 3 in validation, 5 of the writer."""
    draw = random.Random(4)
    points = [{"at": "step", "count": draw.randrange(2, 36)} for _ in range(4)]
    points += [{"at": "validation", "count": draw.randrange(1, 20)} for _ in range(3)]
    moments = ("opened", "half", "written", "synced", "renamed")
    return points + [{"at": moment, "count": draw.randrange(1, 9), "file": "last-"} for moment in moments]


POINTS = seeded_points()
FEW = [POINTS[0], POINTS[8]]


def kill_and_resume(point: dict[str, Any], nursery: Nursery, folder: Path) -> Path:
    file, run = write_experiment(folder, BESIDE | SAVES_OF_EPOCHS), folder / "run"
    killed = nursery.weft("train", file, "--out", run, trap=point | {"log": str(folder / "log")})
    assert killed.code == -signal.SIGKILL, killed.text
    assert json.loads((folder / "log").read_text())["at"] == point["at"]
    resumed = nursery.weft("train", "--resume", run)
    assert resumed.code == 0, resumed.text
    return run


def test_a_run_that_writes_beside_the_training_is_the_same(
    nursery: Nursery, tmp_path: Path, undisturbed: tuple[dict[str, Any], list[Any]]
) -> None:
    run = tmp_path / "run"
    ended = nursery.weft("train", write_experiment(tmp_path, BESIDE | SAVES_OF_EPOCHS), "--out", run)
    assert ended.code == 0, ended.text
    assert (outcome(run), kept_of(run)) == undisturbed
    told = (run / "log.txt").read_text()
    for file in (run / "checkpoints").iterdir():
        assert f"checkpoint: {file.name}" in told


@pytest.mark.parametrize("point", FEW, ids=str)
def test_a_run_that_is_killed_while_it_writes_beside_the_training_resumes_to_the_bit(
    point: dict[str, Any], nursery: Nursery, tmp_path: Path, undisturbed: tuple[dict[str, Any], list[Any]]
) -> None:
    run = kill_and_resume(point, nursery, tmp_path)
    assert (outcome(run), kept_of(run)) == undisturbed


@pytest.mark.slow
@pytest.mark.parametrize("point", [point for point in POINTS if point not in FEW], ids=str)
def test_a_run_that_is_killed_at_other_moments_resumes_to_the_bit(
    point: dict[str, Any], nursery: Nursery, tmp_path: Path, undisturbed: tuple[dict[str, Any], list[Any]]
) -> None:
    run = kill_and_resume(point, nursery, tmp_path)
    assert (outcome(run), kept_of(run)) == undisturbed


def test_a_stopped_run_leaves_when_its_checkpoint_is_safe(
    nursery: Nursery, tmp_path: Path, undisturbed: tuple[dict[str, Any], list[Any]]
) -> None:
    file, run = write_experiment(tmp_path, BESIDE | SAVES_OF_EPOCHS), tmp_path / "run"
    stopped = nursery.weft("train", file, "--out", run, trap={"at": "step", "count": 13, "do": "SIGTERM"})
    assert stopped.code == 75, stopped.text
    (newest,) = (run / "checkpoints").glob("last-000000013-*")
    assert isinstance(read_checkpoint(newest), dict)
    assert nursery.weft("train", "--resume", run).code == 0
    assert (outcome(run), kept_of(run)) == undisturbed


def test_a_disk_that_is_full_for_the_writer_ends_the_run_and_the_checkpoint_before_is_kept(
    nursery: Nursery, tmp_path: Path, undisturbed: tuple[dict[str, Any], list[Any]]
) -> None:
    if not nursery.mounts:
        pytest.skip("needs mount namespaces (Linux, unshare)")
    disk = tmp_path / "disk"
    disk.mkdir()
    nursery.shell(f"mount -t tmpfs -o size=4m tmpfs {disk}")
    run, filler = disk / "run", disk / "filler"
    trap = {"at": "opened", "file": "last-000000012", "do": "fill disk", "filler": str(filler)}
    failed = nursery.weft("train", write_experiment(tmp_path, BESIDE | SAVES_OF_EPOCHS), "--out", run, trap=trap)
    assert failed.code == 1, failed.text
    assert f"cannot write {run}/checkpoints/last-000000012" in failed.err
    assert "No space left on device" in failed.err
    assert "free some space" in failed.err
    assert f"weft train --resume {run}" in failed.err
    kept = sorted(nursery.inside(run / "checkpoints").glob("last-*"))
    assert [path.name[5:14] for path in kept] == ["000000006", "000000008", "000000009"]
    assert all(isinstance(read_checkpoint(path), dict) for path in kept)
    nursery.inside(filler).unlink()
    resumed = nursery.weft("train", "--resume", run)
    assert resumed.code == 0, resumed.text
    assert (outcome(nursery.inside(run)), kept_of(nursery.inside(run))) == undisturbed
    nursery.shell(f"umount -l {disk}")


def test_the_weights_of_each_kept_epoch_have_the_score_that_is_listed(
    nursery: Nursery, tmp_path: Path, undisturbed: tuple[dict[str, Any], list[Any]]
) -> None:
    run = tmp_path / "run"
    ended = nursery.weft("train", write_experiment(tmp_path, CHANGES | SAVES_OF_EPOCHS), "--out", run)
    assert ended.code == 0, ended.text
    kept = result_of(run)["kept_epochs"]
    assert len(kept) == 2
    assert kept[0]["value"] >= kept[1]["value"]
    for epoch in kept:
        scored = nursery.weft(
            "evaluate",
            tmp_path / "experiment.yaml",
            "--weights",
            run / epoch["file"],
            "--split",
            "validation",
            "--json",
        )
        assert scored.code == 0, scored.text
        assert json.loads(scored.out)["scores"]["validation"]["accuracy"] == epoch["value"]


@pytest.mark.slow
@pytest.mark.parametrize("beside", [False, True])
def test_a_large_state_that_finds_the_disk_full_is_explained(beside: bool, nursery: Nursery, tmp_path: Path) -> None:
    """It is made on its way into the file, so that the disk is full in the middle of torch's writing."""
    if not nursery.mounts:
        pytest.skip("needs mount namespaces (Linux, unshare)")
    disk = tmp_path / "disk"
    disk.mkdir()
    nursery.shell(f"mount -t tmpfs -o size=40m tmpfs {disk}")
    changes = {
        "dataset.class": {"train": {"Noisy": {"items": 46, "width": 100}}},
        "dataset.transforms": None,
        "model": {"Net": {"features": 1200, "hidden": 1600}},
        "training.metrics": None,
        "training.ema": {"decay": 0.9},
        "run.checkpoint_async": beside,
    }  # 4 times 7.7 MB
    ended = nursery.weft("train", write_experiment(tmp_path, changes), "--out", disk / "run")
    assert ended.code == 1, ended.text
    (error,) = [line for line in ended.err.splitlines() if line.startswith("error: ")]
    assert f"cannot write {disk}/run/checkpoints/last-000000006" in error
    assert "No space left on device" in error
    (kept,) = nursery.inside(disk / "run" / "checkpoints").iterdir()
    content = read_checkpoint(kept)
    assert isinstance(content, dict)
    assert all(bool(torch.isfinite(tensor).all()) for tensor in content["model"].values())
    nursery.shell(f"umount -l {disk}")
