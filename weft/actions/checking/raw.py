"""The data as they were read, divided into splits but not encoded: what the labels were before they became classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from weft.actions.checking.findings import Findings, count, listed, number
from weft.actions.checking.inputs import InputNames
from weft.config import DatasetConfig, Experiment
from weft.data import SplitData
from weft.data.parts import Column, Part
from weft.data.sources import read_parts


def read_raw(experiment: Experiment) -> dict[str, Part]:
    """The parts of the source.

    Raises:
        DataError, ConfigError: the data cannot be read.
    """
    return read_parts(experiment.dataset, experiment.namespace(), experiment.base)


def without_inputs(parts: Mapping[str, Part]) -> dict[str, Part]:
    """The parts without the inputs that lie in memory: those are looked at later, scaled and shaped."""
    return {
        name: replace(part, columns=[column for column in part.columns if column.is_path or column.role == "target"])
        for name, part in parts.items()
    }


def input_names(parts: Mapping[str, Part], dataset: DatasetConfig) -> InputNames:
    """What the inputs of the source are called; columns of numbers that follow each other make one input."""
    part = next(iter(parts.values()))
    if part.dataset is not None:
        return InputNames((), dataset.inputs)
    inputs, rest = part.of("input"), list(dataset.inputs)
    if dataset.table is None:
        return InputNames(
            (), ["the inputs"] if len(inputs) == 1 else [f"input {place}" for place in range(len(inputs))]
        )
    columns: list[list[str]] = []
    for column in inputs:
        width = 1 if column.is_path else int(column.values.shape[1])
        columns.append([] if column.is_path else rest[:width])
        rest = rest[width:]
    whole = [f"column '{column.name}'" if column.is_path else "the inputs" for column in inputs]
    return InputNames(columns, whole)


def divided(parts: Mapping[str, Part], splits: Mapping[str, SplitData]) -> dict[str, Part]:
    """The raw part of each split, item by item in the split's order.

    Args:
        parts: from `read_raw`.
        splits: the opened data.
    """
    result = {}
    for name, split in splits.items():
        part = parts[name] if name in parts else parts["train"]
        result[name] = part.take(_positions(part, split))
    return result


def _positions(part: Part, split: SplitData) -> list[int]:
    if len(part.rows):
        at = {row: position for position, row in enumerate(part.rows)}
        return [at[row] for row in split.rows]
    named = {case: position for position, case in enumerate(part.cases)}
    return [named[case] for case in split.cases]


def check_raw_labels(parts: Mapping[str, Part], findings: Findings, *, ignored: int | None = None) -> None:
    """Labels as they are written: whole numbers from 0, or names."""
    columns = [column for part in parts.values() for column in part.of("target") if not column.is_path]
    names = {column.name for column in columns}
    arrays = [np.asarray(column.values) for column in columns]
    if len(names) != 1 or any(array.dtype.kind in "OUS" for array in arrays):
        return  # several targets are zeros and ones, which opening the data makes sure of
    if any(array.ndim == 2 and array.shape[1] > 1 for array in arrays):
        return
    (name,) = names
    values = np.unique(np.concatenate([array.ravel() for array in arrays]))
    if any(array.dtype.kind == "f" for array in arrays) and not _float_labels(name, values, findings):
        return
    check_label_values(f"target '{name}'", values, findings, ignored=ignored)


def _float_labels(name: str, values: Any, findings: Findings) -> bool:
    """Report labels with a fraction; returns whether they are whole all the same."""
    broken = values[~(np.isfinite(values) & (values == np.round(values)))]
    if len(broken):
        findings.error(
            "float labels",
            f"target '{name}'",
            f"{count(len(broken), 'value')} of {len(values)} are no whole numbers "
            f"({listed(map(number, broken.tolist()))}), "
            "but the task is about classes",
            "classes are names or whole numbers from 0; to predict numbers use task: regression",
            values=broken[:10].tolist(),
        )
        return False
    findings.warning(
        "float labels",
        f"target '{name}'",
        f"labels are stored as numbers with a fraction ({listed(values.tolist())}), though all are whole",
        "store labels as whole numbers, so that a wrong one cannot hide",
        values=values[:10].tolist(),
    )
    return True


def check_label_values(where: str, values: Any, findings: Findings, *, ignored: int | None = None) -> None:
    """Whether the label values that occur are 0, 1, 2, … without gaps.

    Args:
        where: what they are labels of.
        values: the distinct values, sorted.
        findings: goes in here.
        ignored: a value that the loss leaves out.
    """
    labels = [int(value) for value in values if np.isfinite(value) and int(value) != ignored]
    if len(labels) == 2 and labels[0] == 0 and labels[1] > 1:
        findings.error(
            "label values",
            where,
            f"the labels are 0 and {labels[1]}, which would be {labels[1] + 1} classes"
            + (": a mask saved as a picture?" if labels[1] == 255 else ""),
            f"store 1 instead of {labels[1]}",
            values=labels,
        )
    elif labels and labels[0] > 0:
        findings.warning(
            "label values",
            where,
            f"no item has label {listed(range(labels[0]))}: labels begin with {labels[0]}",
            f"count classes from 0: subtract {labels[0]}",
            values=labels[:20],
        )


def path_columns(part: Part) -> Iterator[Column]:
    """The columns whose values are files."""
    return (column for column in part.columns if column.is_path)
