"""The notebook among the examples runs from top to bottom, and shows what it should."""

from __future__ import annotations

import ast
import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.docs.blocks import REPOSITORY


def data_of(cell: Any) -> dict[str, str]:
    """What a cell's value shows, by MIME type."""
    shown = [output for output in cell.outputs if output.output_type in ("execute_result", "display_data")]
    return dict(shown[-1].data) if shown else {}


@pytest.mark.slow
def test_the_notebook_runs_and_shows_its_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("sklearn", "pandas", "ipykernel"):
        pytest.importorskip(package)
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")]))
    notebook = nbformat.read(REPOSITORY / "examples" / "notebook.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") for cell in notebook.cells), "outputs do not belong into the repository"
    kernel = nbclient.NotebookClient(notebook, timeout=200, resources={"metadata": {"path": str(tmp_path)}})
    kernel.create_kernel_manager()
    kernel.km.kernel_spec.argv[0] = sys.executable  # this environment's Python, whatever kernels are installed
    asyncio.run(kernel.async_execute())

    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    shown = [data_of(cell) for cell in cells]
    assert "wine" in shown[0]["text/html"]
    assert "Accuracy" in shown[0]["text/html"]
    scores = read_scores(shown[1]["text/plain"])
    assert scores["accuracy"] > 0.9
    assert shown[2]["text/html"].count("<tr") == 4  # a head and three epochs
    assert shown[3]["text/html"].count("data:image/svg+xml") >= 3
    assert "prediction" in shown[4]["text/html"]
    assert "MLP(" in shown[5]["text/plain"]
    both = read_scores(shown[6]["text/plain"])
    assert both["accuracy"][0] == scores["accuracy"]
    assert "AdamW" in shown[7]["text/plain"]
    assert (tmp_path / "runs" / "wine" / "report.html").exists()


def read_scores(text: str) -> dict[str, Any]:
    """A dict of numbers as Python prints it."""
    found = ast.literal_eval(text)
    assert isinstance(found, dict)
    return found
