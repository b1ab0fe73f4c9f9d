"""The `dataset:` section: where the data lie, which columns, how they are split and transformed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, PlainValidator, Tag, WithJsonSchema
from pydantic_core import PydanticCustomError

from weft.config.component import Component
from weft.config.fields import Count, FilePath, Items, Section

SplitName = Literal["train", "validation", "test"]
SPLITS = ("train", "validation", "test")


class TableConfig(Section):
    """Tables (CSV, TSV, Parquet): one for each split, or one `file` that `split` divides."""

    file: FilePath | None = None
    """One table that `split` divides."""
    train: FilePath | None = None
    """Table of the training split."""
    validation: FilePath | None = None
    """Table of the validation split."""
    test: FilePath | None = None
    """Table of the test split."""
    root: FilePath | None = None
    """Folder that file paths in the columns are relative to; without it, the folder of the table."""
    separator: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    """Character between columns; without it, told by the file's ending."""


class ArrayPair(Section):
    """Two array files (.npy) with as many rows: row i of the inputs belongs to row i of the targets."""

    inputs: FilePath
    """Array file [items, ...]."""
    targets: FilePath | None = None
    """Array file [items, ...]."""


class TransformsConfig(Section):
    """What happens to an item before it enters a batch."""

    base: Items[Component] = Field(default_factory=list)
    """For every split, in this order; must not be random. Transforms of dicts get `keys` (columns of files, or else the
    inputs) and `label_key` (the one target column) where the file does not write them."""
    train: Items[Component] = Field(default_factory=list)
    """After `base`, for the training split only; may be random."""


def _fraction(value: Any) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1:
        return float(value)
    raise PydanticCustomError("fraction", "expected a number from 0 to 1, found {found}", {"found": repr(value)})


Fraction = Annotated[float, PlainValidator(_fraction), WithJsonSchema({"type": "number", "minimum": 0, "maximum": 1})]


class SplitConfig(Section):
    """How items are divided into training, validation and test: by ratio, by folds, or by given files."""

    ratio: Items[Fraction] | None = None
    """Two or three parts that sum to 1: training, validation and, optionally, test."""
    folds: Annotated[int, Field(ge=2)] | None = None
    """Number of folds of cross-validation; `fold` of the experiment picks one, from 1; without it all are run."""
    files: FilePath | None = None
    """Folder of JSON split files; as many as there are folds, or one."""
    stratified: bool = False
    """Whether each class has the same share in each split."""
    grouped: bool = False
    """Whether all items of a group (column `group`) stay in one split."""
    test: Fraction | None = None
    """With `folds`: the share of items kept aside for testing, the same in every fold."""
    seed: int | None = None
    """Seed of the division; without it, the experiment's."""


def _form_of_arrays(value: Any) -> str | None:
    if isinstance(value, ArrayPair):
        return "<pair>"
    if not isinstance(value, Mapping):
        return None if value is None or isinstance(value, list | int | float) else "<component>"
    keys = set(value)
    if keys & set(SPLITS):
        return "<splits>"
    if keys & {"inputs", "targets"} or len(keys) != 1:
        return "<pair>"
    return "<component>"


def _form_of_class(value: Any) -> str | None:
    if isinstance(value, Mapping) and set(value) & set(SPLITS):
        return "<splits>"
    return "<component>"


Arrays = Annotated[
    Annotated[ArrayPair, Tag("<pair>")]
    | Annotated[dict[SplitName, ArrayPair], Tag("<splits>")]
    | Annotated[Component, Tag("<component>")],
    Discriminator(
        _form_of_arrays,
        custom_error_type="arrays",
        custom_error_message="expected {inputs: file, targets: file}, the same for each split, or a component",
    ),
]
ClassOrClasses = Annotated[
    Annotated[dict[SplitName, Component], Tag("<splits>")] | Annotated[Component, Tag("<component>")],
    Discriminator(_form_of_class),
]


class DatasetConfig(Section):
    """The data: exactly one source (`table`, `arrays`, `folder` or `class`) and what is done with it."""

    table: TableConfig | None = None
    """Tables whose columns are numbers, class names or file paths."""
    arrays: Arrays | None = None
    """Array files, or a component that returns `(inputs, targets)` arrays."""
    folder: FilePath | None = None
    """Folder with `train/x/*.npy` and `train/y/*.npy`, and likewise `validation` and `test`."""
    class_: ClassOrClasses | None = Field(default=None, alias="class")
    """A torch `Dataset` class, or one for each split."""
    inputs: Items[str] = Field(default_factory=list)
    """Columns of the table that the model gets; with `class`, keys of its items where these are dicts."""
    targets: Items[str] = Field(default_factory=list)
    """Columns of the table that the model shall predict; with `class`, keys of its items."""
    case: str | None = None
    """Column that names each item in scores and predictions."""
    group: str | None = None
    """Column whose equal values belong together, e.g. the patient."""
    transforms: TransformsConfig = TransformsConfig()
    """Transforms of items."""
    split: SplitConfig | None = None
    """Division into training, validation and test where the source has one part only."""
    standardize: bool = False
    """Whether inputs are scaled by mean and standard deviation of the training split."""
    shape: Items[int] | None = None
    """Shape that each input is brought to, e.g. [1, 8, 8]; one entry may be -1."""
    on_bad_item: Literal["error", "skip"] = "error"
    """What happens when an item cannot be loaded."""
    load_limit: Count | None = None
    """At most so many items of each split, to try an experiment out."""
    samplers: dict[SplitName, Component] = Field(default_factory=dict)
    """Samplers by split; without one, training items are shuffled and the others are not."""

    def source(self) -> str | None:
        """Name of the source that is given: "table", "arrays", "folder" or "class"; None when there is none."""
        given = {"table": self.table, "arrays": self.arrays, "folder": self.folder, "class": self.class_}
        return next((name for name, value in given.items() if value is not None), None)
