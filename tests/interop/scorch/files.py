"""Model and dataset files in scorch's form, one thing about them changed at a time, and short trainings of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from weft.actions import TrainedRun
from weft.interop import scorch

MODEL = """
import torch


class Network(torch.nn.Module):
    def __init__(self, hidden=8):
        super(Network, self).__init__()
        self.first = torch.nn.Linear(4, hidden)
        self.last = torch.nn.Linear(hidden, 3)

    def forward(self, input):
        return [self.last(torch.tanh(self.first(input[0])))]

    def __call__(self, input):
        return self.forward(input)


class Socket:
    def __init__(self, model):
        self.model = model
        # MORE

    def criterion(self, pred, target):
        return torch.nn.functional.cross_entropy(pred[0], target[0])

    def metrics(self, pred, target):
        accuracy = (pred[0].numpy().argmax(axis=1) == target[0].numpy()).mean()
        return {"main": accuracy, "accuracy": accuracy, "errors": 1.0 - accuracy}
"""
DATASET = """
import numpy
import torch


class DataSetIndex():
    def __init__(self, path, items=24):
        draw = numpy.random.RandomState(7)
        self.labels = draw.randint(0, 3, size=3 * items)
        self.values = draw.normal(size=(3 * items, 4)) + self.labels[:, None]
        self.rows = dict(zip(["train", "valid", "test"], numpy.arange(3 * items).reshape(3, items)))


class DataSet():
    def __init__(self, ds_index, mode='train'):
        self.ds_index = ds_index
        self.mode = mode

    def __len__(self):
        return len(self.ds_index.rows[self.mode])

    def __getitem__(self, index):
        row = self.ds_index.rows[self.mode][index]
        img = torch.tensor(self.ds_index.values[row], dtype=torch.float32)
        target = int(self.ds_index.labels[row])
        return [img], [target]
"""


NORM = {
    "self.last = torch": "self.norm = torch.nn.BatchNorm1d(hidden)\n        self.last = torch",
    "torch.tanh(self.first(input[0]))": "torch.tanh(self.norm(self.first(input[0])))",
}


def write(
    folder: Path, model: dict[str, str] | None = None, dataset: dict[str, str] | None = None
) -> tuple[Path, Path]:
    """Write both files, with texts in them replaced."""
    paths = folder / "model.py", folder / "dataset.py"
    for path, text, changes in zip(paths, (MODEL, DATASET), (model or {}, dataset or {}), strict=True):
        for old, new in changes.items():
            assert old in text, old
            text = text.replace(old, new)
        path.write_text(text, encoding="utf-8")
    return paths


def more(*lines: str) -> dict[str, str]:
    """Further lines at the end of Socket.__init__."""
    return {"# MORE": "\n        ".join(lines)}


def train(
    folder: Path,
    *,
    model: dict[str, str] | None = None,
    dataset: dict[str, str] | None = None,
    out: str = "run",
    resume: bool = False,
    **flags: Any,
) -> TrainedRun:
    """Train both files for a few epochs, silently, unless flags say otherwise; run directory FOLDER/out."""
    paths = write(folder, model, dataset)
    given = {"epochs": 3, "progress": False, "dataset_path": str(folder), **flags}
    given.setdefault("checkpoint_prefix", str(folder / f"{out}_"))
    return scorch.train(scorch.Flags(*paths, **given), out=folder / out, resume=resume)


def weights(folder: Path, name: str) -> dict[str, torch.Tensor]:
    """The network in the newest checkpoint that a training wrote."""
    state: dict[str, torch.Tensor] = scorch.read_checkpoint(folder / f"{name}_checkpoint.pth.tar")["model_state"]
    return state


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Whether two networks are equal to the bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def result(run: TrainedRun) -> dict[str, Any]:
    """What result.json says."""
    content: dict[str, Any] = json.loads((run.path / "result.json").read_text(encoding="utf-8"))
    return content
