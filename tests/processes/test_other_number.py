"""A run that goes on with another number of processes than it began with."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.nursery import Nursery
from tests.processes.children import WITHOUT_DROPOUT, require_alike, start, write_job

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("before", "after"), [(2, 1), (2, 3)])
def test_it_ends_as_one_that_was_never_disturbed(
    before: int, after: int, nursery: Nursery, tmp_path: Path, alone: Path
) -> None:
    file, run = write_job(tmp_path, WITHOUT_DROPOUT), tmp_path / "run"
    kill = [{"rank": 0, "at": 11, "do": "kill"}]
    broken = start(nursery, "train", file, "--out", run, "--processes", str(before), sabotage=kill).wait()
    assert broken.code == 1, broken.text
    resumed = start(nursery, "train", "--resume", run, "--processes", str(after)).wait()
    assert resumed.code == 0, resumed.text
    require_alike(run, alone)


def test_a_stop_in_validation_takes_no_running_statistics_twice(nursery: Nursery, tmp_path: Path, alone: Path) -> None:
    """They have become those of all processes before, and each of the new number must know it."""
    file, run = write_job(tmp_path, WITHOUT_DROPOUT), tmp_path / "run"
    stop = [{"rank": 0, "at": -1, "do": "term"}]
    stopped = start(nursery, "train", file, "--out", run, "--processes", "2", sabotage=stop).wait()
    assert stopped.code == 75, stopped.text
    resumed = start(nursery, "train", "--resume", run, "--processes", "3").wait()
    assert resumed.code == 0, resumed.text
    require_alike(run, alone)
