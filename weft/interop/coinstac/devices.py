"""Where a site computes: on the CPU, on a GPU, or on several, each batch divided among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from weft.errors import ConfigError, Problem


def gpus_of(cache: Mapping[str, Any], site: str) -> list[int]:
    """Numbers of the GPUs that a site computes on: its `gpus`; none where it names none, or has no CUDA device.

    Raises:
        ConfigError: it names one that there is not.
    """
    gpus = list(cache.get("gpus") or [])
    if not gpus or not torch.cuda.is_available():
        return []
    count = torch.cuda.device_count()
    if max(gpus) >= count:
        known = ", ".join(map(str, range(count)))
        raise ConfigError(
            Problem(f"gpus is {gpus}, but site {site} has {count}", f"known are: {known}", ("inputspec", "gpus"))
        )
    return gpus


def device_of(gpus: Sequence[int]) -> torch.device:
    """Where batches and weights belong: the first GPU, or the CPU where there is none."""
    return torch.device(f"cuda:{gpus[0]}" if gpus else "cpu")


def words_of(cache: Mapping[str, Any], gpus: Sequence[int]) -> str:
    """What is to be told of where a site computes; empty where it computes where it was told."""
    asked = cache.get("gpus") or []
    return f"gpus is {asked}, but there is no CUDA device: it computes on the CPU" if asked and not gpus else ""


class Spread(nn.DataParallel[nn.Module]):
    """A network whose batches are divided among several GPUs, and whose gradients are added up on the first.

    The network itself is its `module`: weights are sent, saved and restored under that one's names, so that sites
    with one GPU and with several train one model.
    """

    @property
    def training(self) -> bool:
        """Whether the network within is training: it is that one's mode that the engine sets."""
        within = self.__dict__.get("_modules", {}).get("module")
        return True if within is None else bool(within.training)

    @training.setter
    def training(self, mode: bool) -> None:
        pass  # `train` sets that of the network within


def spread(networks: dict[str, nn.Module], gpus: Sequence[int]) -> None:
    """Have networks divide their batches among GPUs, where there are several.

    Args:
        networks: by name; replaced in place.
        gpus: numbers; weights lie on the first.
    """
    if len(gpus) < 2:
        return
    for name, network in networks.items():
        if not isinstance(network, nn.DataParallel):
            networks[name] = Spread(network, device_ids=list(gpus))


def within(network: nn.Module) -> nn.Module:
    """The network itself, whether it divides its batches or not."""
    found = network.module if isinstance(network, nn.DataParallel) else network
    assert isinstance(found, nn.Module)
    return found
