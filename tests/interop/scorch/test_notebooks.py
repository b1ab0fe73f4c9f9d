"""The notebooks for looking at a dataset file and a model file run, and show what they should."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.docs.blocks import REPOSITORY
from tests.docs.notebooks import run_notebook
from tests.interop.scorch.files import write
from tests.interop.scorch.test_training import digits

FOLDER = REPOSITORY / "examples" / "scorch"


def run(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Run a notebook in a folder; what each cell printed or showed."""
    return [text_of(cell) for cell in run_notebook(f"scorch/{name}", folder, monkeypatch)]


def text_of(cell: Any) -> str:
    parts = []
    for output in cell.outputs:
        parts.append(output["text"] if output.output_type == "stream" else " ".join(output["data"]))
    return "".join(parts)


@pytest.mark.slow
def test_the_notebook_of_a_dataset_shows_samples_shapes_and_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = run("test_dataset.ipynb", digits(tmp_path), monkeypatch)
    assert shown[1] == "{'train': 1200, 'valid': 300, 'test': 297}\n"
    assert "input 0: [8, 64] torch.float32, from 0 to 1" in shown[2]
    assert "target 0: [8] torch.int64" in shown[2]
    assert re.search(r"item 0, targets \[\d\]\ntensor\(", shown[3])
    assert re.search(r"an item: \d+\.\d+ ms.*\na batch of 8: \d+\.\d+ ms; an epoch: \d", shown[4])


@pytest.mark.slow
def test_pictures_are_shown_and_modes_that_are_not_there_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the files lie elsewhere and some items are None."""
    files = tmp_path / "elsewhere"
    files.mkdir()
    model, dataset = write(
        files,
        dataset={
            "return [img], [target]": "return None if index == 1 else ([img.reshape(1, 2, 2), img], [target, None])",
            '["train", "valid", "test"]': '["train", "valid", "other"]',
        },
    )
    for name, value in (("MODEL", model), ("DATASET", dataset), ("DATASET_PATH", files)):
        monkeypatch.setenv(f"SCORCH_{name}", str(value))
    shown = run("test_dataset.ipynb", tmp_path, monkeypatch)
    assert "test: " in shown[1]
    assert "KeyError: 'test'" in shown[1]
    assert "{'train': 24, 'valid': 24}" in shown[1]
    assert "image/png" in shown[3]
    assert "item 1 is None and left out" in shown[3]


@pytest.mark.slow
def test_the_notebook_of_a_model_shows_a_forward_and_a_backward_pass_and_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = run("test_model.ipynb", digits(tmp_path), monkeypatch)
    assert "9610 of 9610 parameters are trained" in shown[1]
    assert "output 0: [8, 10] torch.float32" in shown[2]
    assert re.search(r"loss: 2\.\d+\nhidden.weight: \[128, 64\], norm of the gradient \d", shown[3])
    assert "none" not in shown[3]
    assert re.search(r"\[tensor\(0\.\d+\), tensor\(2\.\d+\)\]", shown[4])
    assert re.search(r"forward: \d+\.\d+ ms\nforward and backward: \d+\.\d+ ms, for a batch of 8", shown[5])
