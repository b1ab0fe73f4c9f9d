"""The examples in coinstac-dinunet's style run in COINSTAC's pipeline, each in one of its two forms."""

from __future__ import annotations

import csv
import json
import os
import runpy
import shutil
from pathlib import Path

import pytest

from weft.interop.coinstac.simulator import simulate

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="the simulator forks")]
EXAMPLES = Path(__file__).parents[3] / "examples"


def global_scores(folder: Path, task: str) -> dict[str, float]:
    """The scores over all sites by name; the loss is the first."""
    file = folder / "output" / "remote" / "simulatorRun" / task / "global_test_metrics.csv"
    with file.open(newline="") as table:
        names, cells = list(csv.reader(table))
    return {name: float(cell) for name, cell in zip(names, cells, strict=True)}


def test_volumes_are_told_apart_by_processes_that_live_on(tmp_path: Path) -> None:
    example = EXAMPLES / "coinstac_vbm"
    runpy.run_path(str(example / "make_folder.py"))["main"](tmp_path / "vbm")
    simulate(tmp_path / "vbm", example / "local.py", example / "remote.py", persistent=True)
    assert global_scores(tmp_path / "vbm", "vbm")["AUC"] > 0.9
    for site in range(4):
        output = tmp_path / "vbm" / "output" / f"local{site}" / "simulatorRun"
        assert len(list(output.glob("vbm_dSGD_*.zip"))) == 1


def test_freesurfer_volumes_train_with_a_process_for_each_call(tmp_path: Path, shared_data: Path) -> None:
    source, example = shared_data / "fsv_sites" / "input", EXAMPLES / "coinstac_fsv"
    if not source.is_dir():
        pytest.skip(f"no {source}")
    shutil.copytree(source, tmp_path / "fsv" / "input")
    specs = json.loads((example / "inputspec.json").read_text())
    for spec in specs:
        spec["epochs"]["value"] = 1
    (tmp_path / "fsv" / "inputspec.json").write_text(json.dumps(specs))
    simulate(tmp_path / "fsv", example / "local.py", example / "remote.py")
    assert global_scores(tmp_path / "fsv", "fsv").keys() == {"Loss", "Accuracy", "F1", "Precision", "Recall"}
