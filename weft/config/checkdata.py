"""Checks of the `dataset:` section: keys that need or exclude each other."""

from __future__ import annotations

import math
from collections.abc import Iterator

from weft.config.component import Component
from weft.config.dataset import ArrayPair, DatasetConfig, SplitConfig
from weft.config.experiment import Experiment
from weft.errors import Problem

_SOURCES = ("table", "arrays", "folder", "class")
_SUPERVISED = ("classification", "regression", "segmentation")


def check_source(experiment: Experiment) -> Iterator[Problem]:
    """Exactly one source of data."""
    dataset = experiment.dataset
    given = [name for name in _SOURCES if getattr(dataset, "class_" if name == "class" else name) is not None]
    if not given:
        yield Problem("no data are given", "write one of table:, arrays:, folder: or class:", ("dataset",))
    for extra in given[1:]:
        yield Problem(f"there are two sources, {given[0]!r} and {extra!r}", "keep one of them", ("dataset", extra))
    table = dataset.table
    if table is not None:
        parts = [name for name in ("train", "validation", "test") if getattr(table, name) is not None]
        if table.file is None and not parts:
            yield Problem(
                "no table is given",
                "write train: (and validation:, test:), or file: with a split",
                ("dataset", "table"),
            )
        if table.file is not None and parts:
            message = f"'file' is one table for all splits, but {parts[0]!r} is given too"
            yield Problem(
                message, "keep either 'file' (with a split) or one table for each split", ("dataset", "table", "file")
            )


def check_columns(experiment: Experiment) -> Iterator[Problem]:
    """Columns are named for tables, and only for them."""
    dataset = experiment.dataset
    if dataset.table is not None:
        if not dataset.inputs:
            yield Problem(
                "a table needs the key 'inputs'", "name the columns that the model gets: inputs: [...]", ("dataset",)
            )
        if not dataset.targets and experiment.training.task.name in _SUPERVISED:
            task = experiment.training.task.name
            yield Problem(
                f"{task} needs the key 'targets'", "name the columns to predict: targets: [...]", ("dataset",)
            )
        both = [name for name in dataset.inputs if name in dataset.targets]
        for name in both:
            yield Problem(
                f"the column {name!r} is an input and a target",
                "a model that sees the answer learns nothing",
                ("dataset", "targets"),
            )
        for key in ("inputs", "targets"):
            columns = getattr(dataset, key)
            for name in sorted({name for name in columns if columns.count(name) > 1}):
                yield Problem(f"the column {name!r} is named twice", "remove one of the two", ("dataset", key))
    elif (source := dataset.source()) is not None:
        allowed = ("inputs", "targets") if source == "class" else ()  # keys of its items, where these are dicts
        for key in ("inputs", "targets", "case", "group"):
            if getattr(dataset, key) and key not in allowed:
                message = f"{key!r} names columns of a table, but the data are given as {source!r}"
                yield Problem(message, f"remove {key!r}", ("dataset", key))


def check_split(experiment: Experiment) -> Iterator[Problem]:
    """A split where one is needed and only there; its keys fit each other and the fold."""
    dataset, split = experiment.dataset, experiment.dataset.split
    given = _given_parts(dataset)
    if split is None:
        if given == [] and dataset.source() is not None:
            hint = "add split: {ratio: [0.7, 0.15, 0.15]}, or name the part for training with 'train:'"
            yield Problem("nothing says which items are for training and which for validation", hint, ("dataset",))
        if experiment.fold is not None:
            yield Problem("'fold' needs folds", "add dataset.split.folds, or remove 'fold'", ("fold",))
        return
    if "validation" in given:
        message = "the data come with a validation part, so there is nothing to split"
        yield Problem(message, "remove 'split', or the separate part", ("dataset", "split"))
    if "test" in given and (split.test is not None or len(split.ratio or ()) == 3):
        message = "the split makes a test part, but the data come with one"
        yield Problem(message, "give the split two parts, or remove the separate part", ("dataset", "split"))
    yield from _check_method(split)
    yield from _check_groups(dataset, split)
    if experiment.fold is not None:
        if split.folds is None and split.files is None:
            yield Problem("'fold' needs folds", "add dataset.split.folds, or remove 'fold'", ("fold",))
        elif split.folds is not None and experiment.fold > split.folds:
            yield Problem(
                f"there is no fold {experiment.fold} of {split.folds}",
                f"folds are counted from 1 to {split.folds}",
                ("fold",),
            )


def _check_groups(dataset: DatasetConfig, split: SplitConfig) -> Iterator[Problem]:
    where = ("dataset", "split", "grouped")
    if split.grouped and dataset.table is not None and dataset.group is None:
        yield Problem("'grouped' needs the column that names the group", "add e.g. group: patient to dataset", where)
    if split.grouped and dataset.source() in ("arrays", "folder"):
        message = f"{dataset.source()!r} has no groups"
        yield Problem(message, "use a table with a group column, or a class with 'groups'", where)


def _given_parts(dataset: DatasetConfig) -> list[str]:
    """The splits that the source already divides into; none for a source in one piece."""
    if dataset.table is not None:
        return [name for name in ("train", "validation", "test") if getattr(dataset.table, name) is not None]
    if isinstance(dataset.arrays, dict):
        return list(dataset.arrays)
    if isinstance(dataset.class_, dict):
        return list(dataset.class_)
    if isinstance(dataset.arrays, ArrayPair | Component) or dataset.class_ is not None:
        return []
    return ["train"]


def _check_method(split: SplitConfig) -> Iterator[Problem]:
    where = ("dataset", "split")
    methods = [name for name in ("ratio", "folds", "files") if getattr(split, name) is not None]
    if not methods:
        yield Problem("nothing says how to split", "write one of ratio:, folds: or files:", where)
    for extra in methods[1:]:
        yield Problem(f"there are two ways to split, {methods[0]!r} and {extra!r}", "keep one of them", (*where, extra))
    if split.ratio is not None:
        if len(split.ratio) not in (2, 3):
            yield Problem(
                f"expected 2 or 3 parts, found {len(split.ratio)}",
                "training, validation and, optionally, test",
                (*where, "ratio"),
            )
        elif not math.isclose(math.fsum(split.ratio), 1, abs_tol=1e-6):
            yield Problem(
                f"the parts sum to {math.fsum(split.ratio):.6g}, not to 1", "e.g. [0.7, 0.15, 0.15]", (*where, "ratio")
            )
        elif split.ratio[0] == 0:
            yield Problem("the part for training is 0", "the first part is for training", (*where, "ratio"))
    if split.files is not None:
        for key in ("stratified", "grouped"):
            if getattr(split, key):
                yield Problem(f"{key!r} has no meaning for given split files", f"remove {key!r}", (*where, key))
    if split.test is not None:
        if split.folds is None:
            yield Problem("'test' goes with 'folds'", "in a ratio the third part is for testing", (*where, "test"))
        elif split.test == 1:
            yield Problem("all items are kept aside for testing", "e.g. test: 0.2", (*where, "test"))


def check_shape(experiment: Experiment) -> Iterator[Problem]:
    """Sizes are positive; one of them may be -1."""
    shape = experiment.dataset.shape or []
    for index, size in enumerate(shape):
        if size < -1 or size == 0:
            yield Problem(f"expected a size of at least 1, or -1 once, found {size}", "", ("dataset", "shape", index))
    if shape.count(-1) > 1:
        yield Problem("-1 stands twice, so the sizes cannot be told", "write all sizes but one", ("dataset", "shape"))


def check_cache(experiment: Experiment) -> Iterator[Problem]:
    """Items are kept on disk only where their sources tell when they change."""
    if experiment.run.cache == "disk" and experiment.dataset.class_ is not None:
        message = "items of a torch dataset cannot be kept on disk: nothing tells when they change"
        yield Problem(message, "use memory, or none", ("run", "cache"))


def check_transforms(experiment: Experiment) -> Iterator[Problem]:
    """Transforms that may be random do not stand among those of every split."""
    for index, transform in enumerate(experiment.dataset.transforms.base):
        name = transform.name.rpartition(".")[2]
        if name.startswith("Rand") and name[4:5].isupper():
            hint = "move it to dataset.transforms.train"
            message = f"{name} is random, but 'base' is for every split, validation and test included"
            yield Problem(message, hint, ("dataset", "transforms", "base", index))
