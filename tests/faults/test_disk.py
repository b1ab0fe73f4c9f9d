"""Disks that are full, read-only or damage files; loader workers that die: never a lost run, always a message."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.nursery import Nursery
from tests.faults.runs import outcome, result_of, write_experiment
from weft.engine.checkpoint_files import read_checkpoint


@pytest.fixture(scope="module")
def disks(nursery: Nursery) -> Nursery:
    """The nursery, where disks can be mounted for it."""
    if not nursery.mounts:
        pytest.skip("needs mount namespaces (Linux, unshare)")
    return nursery


@pytest.fixture
def disk(disks: Nursery, tmp_path: Path) -> Iterator[Path]:
    """A small disk, seen by the children of `disks` (and, with `disks.inside`, from here)."""
    folder = tmp_path / "disk"
    folder.mkdir()
    disks.shell(f"mount -t tmpfs -o size=4m tmpfs {folder}")
    yield folder
    disks.shell(f"umount -l {folder}")


# --- full and read-only -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["last-000000006", "best-000000008"])
def test_a_full_disk_ends_the_run_with_a_remedy_and_the_checkpoint_before_is_kept(
    file: str, disks: Nursery, disk: Path, tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    run, filler = disk / "run", disk / "filler"
    trap = {"at": "opened", "file": file, "do": "fill disk", "filler": str(filler)}
    failed = disks.weft("train", write_experiment(tmp_path), "--out", run, trap=trap)
    assert failed.code == 1, failed.text
    assert f"cannot write {run}/checkpoints/{file}" in failed.err
    assert "No space left on device" in failed.err
    assert "free some space" in failed.err
    assert f"weft train --resume {run}" in failed.err
    kept = sorted(disks.inside(run / "checkpoints").iterdir())
    assert [path.name[:14] for path in kept] == (
        ["last-000000003"] if "6" in file else ["last-000000003", "last-000000006"]
    )
    assert all(isinstance(read_checkpoint(path), dict) for path in kept)
    still_full = disks.weft("train", "--resume", run)
    assert still_full.code == 1, still_full.text
    disks.inside(filler).unlink()
    resumed = disks.weft("train", "--resume", run)
    assert resumed.code == 0, resumed.text
    assert outcome(disks.inside(run)) == undisturbed


def test_a_disk_that_is_full_when_the_results_are_written_loses_nothing(
    disks: Nursery, disk: Path, tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    run, filler = disk / "run", disk / "filler"
    trap = {"at": "opened", "file": "model.safetensors", "do": "fill disk", "filler": str(filler)}
    failed = disks.weft("train", write_experiment(tmp_path), "--out", run, trap=trap)
    assert failed.code == 1, failed.text
    assert f"cannot write {run}/model.safetensors" in failed.err
    disks.inside(filler).unlink()
    resumed = disks.weft("train", "--resume", run, trap={"at": "step"})  # training is over: not one step is taken
    assert resumed.code == 0, resumed.text
    assert outcome(disks.inside(run)) == undisturbed


def test_a_read_only_output_folder_is_refused_before_any_training(disks: Nursery, disk: Path, tmp_path: Path) -> None:
    disks.shell(f"mount -o remount,ro {disk}")
    file = write_experiment(tmp_path, {"run.output": str(disk / "runs")})
    for options in ([], ["--out", str(disk / "run")]):
        refused = disks.weft("train", file, *options, trap={"at": "step"})
        assert refused.code == 1, refused.text
        assert f"cannot write {disk}" in refused.err
        assert "Read-only file system" in refused.err
        assert "choose a folder that can be written to (run.output or --out)" in refused.err


def test_a_run_whose_folder_became_read_only_goes_on_when_it_is_writable_again(
    disks: Nursery, disk: Path, tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    run = disk / "run"
    disks.weft("train", write_experiment(tmp_path), "--out", run, trap={"at": "step", "count": 5})
    disks.shell(f"mount -o remount,ro {disk}")
    refused = disks.weft("train", "--resume", run)
    assert refused.code == 1, refused.text
    assert "Read-only file system" in refused.err
    disks.shell(f"mount -o remount,rw {disk}")
    assert disks.weft("train", "--resume", run).code == 0
    assert outcome(disks.inside(run)) == undisturbed


# --- kills and damage -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kills", [40, pytest.param(200, marks=pytest.mark.slow)])
def test_writers_of_checkpoints_killed_at_random_moments_never_lose_what_was_saved(
    kills: int, nursery: Nursery, tmp_path: Path
) -> None:
    ended = nursery.call("tests.faults.storms:storm", tmp_path / "checkpoints", str(kills))
    assert ended.code == 0, ended.text
    assert ended.out.startswith(f"{kills} kills")


def stopped_run(nursery: Nursery, folder: Path) -> tuple[Path, list[Path]]:
    """A run that was killed after step 13, and its states, newest first."""
    file, run = write_experiment(folder), folder / "run"
    assert nursery.weft("train", file, "--out", run, trap={"at": "step", "count": 13}).code < 0
    return run, sorted((run / "checkpoints").glob("last-*"), reverse=True)


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[random.Random(1).randrange(len(content))] ^= 4
    file.write_bytes(content)


def empty(file: Path) -> None:
    file.write_bytes(b"")


@pytest.mark.parametrize(
    "damage", [flip_a_bit, *(pytest.param(damage, marks=pytest.mark.slow) for damage in (truncate, empty))]
)
def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_is_used(
    damage: Any, nursery: Nursery, tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    run, (newest, _before) = stopped_run(nursery, tmp_path)
    damage(newest)
    resumed = nursery.weft("train", "--resume", run)
    assert resumed.code == 0, resumed.text
    (warning,) = [line for line in resumed.err.splitlines() if line.startswith("WARNING")]
    assert str(newest) in warning
    assert outcome(run) == undisturbed


def test_a_run_that_resumed_from_the_checkpoint_before_keeps_two_sound_ones(nursery: Nursery, tmp_path: Path) -> None:
    run, (newest, _before) = stopped_run(nursery, tmp_path)
    truncate(newest)
    assert nursery.weft("train", "--resume", run, trap={"at": "renamed", "file": "last-"}).code < 0
    assert nursery.weft("train", "--resume", run, trap={"at": "step", "count": 4}).code < 0
    kept = sorted((run / "checkpoints").glob("last-*"))
    assert len(kept) == 2
    assert all(isinstance(read_checkpoint(path), dict) for path in kept)


def test_checkpoints_that_are_all_damaged_are_an_error_with_a_remedy(nursery: Nursery, tmp_path: Path) -> None:
    run, states = stopped_run(nursery, tmp_path)
    for file in states:
        truncate(file)
    refused = nursery.weft("train", "--resume", run)
    assert refused.code == 1, refused.text
    assert f"no sound checkpoint in {run / 'checkpoints'}" in refused.err
    for file in states:
        assert file.name in refused.err
        assert file.exists(), "it may still be of use to somebody"
    assert "restore the folder from a backup" in refused.err


@pytest.mark.parametrize("damage", [truncate, pytest.param(Path.unlink, marks=pytest.mark.slow)])
def test_best_weights_that_are_damaged_or_missing_are_an_error_and_not_replaced_by_others(
    damage: Any, nursery: Nursery, tmp_path: Path
) -> None:
    file, run = write_experiment(tmp_path), tmp_path / "run"
    stopped = nursery.weft("train", file, "--out", run, trap={"at": "validation", "count": 14, "do": "SIGTERM"})
    assert stopped.code == 75, stopped.text
    for best in (run / "checkpoints").glob("best-*"):
        damage(best)
    refused = nursery.weft("train", "--resume", run)
    assert refused.code == 1, refused.text
    assert str(run / "checkpoints") in refused.err
    assert "restore the folder from a backup" in refused.err


# --- loader workers ---------------------------------------------------------------------------------------------------


def assert_explained(ended: Any, run: Path, *texts: str) -> None:
    assert ended.code == 1, ended.text
    assert not ended.left_behind
    errors = [line for line in ended.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, ended.text
    for text in texts:
        assert text in ended.err
    assert "Traceback" not in ended.err
    result = result_of(run)
    assert result["status"] == "failed"
    assert result["resume"] == f"weft train --resume {run}"


def test_a_killed_loader_worker_ends_the_run_with_one_message_and_it_can_be_resumed(
    nursery: Nursery, tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    file, run = write_experiment(tmp_path), tmp_path / "run"
    trap = {"at": "step", "count": 5, "do": "kill worker"}
    failed = nursery.weft("train", file, "--out", run, "--set", "run.num_workers=2", trap=trap)
    assert_explained(failed, run, "loader worker", "memory", "run.num_workers: 0")
    assert nursery.weft("train", "--resume", run, "--set", "run.num_workers=0").code == 0
    assert outcome(run) == undisturbed


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_too_few_file_handles_end_the_run_with_one_message_and_it_can_be_resumed(
    workers: int, nursery: Nursery, tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    file, run = write_experiment(tmp_path), tmp_path / "run"
    trap = {"at": "step", "count": 5, "do": "few files"}
    failed = nursery.weft("train", file, "--out", run, "--set", f"run.num_workers={workers}", trap=trap)
    assert_explained(failed, run, "the limit of open files", "ulimit -n")
    assert nursery.weft("train", "--resume", run).code == 0
    assert outcome(run) == undisturbed


@pytest.mark.parametrize("size", ["16k", "200k"])
def test_too_little_shared_memory_ends_the_run_with_one_message(size: str, disks: Nursery, tmp_path: Path) -> None:
    """With 16 KiB the workers cannot even be started; with 200 KiB no batch has room."""
    changes = {
        "dataset.class": {"train": {"Noisy": {"items": 46, "width": 4000}}},
        "model": {"Net": {"features": 48000}},
        "training.metrics": None,
    }
    file, run = write_experiment(tmp_path, changes), tmp_path / "run"
    disks.shell(f"mount -t tmpfs -o size={size} tmpfs /dev/shm")
    try:
        failed = disks.weft("train", file, "--out", run, "--set", "run.num_workers=2")
    finally:
        disks.shell("umount -l /dev/shm")
    assert failed.code == 1, failed.text
    assert len([line for line in failed.err.splitlines() if line.startswith("error: ")]) == 1, failed.text
    assert "shared memory" in failed.err
    assert "--shm-size" in failed.err
