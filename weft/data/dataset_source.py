"""Torch datasets as a source: a class by name or objects, map-style."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch.utils.data import IterableDataset

from weft.config import Component, Namespace
from weft.data.parts import Part
from weft.errors import DataError


def parts_from_classes(value: Any, namespace: Namespace) -> dict[str, Part]:
    """One part for each dataset: `{train: Component, ...}`, or a single Component, which is called train."""
    components: Mapping[str, Component] = value if isinstance(value, Mapping) else {"train": value}
    return {
        name: part_from_dataset(namespace.build(component, "dataset"), component.name.rpartition(".")[2])
        for name, component in components.items()
    }


def part_from_dataset(dataset: Any, name: str) -> Part:
    """Items of a map-style dataset. Its attributes `cases` and `groups` (one entry per item), where it has them, name
    the items and their groups; `targets` or `labels` are used for stratified splits.

    Raises:
        DataError: the dataset has no length or no items, or cannot be indexed.
    """
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__getitem__"):
        raise DataError(
            f"{name} has no __getitem__, so its items cannot be visited in a given order",
            "use a map-style dataset: __len__ and __getitem__(row)",
        )
    try:
        length = len(dataset)
    except (TypeError, NotImplementedError) as error:
        raise DataError(f"{name} has no length: {error}", "define __len__") from error
    if length == 0:
        raise DataError(f"{name} has no items", "check the arguments of the dataset")
    cases = _per_item(dataset, ("cases",), length, name)
    groups = _per_item(dataset, ("groups",), length, name)
    tensors = getattr(dataset, "tensors", None)  # torch's TensorDataset
    labels = tensors[-1].tolist() if tensors else _per_item(dataset, ("targets", "labels"), length, name)
    return Part(
        name,
        [str(row) for row in range(length)] if cases is None else [str(case) for case in cases],
        range(length),
        "item",
        groups=None if groups is None else [str(group) for group in groups],
        dataset=dataset,
        labels=labels,
    )


def _per_item(dataset: Any, attributes: Sequence[str], length: int, name: str) -> list[Any] | None:
    for attribute in attributes:
        values = getattr(dataset, attribute, None)
        if values is None or callable(values) or not hasattr(values, "__len__"):
            continue
        if len(values) != length:
            raise DataError(f"{name}.{attribute} has {len(values)} entries for {length} items", "give one per item")
        return values.tolist() if hasattr(values, "tolist") else list(values)
    return None
