"""Arguments of a computation, and which of them counts: the inputspec's, the constructor's, or the default."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

from weft.config.hints import did_you_mean
from weft.errors import ConfigError, Problem
from weft.interop.coinstac.config import max_size
from weft.interop.coinstac.config.keys import Key, Mode

DEFAULTS: Mapping[str, Any] = {
    "task_id": "nn_task", "mode": None, "agg_engine": "dSGD", "seed": 0,
    "batch_size": 4, "local_iterations": 1, "epochs": 21, "validation_epochs": 1, "learning_rate": 0.001,
    "gpus": None, "pin_memory": False, "num_workers": 0, "load_limit": max_size, "load_sparse": False,
    "pretrained_path": None, "patience": 5, "num_folds": None, "split_ratio": (0.6, 0.2, 0.2),
    "monitor_metric": "f1", "metric_direction": "maximize", "score_delta": 1e-4,
    "log_header": "Loss|Accuracy,F1,Precision,Recall", "precision_bits": 32, "num_reducers": 2, "verbose": False,
    "minimum_cells": 0,
}  # fmt: skip
OWN = "_own_arguments_"  # names of those that the constructor said: code of the site's own, not of the consortium
_COUNTS = ("batch_size", "local_iterations", "epochs", "validation_epochs", "load_limit")


class MissingArgumentError(KeyError):
    """There is no such argument.

    Args:
        name: as it was asked for.
        known: names of those that there are.
    """

    def __init__(self, name: object, known: Iterable[str]) -> None:
        super().__init__(name)
        near = did_you_mean(str(name), [one for one in known if not one.startswith("_")])
        self.hint = f"write {name} into inputspec.json, or give it to COINNLocal" + (f"; {near}" if near else "")

    def __str__(self) -> str:
        return f"the site was told no argument {self.args[0]!r}"


class Arguments(dict[str, Any]):
    """A site's cache: an argument that is missing is told with what to do."""

    def __missing__(self, name: str) -> Any:
        raise MissingArgumentError(name, list(self))


def cached_arguments(own: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """What a site's cache begins with.

    Args:
        own: what the constructor of `COINNLocal` was told.
        given: the site's inputspec. Of it, `<task_id>_args` and `<agg_engine>_args`, dicts of arguments, count before
            its plain entries, and `<task_id>_data_conf` where neither says anything.

    Returns:
        every argument, with the first value that is not None of: inputspec, constructor, default.

    Raises:
        ConfigError: one has a value that it cannot have, or two that exclude one another are given.
    """
    own, given = _told(_named(own)), _told(_named(given))
    names = {**DEFAULTS, **own, **given}
    parts = _dict(given, f"{names['task_id']}_args") | _dict(given, f"{names['agg_engine']}_args")
    spec = _dict(given, f"{names['task_id']}_data_conf") | given | parts
    cache: dict[str, Any] = {**DEFAULTS, **own, **spec}
    _refuse_both(own, "the constructor")
    _refuse_both(spec, "the inputspec")
    places = {key: 2 * bool(spec.get(key)) or int(bool(own.get(key))) for key in ("num_folds", "split_ratio")}
    for one, other in (("num_folds", "split_ratio"), ("split_ratio", "num_folds")):
        if places[one] and places[one] >= places[other]:
            cache[other] = None
    _check(cache)
    cache[OWN] = sorted(key for key in own if key not in spec)
    cache[Key.ARGS_CACHED.value] = True
    return cache


def _refuse_both(values: Mapping[str, Any], where: str) -> None:
    """Folds and a ratio exclude one another. Where one is the constructor's, the inputspec's counts."""
    folds, ratio = values.get("num_folds"), values.get("split_ratio")
    if folds and ratio:
        raise ConfigError(f"{where} gives both num_folds ({folds}) and split_ratio ({ratio})", "leave one of them out")


def _named(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values, words of enumerations as plain texts, and `task_name` or `computation_id`, as early releases say, as
    `task_id`.
    """
    found = {
        key: value.value if isinstance(value, Enum) and isinstance(value, str) else value
        for key, value in values.items()
    }
    for name in ("task_name", "computation_id"):
        if found.get(name) and not found.get("task_id"):
            found["task_id"] = found[name]
    return found


def _told(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _dict(given: Mapping[str, Any], key: str) -> dict[str, Any]:
    found = given.get(key) or {}
    if not isinstance(found, Mapping):
        raise _wrong(key, found, "a dict of arguments")
    return _told(_named(found))


def _wrong(key: str, value: Any, expected: str) -> ConfigError:
    return ConfigError(Problem(f"{key} is {value!r}", f"give {expected}", ("inputspec", key)))


def _check(cache: dict[str, Any]) -> None:
    cache["mode"] = cache["mode"].lower() if isinstance(cache["mode"], str) else cache["mode"]
    if cache["mode"] not in (Mode.TRAIN, Mode.TEST):
        raise _wrong("mode", cache["mode"], "mode: train or mode: test, to COINNLocal or in inputspec.json")
    task = str(cache["task_id"])
    if not task or os.sep in task or task.startswith("."):
        raise _wrong("task_id", cache["task_id"], "a name without slashes: it becomes a folder of the output")
    for key in _COUNTS:
        if cache[key] == float("inf"):
            cache[key] = max_size
        if not _is_count(cache[key]):
            raise _wrong(key, cache[key], "a whole number from 1")
    folds = cache["num_folds"]
    if folds is not None and (isinstance(folds, bool) or not isinstance(folds, int) or folds < 3):
        raise _wrong(
            "num_folds", folds, "a whole number from 3 (one fold for tests, one for validation), or leave it out"
        )
    if cache["metric_direction"] not in ("maximize", "minimize"):
        raise _wrong("metric_direction", cache["metric_direction"], "maximize or minimize")
    if cache["precision_bits"] not in (16, 32):
        raise _wrong("precision_bits", cache["precision_bits"], "16 or 32")
    cells = cache["minimum_cells"]
    if isinstance(cells, bool) or not isinstance(cells, int) or cells < 0:
        raise _wrong("minimum_cells", cells, "a whole number from 0: how many items a bin has that leaves the site")
    if cache.get("num_class") is not None and not _is_count(cache["num_class"]):
        raise _wrong("num_class", cache["num_class"], "a whole number from 1")
    rate = cache["learning_rate"]
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate < float("inf"):
        raise _wrong("learning_rate", rate, "a number from 0")
    ratio = cache["split_ratio"]
    if ratio is not None and not _is_ratio(ratio):
        raise _wrong("split_ratio", ratio, "two or three parts that sum to 1: [0.6, 0.2, 0.2]")
    if cache["gpus"] is not None and not _are_gpus(cache["gpus"]):
        raise _wrong("gpus", cache["gpus"], "a list of different numbers of GPUs, [0] or [0, 1]; [] is the CPU")


def pretraining(given: Any) -> dict[str, Any]:
    """The arguments of training alone beforehand, checked; `epochs` is 0 where there is to be none.

    Args:
        given: `pretrain_args` of the inputspec or of the constructor; None for none.

    Raises:
        ConfigError: an argument has a value that it cannot have.
    """
    if given is None:
        return {"epochs": 0}
    if not isinstance(given, Mapping):
        raise _wrong("pretrain_args", given, 'a dict of arguments: {"epochs": 3}')
    epochs = given.get("epochs")
    if not (epochs is None or epochs == 0 or _is_count(epochs)):
        raise _wrong("pretrain_args", dict(given), "epochs as a whole number from 0")
    made = {**_told(_named(given)), "epochs": epochs or 0}
    if made["epochs"]:
        _check({**DEFAULTS, "mode": "train", **made})
    return made


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _are_gpus(gpus: Any) -> bool:
    listed = isinstance(gpus, list | tuple) and all(type(number) is int and number >= 0 for number in gpus)
    return listed and len(set(gpus)) == len(gpus)


def _is_ratio(ratio: Any) -> bool:
    if not isinstance(ratio, Sequence) or isinstance(ratio, str) or len(ratio) not in (1, 2, 3):
        return False
    numbers = [part for part in ratio if isinstance(part, int | float) and not isinstance(part, bool) and part >= 0]
    return len(numbers) == len(ratio) and abs(sum(numbers) - 1) < 1e-6


def within(folder: str | os.PathLike[str], path: str | os.PathLike[str], what: str) -> Path:
    """A path that an argument names, below a folder of the site.

    Args:
        folder: one of the site's.
        path: as it was given.
        what: the argument's name, for messages.

    Raises:
        ConfigError: it leaves the folder.
    """
    root = Path(os.path.abspath(folder))
    found = Path(os.path.normpath(root / path))
    if not found.is_relative_to(root):
        raise ConfigError(
            Problem(f"{what} is {str(path)!r}, which leaves {root}", "name a path below it", ("inputspec", what))
        )
    return found
