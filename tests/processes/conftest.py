"""One process that has imported Weft starts the launchers of all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.nursery import Nursery
from tests.faults.runs import outcome
from tests.processes.children import WITHOUT_DROPOUT, start, write_job


@pytest.fixture(scope="session")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    """Starts `weft` commands and other children."""
    nursery = Nursery(tmp_path_factory.mktemp("children"))
    yield nursery
    nursery.close()


@pytest.fixture(scope="session")
def undisturbed(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What comes out of two processes that are left alone."""
    folder: Path = tmp_path_factory.mktemp("alone")
    ended = start(nursery, "train", write_job(folder), "--out", folder / "run", "--processes", "2").wait()
    assert ended.code == 0, ended.text
    return outcome(folder / "run")


@pytest.fixture(scope="session")
def alone(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one process, without dropout."""
    folder: Path = tmp_path_factory.mktemp("one")
    ended = start(nursery, "train", write_job(folder, WITHOUT_DROPOUT), "--out", folder / "run").wait()
    assert ended.code == 0, ended.text
    return folder / "run"
