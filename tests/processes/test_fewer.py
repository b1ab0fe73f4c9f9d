"""Runs that are started again by themselves, also with fewer processes when as many get no further."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.nursery import Nursery
from tests.faults.runs import outcome
from tests.processes.children import WITHOUT_DROPOUT, left_behind, require_alike, start, write_job
from weft.actions.launching import launch, next_count
from weft.errors import UsageError


@pytest.mark.parametrize(
    ("count", "fewest", "stuck", "gone", "then"),
    [
        (4, 1, False, 0, 4),  # lost once, having got further: as many again
        (4, 1, True, 0, 3),
        (4, 4, True, 0, 4),
        (2, 2, True, 1, 2),
        (4, 1, False, 1, 3),  # a GPU is gone
        (4, 1, True, 2, 2),
        (4, 3, False, 2, 3),
        (1, 1, True, 0, 1),
        (4, 1, False, -2, 4),  # GPUs that came back bring nobody along
    ],
)
def test_with_how_many_processes_a_run_goes_on(count: int, fewest: int, stuck: bool, gone: int, then: int) -> None:
    assert next_count(count, fewest, stuck=stuck, gone=gone) == then


def test_fewer_processes_without_restarts_or_than_there_are_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"run\.restarts is 0"):
        launch(["train"], tmp_path, processes=2, restarts=0, fewest=1)
    with pytest.raises(UsageError, match=r"run\.min_processes is 3, more than run\.processes, 2"):
        launch(["train"], tmp_path, processes=2, restarts=1, fewest=3)


@pytest.mark.slow
def test_a_run_that_loses_a_process_again_and_again_goes_on_with_one_fewer(
    nursery: Nursery, tmp_path: Path, alone: Path
) -> None:
    file, run = write_job(tmp_path, WITHOUT_DROPOUT), tmp_path / "run"
    kills = [{"rank": 1, "attempt": attempt, "at": 11, "do": "kill"} for attempt in (0, 1)]
    options = ["--processes", "2", "--restarts", "3", "--min-processes", "1"]
    ended = start(nursery, "train", file, "--out", run, *options, sabotage=kills).wait()
    assert ended.code == 0, ended.text
    first, second = (line for line in ended.err.splitlines() if "starting all again" in line)
    assert "starting all again (1 of 3 restarts)" in first
    assert "starting all again, as 1 instead of 2 (2 of 3 restarts)" in second
    assert ended.out.splitlines() == [str(run)]
    assert not left_behind(run)
    require_alike(run, alone)


@pytest.mark.slow
def test_without_leave_to_go_on_with_fewer_it_fails_when_the_restarts_are_used_up(
    nursery: Nursery, tmp_path: Path
) -> None:
    kills = [{"rank": 1, "attempt": attempt, "at": 2, "do": "kill"} for attempt in (0, 1)]
    options = ["--processes", "2", "--restarts", "1"]
    ended = start(
        nursery, "train", write_job(tmp_path), "--out", tmp_path / "run", *options, sabotage=kills
    ).wait()  # fmt: skip
    assert ended.code == 1, ended.text
    assert "error: process 1 was killed by SIGKILL after step 2 (epoch 1)" in ended.err


@pytest.mark.slow
def test_a_single_process_is_started_again_too(nursery: Nursery, tmp_path: Path) -> None:
    alone, run, file = tmp_path / "alone", tmp_path / "run", write_job(tmp_path)
    assert start(nursery, "train", file, "--out", alone).wait().code == 0
    kill = [{"rank": 0, "attempt": 0, "at": 11, "do": "kill"}]
    ended = start(nursery, "train", file, "--out", run, "--restarts", "1", sabotage=kill).wait()
    assert ended.code == 0, ended.text
    assert "process 0 was killed by SIGKILL after step 11 (epoch 2): starting all again" in ended.err
    assert outcome(run) == outcome(alone)
