"""One process that has imported Weft serves all tests of this folder in a test process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.faults.nursery import Nursery
from tests.faults.runs import outcome, write_experiment


@pytest.fixture(scope="session")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    """Starts `weft` commands and other children."""
    nursery = Nursery(tmp_path_factory.mktemp("children"))
    yield nursery
    nursery.close()


@pytest.fixture(scope="session")
def undisturbed(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The outcome of a run that is left alone."""
    folder = tmp_path_factory.mktemp("alone")
    ended = nursery.weft("train", write_experiment(folder), "--out", folder / "run")
    assert ended.code == 0, ended.text
    return outcome(folder / "run")
