"""Predictions in files: one CSV per split for classes and numbers, one .npy per case for maps."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from weft.actions.evaluate import open_for_scoring, scored_run
from weft.actions.scores import write_table
from weft.engine.run import Run
from weft.runs import RunDirectory, write_atomically

_UNSAFE = re.compile(r"[^\w.-]+")


def predict(
    run: Path | str,
    overrides: Sequence[str] = (),
    *,
    split: str = "test",
    out: Path | str | None = None,
    weights: Path | str | None = None,
) -> list[Path]:
    """Predict a split with the weights of a run.

    Args:
        run: run directory.
        overrides: `key=value` texts; `dataset.table.test=new.csv` predicts new data.
        split: which split.
        out: folder; by default RUN/predictions.
        weights: other weights than the run's.

    Returns:
        the files written.

    Raises:
        UsageError: the run has no such split, or did not finish.
    """
    experiment, data, file = open_for_scoring(run, overrides, weights)
    built = scored_run(experiment, data, file, [split])
    folder = Path(out) if out is not None else RunDirectory.open(run).predictions
    try:
        return write_split_predictions(built, split, folder)
    finally:
        built.close()


def write_predictions(run: Run, directory: RunDirectory) -> list[Path]:
    """Predictions of the test split (of validation where there is no test) of a run that has just been trained."""
    name = "test" if "test" in run.splits else "validation"
    return write_split_predictions(run, name, directory.predictions) if name in run.splits else []


@torch.no_grad()
def write_split_predictions(run: Run, name: str, folder: Path) -> list[Path]:
    """Predict one split and write the files."""
    folder.mkdir(parents=True, exist_ok=True)
    split, module = run.splits[name], run.scored_module().eval()
    rows: list[dict[str, Any]] = []
    written: list[Path] = []
    for raw in split.loader.epoch(0):
        batch = run.place(raw)
        with run.plan.precision.autocast():
            outputs, _ = run.task.forward(module, batch)
        predicted = {key: value.cpu() for key, value in run.task.predictions(outputs).items()}
        for place, row in enumerate(raw.index.tolist()):
            case = split.cases[row]
            cells: dict[str, Any] = {"case": case}
            for key, values in predicted.items():
                value = values[place]
                if value.ndim > 1:
                    cells[key] = _write_map(folder, f"{name}-{case}-{key}", value, taken=written)
                else:
                    cells |= _cells(key, value, run.task.class_names)
            rows.append(cells)
    table = folder / f"{name}.csv"
    write_table(table, rows)
    return [table, *written]


def _cells(key: str, value: torch.Tensor, class_names: list[str] | None) -> dict[str, Any]:
    if value.ndim == 0:
        number = value.item()
        if key == "prediction" and class_names is not None and isinstance(number, int) and number < len(class_names):
            return {key: class_names[number]}
        return {key: number}
    names = class_names if class_names is not None and len(class_names) == len(value) else range(len(value))
    return {f"{key}_{name}": number for name, number in zip(names, value.tolist(), strict=True)}


def _write_map(folder: Path, name: str, value: torch.Tensor, taken: list[Path]) -> str:
    path = folder / f"{_UNSAFE.sub('_', name)}.npy"  # case names come from data: none may lead out of the folder
    while path in taken:
        path = path.with_name(f"{path.stem}_.npy")
    buffer = io.BytesIO()
    np.save(buffer, value.numpy(), allow_pickle=False)
    write_atomically(path, buffer.getvalue())
    taken.append(path)
    return path.name
