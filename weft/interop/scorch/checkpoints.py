"""scorch's checkpoint files: `checkpoint.pth.tar` with its six keys."""

from __future__ import annotations

import copy
import io
import logging
from collections.abc import Iterator
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from numpy._core.multiarray import scalar
from torch import nn
from torch.optim import Optimizer

from weft.errors import CheckpointError
from weft.interop.scorch.scores import MAIN
from weft.runs import write_atomically

logger = logging.getLogger("weft")

KEYS = ("epoch", "model_state", "optimizer_state", "verbosity", "info", "metrics")


def _scalars() -> Iterator[Any]:
    """What a number of NumPy's is made of in a file, under the names of NumPy 1 and 2; nothing else is let in."""
    yield from ((scalar, f"numpy.{package}.multiarray.scalar") for package in ("core", "_core"))
    yield (np.dtype, "numpy.dtype")
    for name in ("Bool", "Int8", "Int16", "Int32", "Int64", "UInt8", "Float16", "Float32", "Float64"):
        yield getattr(np.dtypes, f"{name}DType")


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint that scorch, or Weft in its place, wrote. Nothing in it is executed.

    Raises:
        CheckpointError: there is no such file, or it holds something else.
    """
    try:
        with torch.serialization.safe_globals(list(_scalars())):
            found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"there is no checkpoint {path}", "check --checkpoint") from error
    except UnpicklingError as error:
        reason = str(error).strip().splitlines()[0]
        raise CheckpointError(
            f"{path} holds more than weights and numbers, and is not read: {reason}",
            "save its model_state and optimizer_state anew as plain tensors",
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {type(error).__name__}: {error}", "is it whole?") from error
    missing = [key for key in ("epoch", "model_state") if not isinstance(found, dict) or key not in found]
    if missing:
        raise CheckpointError(
            f"{path} is no checkpoint of scorch: it has no {' and no '.join(missing)}",
            f"its keys are {', '.join(KEYS)}",
        )
    return found


def restore_network(network: nn.Module, path: Path) -> None:
    """Give a network the weights of a checkpoint.

    Raises:
        CheckpointError: they do not fit.
    """
    try:
        network.load_state_dict(read_checkpoint(path)["model_state"])
    except (RuntimeError, AttributeError, TypeError) as error:
        first = "; ".join(line.strip() for line in str(error).splitlines()[:3])
        raise CheckpointError(f"{path} does not fit Network: {first}", "use the model file it was made with") from error


def restore_optimizer(optimizer: Optimizer, path: Path) -> None:
    """Give an optimizer the state in a checkpoint; with another optimizer, a warning, and it begins anew."""
    state, before = read_checkpoint(path).get("optimizer_state"), copy.deepcopy(optimizer.state_dict())
    try:
        optimizer.load_state_dict(state)  # type: ignore[arg-type]
        for name in optimizer.defaults:  # torch does not ask whether a state is of the same kind of optimizer
            if any(name not in group for group in optimizer.param_groups):
                raise ValueError(f"it has no {name!r}, as another kind of optimizer")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        optimizer.load_state_dict(before)
        logger.warning("Failed to load optimizer state, starting to train from scratch: %s", error)


def best_before(path: Path, prefix: str) -> float | None:
    """The main score that a new best checkpoint must beat when training goes on from `path`.

    Args:
        path: the checkpoint.
        prefix: of the files that are about to be written; a best one that is there already counts.
    """
    files = [path, *(file for file in (Path(f"{prefix}checkpoint_best.pth.tar"),) if file.exists())]
    scores = [(read_checkpoint(file).get("metrics") or {}) for file in files]
    known = [float(score[MAIN]) for score in scores if isinstance(score, dict) and MAIN in score]
    return max(known, default=None)


def write_content(path: Path, content: dict[str, Any]) -> bytes:
    """Write a file in torch's form, whole or not at all; returns what was written."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomically(path, buffer.getvalue())
    return buffer.getvalue()
