"""Tasks: what they make of outputs and targets, and that all kinds train on real data."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_diabetes, load_digits
from torch import Tensor, nn
from torch.nn import functional

from tests.engine.runs import build, last_weights, rows, small_experiment, trained
from weft.config import Component, load_experiment, resolve
from weft.data import Batch
from weft.engine import drive_alone, training
from weft.errors import ConfigError, DataError
from weft.nets import MLP, UNet
from weft.tasks import Classification, Regression, Segmentation, cross_entropy_and_dice

EXAMPLES = Path(__file__).parents[2] / "examples"


def batch_of(inputs: Tensor, targets: Tensor) -> Batch:
    return Batch(inputs, targets, torch.arange(len(inputs)), len(inputs))


def labels() -> tuple[Tensor, Tensor]:
    """Two labels per row: malignant, and whether the first measurement is above its mean."""
    inputs, targets = rows(160)
    return inputs, torch.stack([targets, (inputs[:, 0] > 0).long()], dim=1)


def diabetes() -> tuple[Tensor, Tensor]:
    data = load_diabetes()
    return torch.tensor(data.data * 20, dtype=torch.float32), torch.tensor(
        (data.target - 150) / 77, dtype=torch.float32
    )


def strokes() -> tuple[Tensor, Tensor]:
    """Digits to be separated from their background."""
    pixels = torch.tensor(load_digits().images[:120] / 16.0, dtype=torch.float32).unsqueeze(1)
    return pixels, (pixels > 0.5).long()


def test_one_output_trains_as_binary_with_bce() -> None:
    model = Component.of(MLP, in_features=30, out_features=1, hidden=[16])
    run, result = trained(small_experiment(model=model, epochs=5, metrics=["accuracy", "auroc"]))
    assert result.scores["validation"]["accuracy"] > 0.85
    task = run.task
    logits, targets = torch.tensor([[2.0], [-1.0]]), torch.tensor([1, 0])
    batch = batch_of(torch.zeros(2, 30), targets)
    loss = task.loss_of(logits, task.targets_for_loss(logits, batch))
    expected = functional.binary_cross_entropy_with_logits(torch.tensor([2.0, -1.0]), torch.tensor([1.0, 0.0]))
    assert torch.equal(loss, expected)
    assert task.predictions(logits)["probability"].shape == (2, 2)


def test_several_labels_per_item_train_with_bce_per_label() -> None:
    model = Component.of(MLP, in_features=30, out_features=2, hidden=[16])
    dataset = {"arrays": Component.of(labels), "split": {"ratio": [0.8, 0.2]}}
    run, result = trained(
        small_experiment(dataset, model=model, task={"classification": {"kind": "multilabel"}}, epochs=8)
    )
    assert result.scores["validation"]["accuracy"] > 0.7
    assert run.task.predictions(torch.zeros(3, 2))["prediction"].shape == (3, 2)


def test_regression_learns_and_never_broadcasts() -> None:
    model = Component.of(MLP, in_features=10, out_features=1, hidden=[16])
    dataset = {"arrays": Component.of(diabetes), "split": {"ratio": [0.8, 0.2]}}
    _, result = trained(
        small_experiment(dataset, model=model, task="regression", metrics=["r2", "mae"], epochs=15, optimizer="Adam")
    )
    assert result.scores["validation"]["r2"] > 0.2
    task = Regression()
    task.setup(None, None)
    outputs, targets = torch.ones(4, 1), torch.arange(4.0)
    assert task.targets_for_loss(outputs, batch_of(torch.zeros(4, 1), targets)).shape == (4, 1)
    with pytest.raises(DataError, match="do not fit"):
        task.targets_for_loss(torch.ones(4, 3), batch_of(torch.zeros(4, 1), targets))


@pytest.mark.parametrize("loss", [None, nn.CrossEntropyLoss], ids=["own", "cross entropy"])
def test_segmentation_learns(loss: type[nn.Module] | None) -> None:
    model = Component.of(UNet, spatial_dims=2, in_channels=1, out_channels=2, channels=[8, 16], strides=[2])
    dataset = {"arrays": Component.of(strokes), "split": {"ratio": [0.8, 0.2]}}
    settings = {"loss": Component.of(loss)} if loss is not None else {}
    _, result = trained(
        small_experiment(dataset, model=model, task="segmentation", metrics=["dice", "hd95"], epochs=4,
                         optimizer={"Adam": {"lr": 0.01}}, **settings)
    )  # fmt: skip
    assert result.scores["validation"]["dice"] > 0.9


def test_labels_beyond_the_outputs_are_named() -> None:
    with pytest.raises(DataError, match="labels are 0 to 3, but the model has 2 outputs"):
        cross_entropy_and_dice(torch.zeros(1, 2, 4, 4), torch.arange(16).reshape(1, 4, 4) % 4)


def test_too_few_outputs_for_the_classes_are_named() -> None:
    model = Component.of(MLP, in_features=64, out_features=4, hidden=[16])
    dataset = {"arrays": {"sklearn.datasets.load_digits": {"return_X_y": True}}, "split": {"ratio": [0.8, 0.2]}}
    with pytest.raises(DataError, match="4 outputs per item, but the data have 10 classes"):
        trained(small_experiment(dataset, model=model))


def test_segmentation_targets_fit_the_loss() -> None:
    task = Segmentation(classes=2)
    task.setup(nn.CrossEntropyLoss(), None)
    batch = batch_of(torch.zeros(2, 1, 4, 4), torch.ones(2, 1, 4, 4))
    assert task.targets_for_loss(torch.zeros(2, 2, 4, 4), batch).shape == (2, 4, 4)
    task.setup(lambda outputs, targets: outputs.sum(), None)
    assert task.targets_for_loss(torch.zeros(2, 2, 4, 4), batch).shape == (2, 1, 4, 4)
    with pytest.raises(DataError, match="same size"):
        task.targets_for_loss(torch.zeros(2, 2, 8, 8), batch)


def test_a_loss_that_sums_is_refused() -> None:
    with pytest.raises(ConfigError, match="reduction 'sum'"):
        Classification().setup(nn.CrossEntropyLoss(reduction="sum"), ["a", "b"])


def test_soft_dice_decomposes_over_items() -> None:
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(6, 3, 5, 5, generator=generator)
    targets = torch.randint(0, 3, (6, 5, 5), generator=generator)
    whole = cross_entropy_and_dice(outputs, targets)
    parts = cross_entropy_and_dice(outputs[:2], targets[:2]) * 2 + cross_entropy_and_dice(outputs[2:], targets[2:]) * 4
    assert whole.item() == pytest.approx(parts.item() / 6, rel=1e-6)


def test_the_example_gan_learns_digits_and_resumes_exactly() -> None:
    experiment = resolve(load_experiment(EXAMPLES / "gan" / "digits_gan.yaml", ["training.epochs=6"]))
    run = build(experiment)
    before = _distance(run.state.model)
    drive_alone(training(run))
    assert _distance(run.state.model) < before / 2
    assert run.state.position.step == 6 * 26
    assert set(run.state.optimizers) == {"discriminator", "generator"}

    from tests.engine.studies import same
    from tests.engine.test_training import _interrupt_after

    stopped = build(experiment)
    _interrupt_after(stopped, steps=40)
    resumed = build(experiment)
    resumed.state.load_state_dict(stopped.checkpoints.load_last() or {})
    drive_alone(training(resumed))
    assert same(last_weights(resumed), last_weights(run))


def _distance(model: nn.Module) -> float:
    """Root mean square difference between the mean generated image and the mean digit."""
    real = torch.tensor(np.asarray(load_digits().data) / 16.0, dtype=torch.float32).mean(0)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        fake = model.eval().sample(512, torch.device("cpu")).mean(0)  # type: ignore[operator]
    return math.sqrt((fake - real).square().mean().item())


def test_the_generators_loss_leaves_no_gradient_with_the_discriminator() -> None:
    changes = ["training.epochs=1", "training.steps=3"]
    run = build(resolve(load_experiment(EXAMPLES / "gan" / "digits_gan.yaml", changes)))
    accumulated: dict[str, int] = {}
    for name, parameter in run.state.model.named_parameters():

        def count(_: Tensor, name: str = name) -> None:
            accumulated[name] = accumulated.get(name, 0) + 1

        parameter.register_post_accumulate_grad_hook(count)
    drive_alone(training(run))
    assert set(accumulated.values()) == {3}  # each parameter once per step, by its own network's loss
