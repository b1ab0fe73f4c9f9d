"""What scorch's files promise, and the errors for files that do not keep to it: each names the file and the promise."""

from __future__ import annotations

import inspect
from pathlib import Path
from types import ModuleType
from typing import Any

from weft.config.patches import load_patch
from weft.errors import ConfigError, DataError, Problem
from weft.interop import usercode
from weft.interop.usercode import file_of

PROMISES = {
    "Network": "class Network(torch.nn.Module), whose forward takes a list of tensors and returns a list of tensors",
    "Socket": "class Socket with __init__(self, model), criterion(self, pred, target) and metrics(self, pred, target)",
    "DataSet": "class DataSet with __init__(self, ds_index, mode='train'), __len__ and __getitem__, which returns a "
    "list of inputs and a list of targets",
    "metrics": "metrics(self, pred, target) returns a dict of numbers with an entry 'main', or a list of numbers of "
    "which the first is the main one",
    "criterion": "criterion(self, pred, target) takes two lists of tensors and returns one number as a tensor",
}


def read_file(path: Path, wanted: tuple[str, ...], flag: str) -> ModuleType:
    """Load a model or dataset file and see that it defines what it must.

    Args:
        path: the file.
        wanted: names of the classes that it must define.
        flag: how the file was given, for messages.

    Raises:
        ConfigError: there is no such file, it cannot be loaded, or a class is missing.
    """
    if not path.is_file():
        raise ConfigError(f"{flag} {path}: there is no such file", "check the path")
    if path.suffix != ".py":
        raise ConfigError(f"{flag} {path} is not a Python file", "give a file whose name ends in .py")
    module = load_patch(path)
    for name in wanted:
        if not inspect.isclass(getattr(module, name, None)):
            others = [key for key, value in vars(module).items() if inspect.isclass(value) and key[:1] != "_"]
            there = f"; it has {', '.join(others)}" if others else ""
            raise ConfigError(Problem(f"defines no class {name}{there}", f"write: {PROMISES[name]}", (), path))
    return module


def broken(owner: object, what: str, promise: str) -> DataError:
    """The error for something that a file of the user does otherwise than promised.

    Args:
        owner: the class (or an object of it) that does so.
        what: what it does.
        promise: a key of `PROMISES`.
    """
    return DataError(f"{file_of(owner)}: {what}", f"the contract: {PROMISES[promise]}")


def called(owner: object, name: str, function: Any, *arguments: Any, **named: Any) -> Any:
    """Call something that the user wrote; where it fails, file and line are named.

    Raises:
        DataError: with the error's own words.
    """
    hint = "compare the arguments with --model-args, --dataset-args and --dataset-path"
    return usercode.called(owner, name, function, *arguments, hint_for_arguments=hint, **named)
