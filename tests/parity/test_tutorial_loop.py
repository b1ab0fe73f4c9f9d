"""With default settings the weights are those of a hand-written tutorial loop, bit for bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_digits
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, TensorDataset

import weft
from tests.engine.studies import same
from weft.config import Component
from weft.engine import CheckpointMemory, build_run, drive_alone, training
from weft.nets import MLP, SmallCNN, UNet
from weft.tasks import cross_entropy_and_dice

SEED, EPOCHS, BATCH = 11, 3, 16


def table() -> tuple[Tensor, Tensor]:
    data = load_breast_cancer()
    inputs = (data.data - data.data.mean(0)) / data.data.std(0)
    return torch.tensor(inputs, dtype=torch.float32)[:200], torch.tensor(data.target)[:200]


def images() -> tuple[Tensor, Tensor]:
    data = load_digits()
    return torch.tensor(data.images / 16.0, dtype=torch.float32).unsqueeze(1)[:200], torch.tensor(data.target)[:200]


def masks() -> tuple[Tensor, Tensor]:
    """Digits enlarged to 32 x 32, to be separated from their background."""
    pixels, _ = images()
    enlarged = functional.interpolate(pixels[:40], size=(32, 32), mode="bilinear")
    return enlarged + 0.1 * torch.randn(enlarged.shape, generator=torch.Generator().manual_seed(0)), (
        enlarged > 0.4
    ).long()


class Items(Dataset[tuple[Tensor, Tensor]]):
    """An arbitrary map-style dataset: Weft knows nothing of its insides."""

    def __init__(self, which: str) -> None:
        self.inputs, self.targets = {"table": table, "images": images, "masks": masks}[which]()

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.inputs[index], self.targets[index]


CASES: dict[str, dict[str, Any]] = {
    "mlp with dropout": {
        "which": "table",
        "model": Component.of(MLP, in_features=30, out_features=2, hidden=[64, 32], dropout=0.3),
        "task": "classification",
        "optimizer": "Adam",
        "loss": functional.cross_entropy,
    },
    "cnn": {
        "which": "images",
        "model": Component.of(SmallCNN, in_channels=1, out_features=10, channels=[16, 32], dropout=0.2),
        "task": "classification",
        "optimizer": "AdamW",
        "loss": functional.cross_entropy,
    },
    "u-net": {
        "which": "masks",
        "model": Component.of(
            UNet, spatial_dims=2, in_channels=1, out_channels=2, channels=[8, 16, 32], strides=[2, 2]
        ),
        "task": {"segmentation": {"classes": 2}},
        "optimizer": "Adam",
        "loss": lambda outputs, targets: cross_entropy_and_dice(outputs, targets.squeeze(1)),
    },
}


def tutorial(case: dict[str, Any]) -> dict[str, Tensor]:
    """What a tutorial would write: plain DataLoader, model, optimizer, loop."""
    items = Items(case["which"])
    generator = torch.Generator()
    loader = DataLoader(TensorDataset(items.inputs, items.targets), batch_size=BATCH, shuffle=True, generator=generator)
    torch.manual_seed(SEED)
    model: nn.Module = case["model"].target(**case["model"].arguments)
    optimizer = getattr(torch.optim, case["optimizer"])(model.parameters(), lr=2e-3)
    for epoch in range(EPOCHS):
        generator.manual_seed(weft.seed_for(SEED, epoch))
        model.train()
        for inputs, targets in loader:
            optimizer.zero_grad()
            loss = case["loss"](model(inputs), targets)
            loss.backward()
            optimizer.step()
    return model.state_dict()


def with_weft(case: dict[str, Any], dataset: dict[str, Any], **settings: Any) -> dict[str, Tensor]:
    """The last weights of a run with default settings."""
    from weft.config import load_experiment, resolve
    from weft.data import open_data

    experiment = resolve(
        load_experiment(
            {
                "seed": SEED,
                "dataset": dataset,
                "model": case["model"],
                "training": {
                    "task": case["task"],
                    "epochs": EPOCHS,
                    "batch_size": BATCH,
                    "optimizer": {case["optimizer"]: {"lr": 2e-3}},
                    **settings,
                },
                "run": {"device": "cpu", "num_workers": 0},
            }
        )
    )
    kind = "class"
    data = open_data(
        experiment.dataset,
        experiment.namespace(),
        seed=SEED,
        fold=None,
        base=experiment.base,
        target_kind=kind,  # type: ignore[arg-type]
    )
    store = CheckpointMemory()
    drive_alone(training(build_run(experiment, data, checkpoints=store)))
    assert store.last is not None
    return store.last["model"]


def in_memory(which: str) -> tuple[Tensor, Tensor]:
    items = Items(which)
    return items.inputs, items.targets


@pytest.mark.parametrize("name", CASES)
def test_weights_equal_a_tutorial_loop_with_data_in_memory(name: str) -> None:
    case = CASES[name]
    dataset = {"arrays": Component.of(in_memory, which=case["which"]), "split": {"ratio": [1.0, 0.0]}}
    assert same(with_weft(case, dataset), tutorial(case))


@pytest.mark.parametrize("name", CASES)
def test_weights_equal_a_tutorial_loop_with_any_dataset(name: str) -> None:
    case = CASES[name]
    # validated on the same items: validation must not move the training in any way
    part = Component.of(Items, which=case["which"])
    assert same(with_weft(case, {"class": {"train": part, "validation": part}}), tutorial(case))


def test_a_tutorial_loop_with_other_settings_differs() -> None:
    case = CASES["mlp with dropout"]
    part = Component.of(Items, which="table")
    assert not same(with_weft(case, {"class": {"train": part}}, clip_norm=0.1), tutorial(case))
