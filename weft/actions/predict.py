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
from weft.errors import UsageError
from weft.runs import RunDirectory, write_atomically
from weft.runs.files import explained

_UNSAFE = re.compile(r"[^\w.-]+")


def predict(
    run: Path | str,
    overrides: Sequence[str] = (),
    *,
    split: str = "test",
    out: Path | str | None = None,
    weights: Path | str | None = None,
    base: Path | str | None = None,
) -> list[Path]:
    """Predict a split with the weights of a run.

    Args:
        run: run directory.
        overrides: `key=value` texts; `dataset.table.test=new.csv` predicts new data, whose table needs no targets.
        split: which split. The data of other splits need not be there.
        out: folder; by default RUN/predictions.
        weights: other weights than the run's.
        base: folder that relative paths of the data start from now; by default where they did in training.

    Returns:
        the files written: SPLIT.csv with a row per item, and a .npy file per label map or other array.

    Raises:
        UsageError: the run has no such split, or did not finish.
        ConfigError: the weights do not fit.
        DataError: data are missing or do not fit the experiment.
        RunDirectoryError: there is no run, or the folder cannot be written.
    """
    if Path(run).is_file():
        raise UsageError(
            f"{run} is a file, not a run directory", "train first, then give the folder that `weft train` printed"
        )
    opened = open_for_scoring(run, overrides, weights, [split], base=base, need_targets=False)
    folder = Path(out) if out is not None else RunDirectory.open(run).predictions
    with scored_run(opened, [split]) as built:
        return write_split_predictions(built, split, folder, opened.targets)


def write_predictions(run: Run, directory: RunDirectory, targets: Sequence[str]) -> list[Path]:
    """Predictions of the test split (of validation where there is no test) of a run that has just been trained."""
    name = "test" if "test" in run.splits else "validation"
    return write_split_predictions(run, name, directory.predictions, targets) if name in run.splits else []


@torch.no_grad()
def write_split_predictions(run: Run, name: str, folder: Path, targets: Sequence[str]) -> list[Path]:
    """Predict one split and write the files.

    Args:
        run: holds the weights.
        name: the split.
        folder: where the files go.
        targets: names of the target columns, which name the columns of several predicted numbers.
    """
    with explained(folder, kept="everything written before"):
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
                    cells |= _cells(key, value, run.task.class_names or [], targets)
            rows.append(cells)
    table = folder / f"{name}.csv"
    write_table(table, rows)
    return [table, *written]


def _cells(key: str, value: torch.Tensor, class_names: Sequence[str], targets: Sequence[str]) -> dict[str, Any]:
    """Cells of a number, or of one per class or target."""
    if value.ndim == 1 and len(value) == 1:
        value = value[0]
    if value.ndim == 0:
        number = value.item()
        if key == "prediction" and isinstance(number, int) and number < len(class_names):
            return {key: class_names[number]}
        return {key: number}
    fitting = [names for names in (class_names, targets) if len(names) == len(value)]
    columns = fitting[0] if fitting else [str(place) for place in range(len(value))]
    return {f"{key}_{column}": number for column, number in zip(columns, value.tolist(), strict=True)}


def _write_map(folder: Path, name: str, value: torch.Tensor, taken: list[Path]) -> str:
    path = folder / f"{_UNSAFE.sub('_', name)}.npy"  # case names come from data: none may lead out of the folder
    while path in taken:
        path = path.with_name(f"{path.stem}_.npy")
    buffer = io.BytesIO()
    np.save(buffer, value.numpy(), allow_pickle=False)
    write_atomically(path, buffer.getvalue())
    taken.append(path)
    return path.name
