"""Weights in files: safetensors, torch state dicts and Weft's own checkpoints; never pickled objects."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
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
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ConfigError(f"weights file {path} does not exist", "check the path") from error
    except (OSError, SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ConfigError(
            f"weights file {path} cannot be read: {str(error).splitlines()[0] if str(error) else error!r}",
            "give a .safetensors file, or a .pt file with a state dict only (objects could run code: refused)",
        ) from error
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
    weights = read_weights(path)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise ConfigError(
            f"the weights in {path} do not fit the model: {error}", "evaluate with the model they were trained with"
        ) from error


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
