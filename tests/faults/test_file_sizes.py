"""Files that may not grow (a limit on their size): an error with words, nothing lost, and what only helps is left."""

from __future__ import annotations

import json
import logging
import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.federated.lab import outcome, study
from weft.data.digest import _DigestCache
from weft.engine import CheckpointFolder, Observer
from weft.errors import Stopped, WeftError
from weft.federated.study import simulate
from weft.monitor import messages_kept
from weft.runs import RunDirectory

resource = pytest.importorskip("resource")


def let_files_be(size: int) -> None:
    """From here on no file of this process may have more bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def in_child(do: Callable[[], None]) -> dict[str, Any]:
    """The error that something ends with in a process of its own; empty for none."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        said: dict[str, Any] = {}
        try:
            do()
        except WeftError as error:
            said = {"kind": type(error).__name__, "message": error.message, "hint": error.hint}
        except BaseException:
            said = {"kind": traceback.format_exc()}
        os.write(writing, json.dumps(said).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        told: dict[str, Any] = json.loads(pipe.read())
    os.waitpid(child, 0)
    return told


class NoMoreRoom(Observer):
    """Limits the size of files from a checkpoint on.

    Args:
        site: whose.
        step: of which step.
        size: in bytes.
    """

    def __init__(self, site: str, step: int, size: int) -> None:
        self.begins, self.size = f"sites/{site}/checkpoints/last-{step:09}", size

    def on_checkpoint(self, path: Path, kind: str) -> None:
        if self.begins in path.as_posix():
            let_files_be(self.size)


@pytest.mark.parametrize(
    ("site", "step", "size", "where"),
    [
        ("west", 4, 2000, "sites/north/checkpoints/last-000000008"),
        pytest.param("west", 4, 1, "hub.json", marks=pytest.mark.slow),
        pytest.param("north", 4, 1, "sites/south/checkpoints/last-000000004", marks=pytest.mark.slow),
        pytest.param("west", 8, 1, "hub.json", marks=pytest.mark.slow),
    ],
)
def test_a_study_whose_files_may_not_grow_ends_with_a_remedy_and_goes_on(
    site: str, step: int, size: int, where: str, tmp_path: Path
) -> None:
    pytest.importorskip("sklearn")
    settings: dict[str, Any] = {"run__checkpoint_every": {"steps": 4}, "training__epochs": 1}
    undisturbed = simulate(study(**settings), out=tmp_path / "undisturbed")
    room = {"tests.faults.test_file_sizes.NoMoreRoom": {"site": site, "step": step, "size": size}}
    told = in_child(lambda: simulate(study(**settings, run__observers=[room]), out=tmp_path / "study") and None)
    assert told["kind"] == "RunDirectoryError", told
    assert where in told["message"]
    assert "File too large" in told["message"]
    assert "ulimit -f" in told["hint"]
    done = simulate(tmp_path / "study", ["run.observers=[]"], resume=True)
    assert outcome(done.path) == outcome(undisturbed.path)


@pytest.mark.parametrize("small", [0, 1 << 20])
def test_a_checkpoint_that_may_not_be_so_large_leaves_the_one_before(small: int, tmp_path: Path) -> None:
    def state(numbers: int) -> dict[str, Any]:
        return {"position": {"epoch": 0, "batch": numbers, "step": numbers}, "best": {"step": None},
                "sums": {"buffers_averaged": False}, "model": {"weight": torch.zeros(numbers)}}  # fmt: skip

    def save() -> None:
        folder = CheckpointFolder(tmp_path, small=small)
        folder.save_last(state(10), 10)
        let_files_be(50_000)
        folder.save_last(state(100_000), 100_000)

    told = in_child(save)
    assert told["kind"] == "RunDirectoryError", told
    assert "File too large" in told["message"]
    assert [boundary[2] for boundary in CheckpointFolder(tmp_path, small=small).boundaries()] == [10]
    assert len(list(tmp_path.iterdir())) == 1


def test_messages_that_are_not_kept_hide_no_error_and_end_nothing(tmp_path: Path) -> None:
    logger, told = logging.getLogger("weft"), tmp_path / "told"

    class Shown(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told.mkdir(exist_ok=True)
            (told / str(len(list(told.iterdir())))).symlink_to(record.getMessage()[:200].replace("/", "|"))

    def speak(ends: bool) -> None:
        logger.addHandler(Shown())
        with messages_kept(RunDirectory(tmp_path)):
            logger.warning("first")
            let_files_be(100)
            for number in range(3):
                logger.warning("%d %s", number, "long " * 20)
            if ends:
                raise Stopped("a signal came", "resume it")

    assert in_child(lambda: speak(ends=True))["message"] == "a signal came"
    said = [os.readlink(name) for name in sorted(told.iterdir())]
    assert sum("cannot write" in line and "log.txt: File too large" in line for line in said) == 1
    assert sum("long long" in line for line in said) == 3
    assert in_child(lambda: speak(ends=False)) == {}


def test_digests_that_cannot_be_remembered_cost_time_only(tmp_path: Path) -> None:
    def digest() -> None:
        cache = _DigestCache(tmp_path / "cache" / "digests.json")
        assert cache.digest(Path(__file__), only_cached=False)
        let_files_be(10)
        cache.save()

    assert in_child(digest) == {}
    assert list((tmp_path / "cache").iterdir()) == []
