"""Activation checkpointing: less memory, the same weights to the bit, whatever a block draws or remembers."""

from __future__ import annotations

import copy
import os
import random
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from tests.engine.runs import last_weights, small_experiment, trained, untimed
from weft.config import Component
from weft.engine.recomputing import blocks_of, recompute_blocks
from weft.errors import ConfigError
from weft.nets import UNet


class Restless(nn.Module):
    """A block that draws from every generator and remembers how often it was passed."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, width), nn.BatchNorm1d(width, momentum=None), nn.Dropout(0.3), nn.Tanh()
        )
        self.turned = spectral_norm(nn.Linear(width, width))
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, inputs: Tensor) -> Tensor:
        if self.training:
            self.passes += 1
        scale = 1 + random.random() + np.random.random()
        result: Tensor = self.turned(self.layers(inputs) * scale) * self.passes.clone()
        return result


class Network(nn.Module):
    """Restless blocks in a list."""

    def __init__(self, blocks: int = 3) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Restless(30) for _ in range(blocks))
        self.head = nn.Linear(30, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits [n, 2]."""
        for block in self.blocks:
            inputs = inputs + block(inputs)
        result: Tensor = self.head(inputs)
        return result


class Hasty(nn.Module):
    """A block whose first layer writes over its input."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.ELU(inplace=True), nn.Linear(8, 8))

    def forward(self, inputs: Tensor) -> Tensor:
        result: Tensor = self.layers(inputs)
        return result


def outcome(wanted: Any, **changes: Any) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    experiment = small_experiment(
        model=Component.of(Network), run={"activation_checkpointing": wanted}, drop_last=True, **changes
    )
    run, result = trained(experiment)
    assert result.status == "finished"
    return last_weights(run), untimed(run)


@pytest.mark.parametrize("changes", [{}, {"ema": {"decay": 0.9}}, {"precision": "bf16", "accumulate": 2}])
def test_a_run_ends_with_the_same_weights_and_statistics_to_the_bit(changes: dict[str, Any]) -> None:
    """Dropout, running statistics, power iterations and other generators included."""
    weights, history = outcome(False, **changes)
    for wanted in (True, ["blocks.1", "blocks.2.layers"]):
        others, row = outcome(wanted, **changes)
        assert list(others) == list(weights)
        assert all(torch.equal(others[name], weights[name]) for name in weights)
        assert row == history


def test_a_copy_computes_with_its_own_weights() -> None:
    model = Network(1)
    recompute_blocks(model, True)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin.head.weight.zero_()
    for network in (model, twin):
        network(torch.randn(4, 30)).sum().backward()
    assert all(bool(parameter.grad.any()) for parameter in model.head.parameters() if parameter.grad is not None)
    assert model.blocks[0].passes == twin.blocks[0].passes == 1
    assert not twin.blocks[0].layers[0].weight.grad.any()  # a head of zeros hands no gradient on
    assert model.blocks[0].layers[0].weight.grad.any()


def test_the_blocks_of_a_u_net_are_found() -> None:
    model = UNet(in_channels=1, out_channels=2, channels=[4, 8, 16])
    before = dict(model.named_modules())
    assert recompute_blocks(model, True) == ["down.0", "down.1", "down.2", "merge.0", "merge.1"]
    assert list(dict(model.named_modules())) == list(before)


def test_a_nested_network_is_divided() -> None:
    def unit(width: int) -> nn.Module:
        return nn.Sequential(nn.Linear(width, width), nn.ReLU())

    model = nn.Sequential(unit(8), nn.Sequential(unit(9), nn.Sequential(unit(30), unit(30)), unit(9)), unit(8))
    assert blocks_of(model) == ["0", "1.0", "1.1.0", "1.1.1", "1.2", "2"]


def test_patterns_that_fit_nothing_and_networks_without_blocks_are_told() -> None:
    with pytest.raises(ConfigError, match=r"no module of the model has a name like 'encoder\.\*'") as caught:
        recompute_blocks(Network(), ["blocks.*", "encoder.*"])
    assert caught.value.problems[0].path == ("run", "activation_checkpointing", 1)
    assert "blocks.0" in caught.value.problems[0].hint
    with pytest.raises(ConfigError, match="Linear has no blocks"):
        recompute_blocks(nn.Linear(2, 2), True)


def test_a_block_that_changes_its_input_is_refused() -> None:
    model = nn.Sequential(nn.Sequential(nn.Linear(8, 8), nn.Tanh()), Hasty())
    recompute_blocks(model, ["1"])
    with pytest.raises(ConfigError, match="Hasty changes its input in place"):
        model(torch.randn(2, 8))


def test_compiling_goes_without() -> None:
    with pytest.raises(ConfigError, match=r"does not go with training\.compile"):
        small_experiment(model=Component.of(Network), compile=True, run={"activation_checkpointing": True})


PEAK = """
import sys, torch
from weft.engine.memory import PeakMemory
from weft.engine.recomputing import recompute_blocks
from weft.nets import UNet
torch.set_num_threads(1)
model = UNet(in_channels=1, out_channels=2, convolutions=3)
recompute_blocks(model, sys.argv[1] == "again")
peak = PeakMemory(torch.device("cpu"))
model(torch.ones(1, 1, 32, 32)).sum().backward()  # libraries are loaded
peak.restart()
model(torch.ones(8, 1, 128, 128)).sum().backward()
print(peak.growth)
"""


@pytest.mark.slow
def test_a_u_net_needs_less_memory() -> None:
    grown = {}
    exact = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}  # what is freed goes back to the system at once
    for how in ("kept", "again"):
        command = [sys.executable, "-c", PEAK, how]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=exact)
        grown[how] = int(done.stdout)
    assert grown["again"] < 0.85 * grown["kept"], grown
