"""Taking from an experiment only what scoring and predicting need, so that new data can be looked at where the training
data are not, and without knowing the answers.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from weft.config import Component, DatasetConfig, Experiment, Namespace, TransformsConfig
from weft.data.sources import table_file
from weft.data.tables import read_table

SPLITS = ("train", "validation", "test")


def only_splits(experiment: Experiment, wanted: Sequence[str]) -> Experiment:
    """The experiment with the data of the wanted splits alone, where the source gives these by themselves; else as it
    is. Then nothing is divided, so a table named by `dataset.table.test` is all of the test split.
    """
    dataset = experiment.dataset
    changes = _kept_sources(dataset, wanted)
    if not changes:
        return experiment
    narrowed = dataset.model_copy(update={"split": None, "samplers": {}, **changes})
    return experiment.model_copy(update={"dataset": narrowed, "fold": None})


def _kept_sources(dataset: DatasetConfig, wanted: Sequence[str]) -> dict[str, Any]:
    if dataset.table is not None:
        if any(getattr(dataset.table, name, None) is None for name in wanted):
            return {}
        others = {name: None for name in (*SPLITS, "file") if name not in wanted}
        return {"table": dataset.table.model_copy(update=others)}
    for key, parts in (("arrays", dataset.arrays), ("class_", dataset.class_)):
        if isinstance(parts, dict) and all(name in parts for name in wanted):
            return {key: {name: parts[name] for name in wanted}}  # type: ignore[index]
    return {}


def without_pretrained(experiment: Experiment) -> Experiment:
    """The experiment without the weights that training began with: others are loaded anyway."""
    return experiment.model_copy(update={"model": experiment.model.model_copy(update={"weights": None})})


def without_missing_targets(experiment: Experiment) -> Experiment:
    """The experiment without targets where a table of it lacks their columns: predicting needs none.

    Transforms are then told that keys may be missing, as far as they can be (MONAI's `allow_missing_keys`).
    """
    dataset = experiment.dataset
    if dataset.table is None or not dataset.targets or _has_columns(experiment, dataset.targets):
        return experiment
    namespace = experiment.namespace()
    base = [_lenient(transform, namespace) for transform in dataset.transforms.base]
    changes = {"targets": [], "transforms": TransformsConfig(base=base)}
    return experiment.model_copy(update={"dataset": dataset.model_copy(update=changes)})


def _has_columns(experiment: Experiment, names: Sequence[str]) -> bool:
    table = experiment.dataset.table
    assert table is not None
    files = [file for name in ("file", *SPLITS) if (file := getattr(table, name)) is not None]
    tables = [read_table(table_file(table, file, experiment.base), table.separator) for file in files]
    return all(name in opened.columns for opened in tables for name in names)


def _lenient(transform: Component, namespace: Namespace) -> Component:
    target = namespace.find(transform, "transform")
    if transform.is_finished or not isinstance(target, type):
        return transform
    if "allow_missing_keys" not in inspect.signature(target).parameters:
        return transform
    return replace(transform, arguments={"allow_missing_keys": True, **transform.arguments})
