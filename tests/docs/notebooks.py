"""Notebooks of the examples, run from top to bottom."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.docs.blocks import REPOSITORY


def run_notebook(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The code cells of `examples/NAME`, with their outputs, run in `folder`."""
    pytest.importorskip("ipykernel")
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")]))
    notebook = nbformat.read(REPOSITORY / "examples" / name, as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") for cell in notebook.cells), "outputs do not belong into the repository"
    kernel = nbclient.NotebookClient(notebook, timeout=200, resources={"metadata": {"path": str(folder)}})
    kernel.create_kernel_manager()
    kernel.km.kernel_spec.argv[0] = sys.executable  # this environment's Python, whatever kernels are installed
    asyncio.run(kernel.async_execute())
    return [cell for cell in notebook.cells if cell.cell_type == "code"]
