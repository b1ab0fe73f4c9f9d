"""Transforms of an item: a chain of callables over a dict, as MONAI's dictionary transforms are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from weft.config import Component, Namespace, supplied
from weft.errors import DataError, WeftError

Item = dict[str, Any]


class Chain:
    """Transforms applied one after the other; one that returns a list (several crops of an item) is followed by the
    rest for each element.

    Args:
        transforms: callables that take an item (a dict) and return an item or a list of items.
    """

    def __init__(self, transforms: Sequence[Callable[[Any], Any]]) -> None:
        self.transforms = list(transforms)

    def __len__(self) -> int:
        return len(self.transforms)

    def __call__(self, item: Item) -> Item | list[Item]:
        result: Item | list[Item] = item
        for transform in self.transforms:
            result = _apply(transform, result)
        return result


def _apply(transform: Callable[[Any], Any], item: Any) -> Any:
    if isinstance(item, list):
        made = [_apply(transform, element) for element in item]
        return [element for part in made for element in (part if isinstance(part, list) else [part])]
    try:
        result = transform(item)
    except WeftError:
        raise
    except Exception as error:
        reason = str(error.__cause__ or error) or type(error).__name__
        raise DataError(
            f"transform {_name(transform)} failed: {type(error).__name__}: {reason}",
            f"it is given the item as a dict with {', '.join(map(str, item))}; "
            "MONAI's transforms for dicts have names that end in d",
        ) from error
    if not isinstance(result, Mapping | list):
        raise DataError(
            f"transform {_name(transform)} returned {type(result).__name__}, expected an item (a dict) or a list",
            "return the dict that it was given, with the changed values",
        )
    return result


def _name(transform: object) -> str:
    return getattr(transform, "__qualname__", None) or type(transform).__name__


def build_chain(components: Sequence[Component], namespace: Namespace, known: Mapping[str, Any]) -> Chain:
    """Build the transforms of an experiment.

    Args:
        components: as written in `dataset.transforms`.
        namespace: looks up names.
        known: "keys" and, where there is one target, "label_key", for those that need them (`weft.config.supplied`).
    """
    transforms = []
    for component in components:
        target = namespace.find(component, "transform")
        extra = {} if component.is_finished else supplied("transform", target, component.arguments, known)
        transforms.append(namespace.build(component, "transform", **extra))
    return Chain(transforms)


def loads_files(components: Sequence[Component]) -> bool:
    """Whether the chain reads the files itself (MONAI's LoadImaged and the like)."""
    return any(component.name.rpartition(".")[2].startswith("Load") for component in components)
