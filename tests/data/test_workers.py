"""Loader workers: their death is one clear message, they end with the loader, an epoch may be left midway."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from typing import Any

import psutil
import pytest
import torch

from tests.data.helpers import AllNoise, Rows, assert_same, split_of
from weft.data import auto_workers, make_loader
from weft.data.workers import as_worker_error
from weft.errors import UsageError, WorkerError


class Dies(Rows):
    """Its worker is killed while it loads row 30."""

    signal = signal.SIGKILL

    def __getitem__(self, row: int) -> Any:
        if row == 30:
            os.kill(os.getpid(), self.signal)
        return super().__getitem__(row)


class BusError(Dies):
    signal = signal.SIGBUS


@pytest.mark.parametrize(("kind", "remedy"), [(Dies, "num_workers: 0"), (BusError, "--shm-size")])
def test_the_death_of_a_worker_is_one_error_with_its_remedy(kind: type[Rows], remedy: str) -> None:
    loader = make_loader(split_of(kind()), batch_size=4, seed=0, shuffle=False, num_workers=2)
    with pytest.raises(WorkerError) as caught:
        list(loader.epoch(0))
    assert remedy in caught.value.hint
    assert "workers" in caught.value.message
    assert loader_children() == []


def loader_children() -> list[psutil.Process]:
    """Living child processes; multiprocessing's resource tracker is none of the loader's."""
    children = psutil.Process().children(recursive=True)
    return [
        child for child in children if child.status() != psutil.STATUS_ZOMBIE and "tracker" not in str(child.cmdline())
    ]


def kill_workers() -> None:
    """Kill them and wait until they are dead, but leave it to their parent to take note."""
    workers = loader_children()
    for worker in workers:
        worker.kill()
    while any(worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE for worker in workers):
        time.sleep(0.01)


def test_a_worker_that_dies_between_batches_does_not_interrupt_the_training_step() -> None:
    loader = make_loader(split_of(Rows(400)), batch_size=2, seed=0, shuffle=False, num_workers=1)
    batches = loader.epoch(0)
    next(batches)
    kill_workers()
    sum(range(10_000))  # a training step: nothing may be raised here
    with pytest.raises(WorkerError):
        list(batches)
    loader.close()


def test_after_a_death_the_loader_can_start_anew() -> None:
    loader = make_loader(split_of(Rows(40)), batch_size=4, seed=0, shuffle=False, num_workers=1)
    batches = loader.epoch(0)
    next(batches)
    kill_workers()
    with pytest.raises(WorkerError):
        list(batches)
    assert len(list(loader.epoch(1))) == 10
    loader.close()


def test_an_epoch_can_be_left_midway_and_another_begun() -> None:
    expected = [list(make_loader(split_of(AllNoise()), batch_size=4, seed=0, shuffle=True).epoch(e)) for e in range(3)]
    loader = make_loader(split_of(AllNoise()), batch_size=4, seed=0, shuffle=True, num_workers=2)
    first = loader.epoch(0)
    assert_same([next(first), next(first)], expected[0][:2])
    second = loader.epoch(1)
    assert_same([next(second)], expected[1][:1])
    with pytest.raises(UsageError, match="given up"):
        next(first)
    assert_same(loader.epoch(2, skip=3), expected[2][3:])
    workers = loader_children()
    assert len(workers) == 2
    loader.close()
    assert not any(worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE for worker in workers)


def test_workers_last_over_epochs() -> None:
    loader = make_loader(split_of(Rows()), batch_size=4, seed=0, shuffle=True, num_workers=2)
    list(loader.epoch(0))
    first = {worker.pid for worker in loader_children()}
    list(loader.epoch(1))
    assert {worker.pid for worker in loader_children()} == first
    loader.close()
    assert_same(loader.epoch(1), make_loader(split_of(Rows()), batch_size=4, seed=0, shuffle=True).epoch(1))
    loader.close()


def test_workers_leave_signals_to_the_training_process() -> None:
    loader = make_loader(split_of(Rows(100)), batch_size=4, seed=0, shuffle=True, num_workers=1)
    batches = loader.epoch(0)
    next(batches)
    (worker,) = loader_children()
    worker.send_signal(signal.SIGTERM)
    worker.send_signal(signal.SIGINT)
    assert len(list(batches)) == 24
    loader.close()


def run_script(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=120)


def test_too_many_open_files_is_one_error_with_its_remedy() -> None:
    done = run_script(
        """
        import resource
        from tests.data.helpers import Rows, split_of
        from weft.data import make_loader
        from weft.errors import WorkerError
        resource.setrlimit(resource.RLIMIT_NOFILE, (96, 96))
        loader = make_loader(split_of(Rows(2000)), batch_size=2, seed=0, shuffle=False, num_workers=1)
        try:
            kept = list(loader.epoch(0))
        except WorkerError as error:
            print("WorkerError", error.hint)
        """
    )
    assert done.returncode == 0, done.stderr
    assert "ulimit -n" in done.stdout


def test_a_process_that_ends_without_closing_its_loader_leaves_no_workers() -> None:
    done = run_script(
        """
        from tests.data.helpers import Rows, split_of
        from weft.data import make_loader
        import psutil
        loader = make_loader(split_of(Rows(2000)), batch_size=2, seed=0, shuffle=False, num_workers=2)
        batches = loader.epoch(0)
        next(batches)
        print([child.pid for child in psutil.Process().children()])
        """
    )
    assert done.returncode == 0, done.stderr
    for pid in map(int, done.stdout.strip("[]\n").split(",")):
        assert not psutil.pid_exists(pid)


def test_other_errors_are_not_taken_for_a_workers_death() -> None:
    assert as_worker_error(RuntimeError("mat1 and mat2 shapes cannot be multiplied")) is None
    assert as_worker_error(OSError(2, "No such file or directory")) is None


def test_data_in_memory_and_cheap_items_need_no_workers() -> None:
    rows = Rows(100)
    assert auto_workers(split_of(rows, arrays=(rows.x, rows.y))) == 0
    assert auto_workers(split_of(rows), batch_size=4) == 0


def test_dear_items_get_as_many_workers_as_the_machine_bears(monkeypatch: pytest.MonkeyPatch) -> None:
    class Dear(Rows):
        def __getitem__(self, row: int) -> Any:
            torch.linalg.svd(torch.ones(200, 200))
            return super().__getitem__(row)

    split = split_of(Dear(100))
    limits = {"available_cores": 16, "available_memory": 64 * 2**30, "open_file_limit": 65536}

    def count(**changed: int) -> int:
        for name, value in {**limits, **changed}.items():
            monkeypatch.setattr(f"weft.data.worker_count.{name}", lambda value=value: value)
        return auto_workers(split, batch_size=4)

    assert count() == 8
    assert count(available_cores=1) == 0
    assert count(available_cores=2) == 2
    assert count(available_memory=2**30) == 1
    assert count(open_file_limit=256) == 2
