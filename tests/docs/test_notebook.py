"""The notebook among the examples runs from top to bottom, and shows what it should."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

from tests.docs.notebooks import run_notebook


def data_of(cell: Any) -> dict[str, str]:
    """What a cell's value shows, by MIME type."""
    shown = [output for output in cell.outputs if output.output_type in ("execute_result", "display_data")]
    return dict(shown[-1].data) if shown else {}


@pytest.mark.slow
def test_the_notebook_runs_and_shows_its_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("sklearn", "pandas"):
        pytest.importorskip(package)
    cells = run_notebook("notebook.ipynb", tmp_path, monkeypatch)
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
