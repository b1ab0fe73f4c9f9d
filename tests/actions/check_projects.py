"""Small projects with generated data: clean ones of every kind, which a check must not complain about."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator

Project = dict[str, Any]


def write_table(file: Path, columns: dict[str, Sequence[Any]]) -> None:
    """Write a CSV."""
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values()))


def blobs(random: Generator, items: int, features: int, classes: int) -> tuple[Any, Any]:
    """Inputs [items, features] around a centre for each class, and labels; every class about equally often."""
    labels = np.arange(items) % classes
    random.shuffle(labels)
    centres = random.normal(0, 2, (classes, features))
    return centres[labels] + random.normal(0, 1, (items, features)), labels


def training(task: str, **more: Any) -> dict[str, Any]:
    """The training section."""
    return {"task": task, "epochs": 2, "batch_size": 16, "optimizer": {"AdamW": {"lr": 1e-3}}, **more}


def table_of_classes(folder: Path, random: Generator) -> Project:
    """A table with numbers of unlike units and classes with names."""
    items, features, classes = int(random.integers(90, 200)), int(random.integers(3, 12)), int(random.integers(2, 6))
    inputs, labels = blobs(random, items, features, classes)
    inputs = inputs * 10.0 ** random.integers(-3, 4, features)
    names = [f"feature {place}" for place in range(features)]
    write_table(
        folder / "table.csv",
        {name: inputs[:, place] for place, name in enumerate(names)} | {"kind": [f"kind {label}" for label in labels]},
    )
    return {
        "dataset": {
            "table": {"file": "table.csv"},
            "inputs": names,
            "targets": ["kind"],
            "standardize": True,
            "split": {"ratio": [0.6, 0.2, 0.2], "stratified": True},
        },
        "model": {"MLP": {"in_features": features, "out_features": classes, "hidden": [16]}},
        "training": training("classification", metrics=["accuracy", "f1"], monitor={"metric": "accuracy"}),
    }


def table_with_groups(folder: Path, random: Generator) -> Project:
    """Several visits of each patient, some columns with few values; patients stay together."""
    patients = int(random.integers(30, 50))
    patient = np.repeat(np.arange(patients), 4)
    items = len(patient)
    score = random.normal(0, 1, items)
    sex, site = random.integers(0, 2, patients)[patient], random.integers(0, 3, items)
    label = (score + 0.3 * sex + random.normal(0, 0.5, items) > np.median(score)).astype(int)
    write_table(
        folder / "visits.csv",
        {
            "patient": [f"P{number:03}" for number in patient],
            "score": score,
            "age": random.integers(20, 90, items),
            "sex": sex,
            "site": site,
            "ill": label,
        },
    )
    return {
        "dataset": {
            "table": {"file": "visits.csv"},
            "inputs": ["score", "age", "sex", "site"],
            "targets": ["ill"],
            "group": "patient",
            "standardize": True,
            "split": {"ratio": [0.6, 0.2, 0.2], "grouped": True},
        },
        "model": {"MLP": {"in_features": 4, "out_features": 1, "hidden": [8], "dropout": 0.1}},
        "training": training("classification", optimizer={"SGD": {"lr": 0.1, "momentum": 0.9}}, metrics=["auroc"]),
    }


def table_of_numbers(folder: Path, random: Generator) -> Project:
    """Regression, with one or two targets."""
    items, features = int(random.integers(80, 160)), int(random.integers(2, 8))
    inputs = random.normal(0, 1, (items, features))
    targets = np.tanh(inputs @ random.normal(0, 1, (features, 2))) + random.normal(0, 0.1, (items, 2))
    count = int(random.integers(1, 3))
    names = [f"x{place}" for place in range(features)]
    columns = {name: inputs[:, place] for place, name in enumerate(names)}
    for name, rows in (("train", slice(0, items // 2)), ("validation", slice(items // 2, items))):
        here = columns | {f"y{place}": targets[:, place] for place in range(2)}
        write_table(folder / f"{name}.csv", {column: values[rows] for column, values in here.items()})
    return {
        "dataset": {
            "table": {"train": "train.csv", "validation": "validation.csv"},
            "inputs": names,
            "targets": [f"y{place}" for place in range(count)],
        },
        "model": {"MLP": {"in_features": features, "out_features": count, "hidden": [32, 16], "activation": "tanh"}},
        "training": training("regression", metrics=["mae", "r2"], monitor={"metric": "mae", "mode": "min"}),
    }


def several_labels(folder: Path, random: Generator) -> Project:
    """Labels that may hold together."""
    items, features = 120, 6
    inputs = random.normal(0, 1, (items, features))
    marks = (inputs @ random.normal(0, 1, (features, 3)) + random.normal(0, 0.5, (items, 3)) > 0).astype(int)
    names = [f"x{place}" for place in range(features)]
    write_table(
        folder / "table.csv",
        {name: inputs[:, place] for place, name in enumerate(names)}
        | {name: marks[:, place] for place, name in enumerate(("cough", "fever", "rash"))},
    )
    return {
        "dataset": {
            "table": {"file": "table.csv"},
            "inputs": names,
            "targets": ["cough", "fever", "rash"],
            "split": {"ratio": [0.7, 0.3]},
        },
        "model": {"MLP": {"in_features": features, "out_features": 3, "hidden": [16], "normalization": "layer"}},
        "training": training({"Classification": {"kind": "multilabel"}}),  # type: ignore[arg-type]
    }


def images_in_arrays(folder: Path, random: Generator) -> Project:
    """Small images of few classes in .npy files, one for each split."""
    classes, size, channels = int(random.integers(2, 5)), int(random.integers(8, 17)), int(random.integers(1, 4))
    patterns = random.random((classes, channels, size, size))
    dataset: dict[str, Any] = {}
    for name, items in (("train", 80), ("validation", 40), ("test", 40)):
        labels = np.arange(items) % classes
        images = patterns[labels] + random.normal(0, 0.2, (items, channels, size, size))
        np.save(folder / f"{name}_x.npy", images.astype(np.float32))
        np.save(folder / f"{name}_y.npy", labels.astype(np.uint8))
        dataset[name] = {"inputs": f"{name}_x.npy", "targets": f"{name}_y.npy"}
    return {
        "dataset": {"arrays": dataset},
        "model": {"SmallCNN": {"in_channels": channels, "out_features": classes, "channels": [8, 16]}},
        "training": training("classification", scheduler={"OneCycleLR": {"max_lr": 1e-2}}),
    }


def masks_in_folders(folder: Path, random: Generator) -> Project:
    """Segmentation: discs in noise, images and label maps in files; some images hold no disc."""
    axes = np.mgrid[0:32, 0:32]
    for split, items in (("train", 24), ("validation", 12)):
        for part in ("x", "y"):
            (folder / "data" / split / part).mkdir(parents=True)
        for item in range(items):
            centre, radius = random.uniform(8, 24, 2), random.uniform(3, 8)
            mask = ((axes - centre[:, None, None]) ** 2).sum(0) < radius**2
            mask = mask & (item % 6 != 5)
            image = mask + random.normal(0, 0.3, mask.shape)
            np.save(folder / "data" / split / "x" / f"{item}.npy", image[None].astype(np.float32))
            np.save(folder / "data" / split / "y" / f"{item}.npy", mask.astype(np.uint8))
    return {
        "dataset": {"folder": "data"},
        "model": {"UNet": {"in_channels": 1, "out_channels": 2, "channels": [8, 16]}},
        "training": training("segmentation", batch_size=4, metrics=["dice"], monitor={"metric": "dice"}),
    }


DATASET = '''
import torch
from torch import nn
from torch.utils.data import Dataset


class Waves(Dataset):
    """Two inputs: a wave and its length; the class is its shape."""

    def __init__(self, items, seed):
        generator = torch.Generator().manual_seed(seed)
        self.targets = torch.arange(items) % 3
        self.lengths = 1 + torch.rand(items, 1, generator=generator)
        time = torch.linspace(0, 6.28, 24)
        phase = time / self.lengths
        shapes = torch.stack([phase.sin(), phase.sin().sign(), (phase % 1.0)], 1)
        self.waves = shapes[torch.arange(items), self.targets] + 0.1 * torch.randn(items, 24, generator=generator)

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, row):
        return self.waves[row][None], self.lengths[row], self.targets[row]


class Both(nn.Module):
    """A convolution over the wave, and its length."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv1d(1, 8, 5), nn.BatchNorm1d(8), nn.ReLU(), nn.AdaptiveAvgPool1d(4), nn.Flatten()
        )
        self.head = nn.Linear(33, 3)

    def forward(self, waves, lengths):
        return self.head(torch.cat([self.features(waves), lengths], 1))
'''


def own_dataset(folder: Path, random: Generator) -> Project:
    """A torch dataset with two inputs, and an own model, in a patch."""
    (folder / "own.py").write_text(DATASET, encoding="utf-8")
    seed = int(random.integers(1000))
    return {
        "dataset": {
            "class": {
                "train": {"Waves": {"items": 66, "seed": seed}},
                "validation": {"Waves": {"items": 30, "seed": seed + 1}},
            }
        },
        "model": "Both",
        "training": training("classification", loss={"CrossEntropyLoss": {"label_smoothing": 0.1}}, clip_norm=1.0),
        "patches": ["own.py"],
    }


KINDS: dict[str, Callable[[Path, Generator], Project]] = {
    "table of classes": table_of_classes,
    "table with groups": table_with_groups,
    "table of numbers": table_of_numbers,
    "several labels": several_labels,
    "images in arrays": images_in_arrays,
    "masks in folders": masks_in_folders,
    "own dataset": own_dataset,
}


def clean_project(folder: Path, number: int) -> Path:
    """Write clean project number `number` (any whole number) into a folder; returns its experiment file."""
    import yaml

    kind = list(KINDS.values())[number % len(KINDS)]
    folder.mkdir(parents=True, exist_ok=True)
    project = kind(folder, np.random.default_rng(number))
    file = folder / "experiment.yaml"
    file.write_text(yaml.safe_dump({"seed": number, **project, "run": {"device": "cpu"}}), encoding="utf-8")
    return file
