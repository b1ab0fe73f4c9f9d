"""Averaging gradients over unequal sites is pooled training, for networks of all kinds, after hundreds of steps."""

from __future__ import annotations

from itertools import zip_longest
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.engine.studies import SIZES, Study, open_site, share, site_experiment
from weft.config import Component
from weft.data import make_loader
from weft.federated import dSGD

STEPS = 300


class Network(nn.Module):
    """Two classes from the 30 numbers of a row, seen as a vector, an image, a sequence or a volume.

    Args:
        kind: which.
        double: in float64.
    """

    def __init__(self, kind: str, double: bool) -> None:
        super().__init__()
        self.kind = kind
        if kind == "LSTM":
            self.body: nn.Module = nn.LSTM(3, 8, batch_first=True)
            self.head = nn.Linear(8, 2)
        else:
            self.body, width = {
                "MLP": lambda: (nn.Sequential(nn.Linear(30, 16), nn.LayerNorm(16), nn.Tanh()), 16),
                "CNN": lambda: (nn.Sequential(nn.Conv2d(1, 6, 3), nn.GroupNorm(2, 6), nn.Tanh(), nn.Flatten()), 72),
                "3D CNN": lambda: (nn.Sequential(nn.Conv3d(1, 4, 2), nn.Tanh(), nn.Flatten()), 32),
            }[kind]()
            self.head = nn.Linear(width, 2)
        self.to(torch.float64 if double else torch.float32)

    def forward(self, inputs: Tensor) -> Tensor:
        shape = {"MLP": (30,), "CNN": (1, 5, 6), "LSTM": (10, 3), "3D CNN": (1, 2, 3, 5)}[self.kind]
        seen = self.body(inputs.to(self.head.weight.dtype).reshape(-1, *shape))
        outputs: Tensor = self.head(seen[0][:, -1] if self.kind == "LSTM" else seen)
        return outputs


def _both(kind: str, *, double: bool, optimizer: str, rate: float) -> tuple[nn.Module, nn.Module]:
    """Trained over three sites, and on the union of their batches."""
    settings: dict[str, Any] = {
        "model": Component.of(Network, kind=kind, double=double),
        "optimizer": {optimizer: {"lr": rate} | ({"momentum": 0.9} if optimizer == "SGD" else {})},
        "epochs": 40,
        "steps": STEPS,
        "evaluate_every": 100,
    }
    study = Study(dSGD, settings=settings)
    study.together.run()
    loaders, start = [], 0
    for size in SIZES.values():
        split = open_site(site_experiment(start, start + size)).splits["train"]
        loaders.append(make_loader(split, batch_size=8, seed=5, shuffle=True))
        start += size
    with torch.random.fork_rng():
        torch.manual_seed(5)
        pooled, apart = Network(kind, double), Network(kind, double)
    trained = getattr(torch.optim, optimizer)(pooled.parameters(), **settings["optimizer"][optimizer])
    step = 0
    for epoch in range(40):
        for batches in zip_longest(*(loader.epoch(epoch) for loader in loaders)):
            if step == STEPS:
                break
            present = [batch for batch in batches if batch is not None]
            inputs, targets = torch.cat([b.inputs for b in present]), torch.cat([b.targets for b in present])
            trained.zero_grad()
            functional.cross_entropy(pooled(inputs), targets).backward()
            trained.step()
            step += 1
    last = study.stores["site-b"].last
    assert last is not None
    assert last["position"]["step"] == step == STEPS
    apart.load_state_dict(last["model"])
    return apart, pooled


def _farthest(apart: nn.Module, pooled: nn.Module) -> float:
    pairs = zip(apart.parameters(), pooled.parameters(), strict=True)
    return max(float((first - second).detach().abs().max()) for first, second in pairs)


KINDS = ["MLP", "CNN", "LSTM", "3D CNN"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_in_float64_the_weights_are_those_of_pooled_training(kind: str) -> None:
    assert _farthest(*_both(kind, double=True, optimizer="SGD", rate=0.05)) < 1e-12


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_in_float32_they_are_so_but_for_rounding(kind: str) -> None:
    assert _farthest(*_both(kind, double=False, optimizer="SGD", rate=0.05)) < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_with_adam_in_float32_the_predictions_are(kind: str) -> None:
    apart, pooled = _both(kind, double=False, optimizer="Adam", rate=1e-3)
    inputs = torch.tensor(share(0, 200)[0])
    difference = apart(inputs).softmax(1) - pooled(inputs).softmax(1)
    assert float(difference.detach().abs().max()) < 1e-4
