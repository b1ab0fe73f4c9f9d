"""Small data and experiments as a researcher would write them, and the commands called in this process."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from tests.experiments import changed
from weft.cli import main

COLUMNS = ["patient", "age", "weight", "volume", "diagnosis", "score", "fever", "cough"]
CLASSES = ["healthy", "mild", "severe"]


@dataclass(frozen=True)
class Outcome:
    """What a command left: its exit code, standard output and standard error."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output, all of it, as JSON."""
        return json.loads(self.out)

    @property
    def last_line(self) -> str:
        """The last line of standard output."""
        return self.out.splitlines()[-1]


def weft(*arguments: object) -> Outcome:
    """Call the command line in this process; it never shows a traceback of its own accord."""
    outcome = call(*arguments)
    assert "Traceback" not in outcome.err, outcome.err
    return outcome


def call(*arguments: object) -> Outcome:
    """Call the command line in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as end:
            code = end.code
    assert isinstance(code, int)
    return Outcome(code, out.getvalue(), err.getvalue())


def good(*arguments: object) -> Outcome:
    """Call a command that must work."""
    outcome = weft(*arguments)
    assert outcome.code == 0, outcome.err
    return outcome


def rows(count: int, seed: int) -> list[dict[str, str]]:
    """Made-up patients, two rows each; diagnosis, score, fever and cough follow from the measurements."""
    generator = np.random.default_rng(seed)
    made = []
    for number in range(count):
        label = number % 3
        x = generator.normal(size=3) + 2 * label
        cells = [f"p{number // 2:03d}", *(f"{value:.4f}" for value in x), CLASSES[label], f"{x.sum():.3f}"]
        made.append(dict(zip(COLUMNS, [*cells, str(int(x[0] > 2)), str(int(x[1] > 2))], strict=True)))
    return made


def write_table(path: Path, content: list[dict[str, str]]) -> Path:
    """Write rows as CSV."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(content[0]) if content else COLUMNS)
        writer.writeheader()
        writer.writerows(content)
    return path


def read_table(path: Path) -> list[dict[str, str]]:
    """Read a CSV as rows."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def write_tables(folder: Path) -> None:
    """train.csv, validation.csv and test.csv."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (name, count) in enumerate({"train": 30, "validation": 12, "test": 12}.items()):
        write_table(folder / f"{name}.csv", rows(count, seed))


TABULAR: dict[str, Any] = {
    "dataset": {
        "table": {"train": "train.csv", "validation": "validation.csv", "test": "test.csv"},
        "inputs": ["age", "weight", "volume"],
        "targets": ["diagnosis"],
        "standardize": True,
    },
    "model": {"MLP": {"in_features": 3, "hidden": [4], "out_features": 3}},
    "training": {
        "task": "classification",
        "epochs": 2,
        "batch_size": 8,
        "optimizer": {"AdamW": {"lr": 0.01}},
        "metrics": ["accuracy"],
    },
    "run": {"device": "cpu", "num_workers": 0, "threads": 1, "tensorboard": False},
}


def write_experiment(folder: Path, name: str = "tabular.yaml", base: dict[str, Any] = TABULAR, **changes: Any) -> Path:
    """Write an experiment file; `training__loss=...` replaces one entry, None removes it."""
    file = folder / name
    file.write_text(yaml.safe_dump(changed(base, **changes), sort_keys=False))
    return file


def tabular(folder: Path, **changes: Any) -> Path:
    """A classification of patients, with its tables."""
    write_tables(folder)
    return write_experiment(folder, **changes)


def pictures(folder: Path, count: int = 16) -> Path:
    """A classification of dark and bright pictures, named in a table with a path column."""
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(1)
    table = []
    for number in range(count):
        level = 120 * (number % 2)
        pixels = (generator.random((8, 8)) * 80 + level).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "pictures" / f"{number}.png")
        table.append({"file": f"pictures/{number}.png", "label": ["dark", "bright"][number % 2]})
    write_table(folder / "pictures.csv", table)
    dataset = {
        "table": {"file": "pictures.csv"},
        "inputs": ["file"],
        "targets": ["label"],
        "split": {"ratio": [0.5, 0.25, 0.25], "stratified": True},
    }
    model = {"SmallCNN": {"in_channels": 1, "out_features": 2, "channels": [4]}}
    return write_experiment(folder, "pictures.yaml", dataset=dataset, model=model)


def pairs(folder: Path) -> Path:
    """A segmentation of squares in noise, as pairs of .npy files."""
    generator = np.random.default_rng(2)
    for split, count in {"train": 6, "validation": 3, "test": 3}.items():
        for part in "xy":
            (folder / "pairs" / split / part).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            mask = np.zeros((8, 8), np.uint8)
            top, left = generator.integers(0, 4, 2)
            mask[top : top + 4, left : left + 4] = 1
            image = (mask + 0.2 * generator.normal(size=mask.shape)).astype(np.float32)[None]
            np.save(folder / "pairs" / split / "x" / f"{number}.npy", image)
            np.save(folder / "pairs" / split / "y" / f"{number}.npy", mask)
    model = {"UNet": {"in_channels": 1, "out_channels": 2, "channels": [4, 8], "strides": [2]}}
    return write_experiment(
        folder,
        "pairs.yaml",
        dataset={"folder": "pairs"},
        model=model,
        training__task="segmentation",
        training__batch_size=3,
        training__metrics=["dice", "hd95"],
    )
