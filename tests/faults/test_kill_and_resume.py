"""A run that is killed at any moment and resumed ends as if nothing had happened, to the bit."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.faults.nursery import REPOSITORY, Nursery, wait_until
from tests.faults.runs import MORE, VARIANTS, history_of, outcome, write_experiment

EVERY = VARIANTS | MORE


@dataclass(frozen=True)
class Point:
    """A moment at which a run is killed, and the loader workers before and after."""

    variant: str
    at: str
    count: int
    file: str = ""
    workers: tuple[int, int] = (0, 0)

    def __str__(self) -> str:
        file = f" of {self.file}" if self.file else ""
        return f"{self.variant}: {self.at}{file} {self.count}, workers {self.workers[0]} then {self.workers[1]}"


def seeded_points() -> list[Point]:
    """20 moments after the first step: 8 between steps, 3 in validation, 2 in final scoring, 7 while a checkpoint is
    written.
    """
    draw = random.Random(20)
    names = list(VARIANTS)
    points = []
    for number in range(20):
        variant, workers = names[number % len(names)], (draw.choice((0, 1, 2)), draw.choice((0, 1, 2)))
        if number < 8:
            points.append(Point(variant, "step", draw.randrange(2, 20), workers=workers))
        elif number < 11:
            points.append(Point(variant, "validation", draw.randrange(1, 12), workers=workers))
        elif number < 13:
            points.append(Point(variant, "validation", draw.randrange(21, 30), workers=workers))
        else:
            moment = ("opened", "half", "half", "written", "written", "synced", "renamed")[number - 13]
            kind = "best-" if moment == "written" and number % 2 else "last-"
            points.append(Point(variant, moment, 1 if kind == "best-" else draw.randrange(1, 5), kind, workers))
    return points


FEW = [
    Point("one-cycle", "step", 13, workers=(0, 2)),
    Point("warm-up and average", "validation", 6, workers=(2, 0)),
    Point("half precision", "half", 3, "last-"),
    Point("accumulated", "synced", 2, "best-"),
]

OTHERS = [
    Point("thawed", "step", 11, workers=(2, 0)),
    Point("thawed", "validation", 2, workers=(0, 1)),
    Point("in memory", "step", 8),
    Point("in memory", "half", 4, "last-"),
    Point("two networks", "step", 5),
    Point("two networks", "synced", 2, "last-"),
]

Undisturbed = Callable[[str], dict[str, Any]]


@pytest.fixture(scope="module")
def undisturbed(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """The outcome of each variant when it is left alone, trained once."""
    known: dict[str, dict[str, Any]] = {}

    def train(variant: str) -> dict[str, Any]:
        if variant not in known:
            folder = tmp_path_factory.mktemp("alone")
            file = write_experiment(folder, EVERY[variant])
            ended = nursery.weft("train", file, "--out", folder / "run")
            assert ended.code == 0, ended.text
            known[variant] = outcome(folder / "run")
        return known[variant]

    return train


def kill_and_resume(nursery: Nursery, folder: Path, point: Point) -> Path:
    file, run = write_experiment(folder, EVERY[point.variant]), folder / "run"
    before, after = (f"run.num_workers={number}" for number in point.workers)
    trap = {"at": point.at, "count": point.count, "file": point.file, "log": str(folder / "log")}
    killed = nursery.weft("train", file, "--out", run, "--set", before, trap=trap)
    assert killed.code == -signal.SIGKILL, killed.text
    snapped = json.loads((folder / "log").read_text())
    print(snapped)  # step and phase, shown where the test fails
    assert snapped["at"] == point.at
    assert snapped["step"] >= 1
    resumed = nursery.weft("train", "--resume", run, "--set", after)
    assert resumed.code == 0, resumed.text
    assert resumed.out.strip().splitlines()[-1] == str(run)
    return run


@pytest.mark.parametrize("point", FEW, ids=str)
def test_a_killed_and_resumed_run_has_the_same_weights_and_history(
    point: Point, nursery: Nursery, tmp_path: Path, undisturbed: Undisturbed
) -> None:
    assert outcome(kill_and_resume(nursery, tmp_path, point)) == undisturbed(point.variant)


@pytest.mark.slow
@pytest.mark.parametrize("point", OTHERS, ids=str)
def test_a_killed_and_resumed_run_of_another_kind_has_the_same_weights_and_history(
    point: Point, nursery: Nursery, tmp_path: Path, undisturbed: Undisturbed
) -> None:
    assert outcome(kill_and_resume(nursery, tmp_path, point)) == undisturbed(point.variant)


@pytest.mark.slow
@pytest.mark.parametrize("point", seeded_points(), ids=str)
def test_a_run_killed_at_one_of_twenty_moments_and_resumed_has_the_same_weights_and_history(
    point: Point, nursery: Nursery, tmp_path: Path, undisturbed: Undisturbed
) -> None:
    assert outcome(kill_and_resume(nursery, tmp_path, point)) == undisturbed(point.variant)


def test_the_twenty_moments_cover_epochs_validation_and_checkpoints() -> None:
    moments = [point.at for point in seeded_points()]
    assert len(set(seeded_points())) == 20
    assert moments.count("step") >= 5
    assert moments.count("validation") >= 3
    assert sum(moments.count(moment) for moment in ("opened", "half", "written", "synced")) >= 3


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_run_killed_again_and_again_ends_as_an_undisturbed_one(
    variant: str, nursery: Nursery, tmp_path: Path, undisturbed: Undisturbed
) -> None:
    file, run = write_experiment(tmp_path, EVERY[variant]), tmp_path / "run"
    trap = {"at": "step", "count": 5}
    ended = nursery.weft("train", file, "--out", run, trap=trap)
    kills = 0
    while ended.code != 0:
        assert ended.code == -signal.SIGKILL, ended.text
        kills += 1
        assert kills < 20
        workers = f"run.num_workers={kills % 3}"
        ended = nursery.weft("train", "--resume", run, "--set", workers, trap=trap)
    assert kills >= 4
    assert outcome(run) == undisturbed(variant)


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["synced", "renamed"])
def test_a_kill_at_any_write_of_any_file_of_a_run_costs_nothing(moment: str, nursery: Nursery, tmp_path: Path) -> None:
    """Every file that is written whole or not at all, one after the other, from the first to the last of the run."""
    changes = {"training.epochs": 1, "dataset.load_limit": 20}
    file, kills, begun_again = write_experiment(tmp_path, changes), 0, 0
    ended = nursery.weft("train", file, "--out", tmp_path / "alone")
    assert ended.code == 0, ended.text
    expected = outcome(tmp_path / "alone")
    while ended.code != -1:
        kills += 1
        run = tmp_path / f"run-{kills}"
        ended = nursery.weft("train", file, "--out", run, trap={"at": moment, "count": kills})
        if ended.code == 0:
            break  # it was over before so many files were written
        assert ended.code == -signal.SIGKILL, ended.text
        resumed = nursery.weft("train", "--resume", run)
        if resumed.code == 0:
            assert outcome(run) == expected
            assert (run / "report.html").exists()
        else:  # killed before it had anything to go on from
            assert "begin it with" in resumed.err or "no run has begun here" in resumed.err, resumed.text
            begun_again += 1
            again = nursery.weft("train", file, "--out", run, "--resume")
            assert again.code == 0, again.text
            assert outcome(run) == expected
    assert kills - begun_again > 10


def test_the_command_itself_killed_from_outside_and_resumed_ends_as_an_undisturbed_run(
    nursery: Nursery, tmp_path: Path, undisturbed: Undisturbed
) -> None:
    file, run, log = write_experiment(tmp_path), tmp_path / "run", tmp_path / "log"
    trap = {"at": "step", "count": 11, "do": "hold", "release": str(tmp_path / "never"), "log": str(log)}
    environment = {**os.environ, "WEFT_TEST_TRAP": json.dumps(trap)}
    command = [sys.executable, "-m", "weft", "train", str(file), "--out", str(run)]
    child = subprocess.Popen(command, cwd=REPOSITORY, env=environment)
    wait_until(lambda: log.exists() or child.poll() is not None)
    child.kill()
    assert child.wait() == -signal.SIGKILL
    assert not (run / "result.json").exists()
    resumed = nursery.weft("train", "--resume", run)
    assert resumed.code == 0, resumed.text
    assert outcome(run) == undisturbed("one-cycle")


def test_a_finished_run_is_not_trained_again(nursery: Nursery, tmp_path: Path) -> None:
    file, run = write_experiment(tmp_path, {"training.epochs": 1}), tmp_path / "run"
    assert nursery.weft("train", file, "--out", run).code == 0
    before = history_of(run), (run / "model.safetensors").stat().st_mtime_ns
    again = nursery.weft("train", "--resume", run, trap={"at": "step"})
    assert again.code == 0, again.text
    assert (history_of(run), (run / "model.safetensors").stat().st_mtime_ns) == before
    assert "finished already" in again.err


def test_half_precision_skips_steps_so_that_the_scaler_matters(undisturbed: Undisturbed) -> None:
    rows = undisturbed("half precision")["history"]
    assert sum(int(row["skipped_steps"]) for row in rows) >= 2
