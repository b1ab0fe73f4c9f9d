"""What targets mean: numbers to be predicted, or classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from weft.data.parts import Column, Part
from weft.errors import DataError

TargetKind = Literal["class", "number", "auto"]


def encode_targets(
    parts: dict[str, Part], kind: TargetKind, known: Sequence[str] | None = None
) -> tuple[dict[str, Part], list[str] | None]:
    """Turn target columns into tensors: int64 labels, float32 zeros and ones for several at once, or float32 numbers.

    Whole numbers from 0 are labels as they are. Text, and negative numbers, become labels in the sorted order of what
    occurs in any of the parts.

    Args:
        parts: the parts by name; their target columns may hold arrays or paths (left alone).
        kind: "class" or "number"; "auto" takes text and whole numbers for classes.
        known: names of the classes of an earlier run.

    Returns:
        The parts with tensors, and the names of the classes (None where the targets are no classes).

    Raises:
        DataError: a value does not fit the kind, or a class is not among the known ones.
    """
    columns = [(part, column) for part in parts.values() for column in part.of("target") if not column.is_path]
    if not columns:
        return parts, None
    names = list(dict.fromkeys(column.name for _, column in columns))
    several = len(names) > 1
    wants_class = kind == "class" or (kind == "auto" and all(_looks_like_class(column.values) for _, column in columns))
    if not wants_class:
        return _map_targets(parts, _numbers), None
    if several:
        return _map_targets(parts, _zeros_and_ones), names
    if any(np.ndim(column.values) == 2 and column.values.shape[1] > 1 for _, column in columns):
        width = columns[0][1].values.shape[1]
        return _map_targets(parts, _zeros_and_ones), [str(label) for label in range(width)]
    if any(np.ndim(column.values) > 2 for _, column in columns):
        return _map_targets(parts, _label_maps), None  # the classes of pixels are the model's concern
    classes = _class_names(columns, known)
    return _map_targets(parts, lambda part, column: _labels(part, column, classes)), classes


def _looks_like_class(values: Any) -> bool:
    return bool(np.asarray(values).dtype.kind in "OUSbiu")


def _map_targets(parts: dict[str, Part], function: Any) -> dict[str, Part]:
    def encoded(part: Part) -> Part:
        columns = [
            column if column.role == "input" or column.is_path else replace(column, values=function(part, column))
            for column in part.columns
        ]
        return replace(part, columns=columns)

    return {name: encoded(part) for name, part in parts.items()}


def _numbers(part: Part, column: Column) -> Tensor:
    values = np.asarray(column.values)
    if values.dtype.kind in "OUS":
        row = next(row for row, value in enumerate(values) if not _is_number(value))
        raise DataError(
            f"{part.where(row)}: target '{column.name}' is {str(values[row])!r}, which is no number",
            "regression needs numbers; for class names use the task classification",
        )
    require_finite(part, column.name, values)
    return torch.as_tensor(values.astype(np.float32))


def _zeros_and_ones(part: Part, column: Column) -> Tensor:
    values = np.asarray(column.values)
    good = np.isin(values, (0, 1)) if values.dtype.kind in "biuf" else np.zeros(values.shape, bool)
    if not good.all():
        place = np.argwhere(~good)[0]
        raise DataError(
            f"{part.where(int(place[0]))}: target '{column.name}' is {str(values[tuple(place)])!r}, expected 0 or 1",
            "several targets are labels that may hold together, each 0 or 1; for classes name one target column",
        )
    return torch.as_tensor(values.astype(np.float32))


def _label_maps(part: Part, column: Column) -> Tensor:
    return torch.as_tensor(_whole(part, column))


def _whole(part: Part, column: Column) -> np.ndarray[Any, np.dtype[np.int64]]:
    values = np.asarray(column.values)
    require_finite(part, column.name, values)
    broken = values != np.round(values) if values.dtype.kind == "f" else np.zeros(values.shape, bool)
    if broken.any():
        place = np.argwhere(broken)[0]
        raise DataError(
            f"{part.where(int(place[0]))}: target '{column.name}' is {values[tuple(place)]}, which is no class",
            "classes are names or whole numbers from 0; for numbers use the task regression",
        )
    return values.astype(np.int64)


def _class_names(columns: list[tuple[Part, Column]], known: Sequence[str] | None) -> list[str]:
    if known is not None:
        return list(known)
    if any(np.asarray(column.values).dtype.kind in "OUS" for _, column in columns):
        return sorted({str(value) for _, column in columns for value in np.asarray(column.values).ravel()})
    values = np.concatenate([_whole(part, column).ravel() for part, column in columns])
    if len(values) and values.min() < 0:
        return [str(value) for value in np.unique(values)]
    return [str(value) for value in range(int(values.max(initial=-1)) + 1)]


def _labels(part: Part, column: Column, classes: list[str]) -> Tensor:
    values = np.asarray(column.values).reshape(len(part))
    texts = values.astype(str) if values.dtype.kind in "OUS" else _whole(part, column).reshape(len(part)).astype(str)
    label_of = {name: label for label, name in enumerate(classes)}
    unknown = next((row for row, text in enumerate(texts) if text not in label_of), None)
    if unknown is not None:
        raise DataError(
            f"{part.where(unknown)}: class {str(values[unknown])!r} in '{column.name}' is not one of the classes "
            f"{', '.join(classes[:20])}",
            "these are the classes that the model was trained on",
        )
    return torch.tensor([label_of[text] for text in texts], dtype=torch.int64)


def require_finite(part: Part, name: str, values: Any) -> None:
    """Raise DataError for the first value that is NaN or infinite."""
    values = np.asarray(values)
    if values.dtype.kind != "f" or np.isfinite(values).all():
        return
    bad = np.argwhere(~np.isfinite(values))
    rows = len(np.unique(bad[:, 0]))
    raise DataError(
        f"{part.where(int(bad[0][0]))}: '{name}' is {values[tuple(bad[0])]}"
        + (f" (and in {rows - 1} more rows)" if rows > 1 else ""),
        "fill such values in or remove these rows before training",
    )


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True
