"""Runs that several tests look at and none changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.lab import good, tabular


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a classification of a table; its experiment file and tables lie beside it."""
    folder = tmp_path_factory.mktemp("finished")
    return Path(good("-q", "train", tabular(folder), "--out", folder / "run").last_line)
