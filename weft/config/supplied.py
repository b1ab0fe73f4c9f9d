"""Arguments that Weft gives to a component where the file does not write them: one table, for checks and for building.

The dataset knows which columns a transform of dicts works on, the run how long a schedule is.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from weft.config.dataset import DatasetConfig
from weft.config.signatures import parameters_of
from weft.config.training import TrainingConfig


@dataclass(frozen=True, slots=True)
class Supply:
    """An argument that Weft can give.

    Args:
        kind: the component's kind.
        argument: its name in the signature.
        value: name of the value that it takes: "keys", "label_key" or "length".
        said_by: arguments that say the same; where one of them is written, nothing is given.
        even_if_none: also given where its default is None, rather than only where it has none.
        despite_default_of: classes whose default cannot be meant: PolynomialLR without `total_iters` ends after five
            steps or epochs, with a learning rate of zero for the rest of the run.
    """

    kind: str
    argument: str
    value: str
    said_by: frozenset[str] = frozenset()
    even_if_none: bool = False
    despite_default_of: frozenset[str] = frozenset()

    def applies(self, parameter: Any, owner: str) -> bool:
        """Whether an argument of this name is one that lacks a sensible default."""
        default = parameter.default
        return (
            default is parameter.empty
            or (self.even_if_none and default is None)
            or owner in self.despite_default_of  # a class of that name; its subclasses may mean their defaults
        )


# LinearLR and ConstantLR keep torch's `total_iters` of 5: as a warm-up it makes sense.
SUPPLIES = (
    Supply("transform", "keys", "keys", even_if_none=True),
    Supply("transform", "label_key", "label_key"),
    Supply("scheduler", "total_steps", "length", frozenset({"epochs", "steps_per_epoch"}), even_if_none=True),
    Supply("scheduler", "T_max", "length"),
    Supply("scheduler", "total_iters", "length", despite_default_of=frozenset({"PolynomialLR"})),
    Supply("scheduler", "num_training_steps", "length"),
    Supply("scheduler", "t_total", "length"),
)
MEANINGS: Mapping[str, str] = {
    "keys": "columns of the dataset",
    "label_key": "the target column",
    "length": "length of the run",
}


def supplied(kind: str, target: Any, written: Collection[str], known: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that Weft gives to a component.

    Args:
        kind: the component's kind.
        target: the class or function that it names.
        written: names of the arguments that the file writes; they are left alone.
        known: values by name, as far as there are: "keys" (names of columns, a list), "label_key" (the one target
            column), "length" (of the run, in what the scheduler is stepped by: optimizer steps or epochs).
    """
    parameters = parameters_of(target, kind) or {}
    owner = getattr(target, "__name__", "")
    return {
        supply.argument: known[supply.value]
        for supply in SUPPLIES
        if supply.kind == kind
        and supply.value in known
        and supply.argument in parameters
        and not ({supply.argument, *supply.said_by} & set(written))
        and supply.applies(parameters[supply.argument], owner)
    }


def known_values(kind: str, dataset: DatasetConfig) -> frozenset[str]:
    """Names of the values that a run of this dataset will have for components of a kind."""
    values = {supply.value for supply in SUPPLIES if supply.kind == kind}
    if label_key(dataset) is None:
        values.discard("label_key")
    return frozenset(values)


def label_key(dataset: DatasetConfig) -> str | None:
    """The name in an item of its one target; None where there are several, or none is named."""
    if dataset.source() in ("arrays", "folder"):
        return "targets"
    if dataset.source() == "class" and not dataset.inputs:
        return "targets"  # what items that are no dicts are called
    return dataset.targets[0] if len(dataset.targets) == 1 else None


# Schedulers that torch means to be stepped after every optimizer step; all others go by epochs.
_PER_STEP = ("OneCycleLR", "CyclicLR")


def scheduler_interval(training: TrainingConfig) -> str:
    """When the learning rate's scheduler is stepped: after every optimizer step ("step") or every "epoch"."""
    if training.scheduler is None or training.scheduler_interval != "auto":
        return training.scheduler_interval
    return "step" if training.scheduler.name.rpartition(".")[2] in _PER_STEP else "epoch"
