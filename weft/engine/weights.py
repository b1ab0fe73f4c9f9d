"""Weights in files: safetensors, torch state dicts and Weft's own checkpoints; never pickled objects."""

from __future__ import annotations

import logging
import pickle
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from weft.errors import ConfigError
from weft.runs.files import write_atomically

logger = logging.getLogger("weft")


def save_weights(weights: dict[str, Tensor], path: Path) -> None:
    """Write weights as safetensors, whole or not at all; shared tensors are written once per name."""
    write_atomically(path, save({name: tensor.detach().cpu().contiguous().clone() for name, tensor in weights.items()}))


def read_weights(path: Path) -> dict[str, Tensor]:
    """The weights in a file.

    Args:
        path: `.safetensors`, or a `.pt`/`.pth` with a state dict (also under "model" or "state_dict").

    Raises:
        ConfigError: the file is missing, damaged, or holds something else.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the pickle format of files that are refused anyway
            content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ConfigError(f"weights file {path} does not exist", "check the path") from error
    except pickle.UnpicklingError as error:
        raise ConfigError(
            f"weights file {path} is no state dict, or holds pickled objects, which could run code when they are "
            "loaded: refused",
            "from a source that you trust: load it in Python yourself and save the model's state_dict() alone",
        ) from error
    except Exception as error:  # readers of damaged files fail in many ways
        raise ConfigError(
            f"weights file {path} cannot be read: {str(error).splitlines()[0] if str(error) else error!r}",
            "give a .safetensors file, or a .pt file with a state dict",
        ) from error
    if isinstance(content, dict) and isinstance(content.get("average"), dict):  # a checkpoint of Weft's with an average
        content = content["average"]
    if isinstance(content, dict) and "shards" in content:
        raise ConfigError(
            f"{path} is a checkpoint of a sharded model, whose weights lie in files beside it",
            "give a file of best weights (best-*.pt), or the model.safetensors of the finished run",
        )
    for key in ("model", "state_dict", "model_state"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ConfigError(f"weights file {path} holds no state dict", "save the model's state_dict()")
    return content


def load_weights(model: nn.Module, path: Path) -> None:
    """Load weights that must fit the model exactly.

    Raises:
        ConfigError: names or shapes differ.
    """
    weights, own = read_weights(path), model.state_dict()
    differences = {
        "the file lacks": sorted(set(own) - set(weights)),
        "the model lacks": sorted(set(weights) - set(own)),
        "of other shape are": [
            f"{name} ({_shape(weights[name])} in the file, {_shape(own[name])} in the model)"
            for name in own
            if name in weights and weights[name].shape != own[name].shape
        ],
    }
    found = [f"{words} {_first(names)}" for words, names in differences.items() if names]
    if found:
        raise ConfigError(
            f"the weights in {path} do not fit {type(model).__name__}: {'; '.join(found)}",
            "give the model section of the experiment that they were trained with",
        )
    model.load_state_dict(weights)


def _shape(tensor: Tensor) -> str:
    return "×".join(str(size) for size in tensor.shape) or "a number"


def _first(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def load_pretrained(model: nn.Module, path: Path) -> None:
    """Load what fits of pretrained weights; what does not fit is named in the log, and nothing fitting is an error."""
    weights, own = read_weights(path), model.state_dict()
    fitting = {name: tensor for name, tensor in weights.items() if name in own and own[name].shape == tensor.shape}
    if not fitting:
        raise ConfigError(
            f"none of the {len(weights)} tensors in {path} fits the model", "check that it is the same architecture"
        )
    left = sorted(set(own) - set(fitting))
    if left:
        logger.warning(
            "pretrained weights %s leave %d of %d tensors as initialised: %s",
            path,
            len(left),
            len(own),
            ", ".join(left[:8]),
        )
    model.load_state_dict(own | fitting)
