"""The experiment file that the architecture page shows: read, checked, and trained on real volumes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from weft.actions import train
from weft.config import load_experiment

PAGE = Path(__file__).parents[2] / "docs" / "architecture.md"
# What is changed of the file: where the data lie, and sizes that fit small volumes of three classes and a short test.
CHANGES = {
    "root: data/": "root: {root}",
    "spatial_size: [96, 96, 96]": "spatial_size: [16, 16, 16]",
    "out_channels: 2": "out_channels: 3",
    "epochs: 100": "epochs: 1",
}


def example(folder: Path, root: Path) -> Path:
    """Write the page's file, with its changes and a patch file, into a folder."""
    text = re.search(r"^## 4\. .*?^```yaml\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    assert text is not None
    written = text[1]
    for old, new in CHANGES.items():
        assert old in written
        written = written.replace(old, new.format(root=root))
    (folder / "my_transforms.py").write_text('"""Transforms of one\'s own."""\n')
    file = folder / "ventricles.yaml"
    file.write_text(written)
    return file


@pytest.mark.slow
def test_the_file_of_the_architecture_page_trains_on_real_volumes(tmp_path: Path, shared_data: Path) -> None:
    pytest.importorskip("monai")
    pytest.importorskip("nibabel")
    root = shared_data / "hippocampus"
    if not root.is_dir():
        pytest.skip(f"no {root}")
    file = example(tmp_path, root)
    experiment = load_experiment(file)
    assert experiment.run.cache == "disk"
    assert experiment.training.precision == "bf16"
    few = ["dataset.load_limit=10", "run.device=cpu", "run.progress=false"]
    first = train(file, few, out=tmp_path / "run")
    assert first.result["status"] == "finished"
    assert set(first.scores["test"]) >= {"loss", "dice", "hd95", "assd"}
    assert first.result["monitor"]["metric"] == "dice"
    assert len(list((tmp_path / "runs" / ".cache").rglob("*.safetensors"))) == 30
    weights = {first.result["model_sha256"]}
    for number, others in enumerate((["run.num_workers=2"], ["run.cache=none", "run.num_workers=0"])):
        again = train(file, [*few, *others], out=tmp_path / f"again-{number}")
        weights.add(again.result["model_sha256"])
        assert again.scores == first.scores
    assert len(weights) == 1
