"""What all tests share: one thread each, the folder of shared data, hypothesis without deadlines."""

from __future__ import annotations

import os

# Before anything imports torch or NumPy: several test processes share the cores, and subprocesses inherit this.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"

from pathlib import Path

import pytest
from hypothesis import settings

REPOSITORY = Path(__file__).resolve().parent.parent

# No deadlines: what a machine is busy with says nothing about the code.
settings.register_profile("weft", deadline=None, print_blob=True)
settings.load_profile("weft")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip, visibly, what is marked `gpu` where there is no CUDA device."""
    if item.get_closest_marker("gpu") is not None:
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of data sets too large for the repository: `WEFT_SHARED_DATA`, or `../shared/data` beside it."""
    named = os.environ.get("WEFT_SHARED_DATA")
    folder = Path(named) if named else REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no shared data at {folder}; set WEFT_SHARED_DATA to its folder")
    return folder
