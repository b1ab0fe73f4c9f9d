"""The engine on a CUDA device: exact resume, mixed precision, losses that stay on the device. Skipped without one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn import functional

from tests.engine.runs import build, last_weights, small_experiment, trained, untimed
from tests.engine.studies import same
from tests.engine.test_training import Poisoned, Recorder, _interrupt_after
from weft.config import Component
from weft.engine import drive_alone, training
from weft.engine.background import BackgroundCheckpoints
from weft.engine.checkpoint_files import read_checkpoint
from weft.engine.checkpoints import CheckpointFolder
from weft.engine.determinism import reproducible
from weft.errors import NotFiniteError
from weft.nets import SmallCNN, UNet

pytestmark = pytest.mark.gpu

CUDA = {"device": "cuda", "num_workers": 0, "log_every": 7}


def images() -> tuple[Tensor, Tensor]:
    data = load_digits()
    return torch.tensor(data.images[:640] / 16.0, dtype=torch.float32).unsqueeze(1), torch.tensor(data.target[:640])


def masks() -> tuple[Tensor, Tensor]:
    pixels = functional.interpolate(images()[0][:64], size=(32, 32), mode="bilinear")
    return pixels, (pixels > 0.4).long()


CNN = Component.of(SmallCNN, in_channels=1, out_features=10, channels=[16, 32], dropout=0.2)
U_NET = Component.of(UNet, spatial_dims=2, in_channels=1, out_channels=2, channels=[8, 16], strides=[2])
IMAGES = {"arrays": Component.of(images), "split": {"ratio": [0.8, 0.2]}}
MASKS = {"arrays": Component.of(masks), "split": {"ratio": [0.8, 0.2]}}


def on_cuda(**settings: Any) -> Any:
    dataset = settings.pop("dataset", IMAGES)
    defaults = {"model": CNN, "batch_size": 32, "optimizer": {"AdamW": {"lr": 2e-3}}, "run": CUDA}
    return small_experiment(dataset, **{**defaults, **settings})


@pytest.fixture(autouse=True)
def deterministic() -> Any:
    with reproducible(threads=1, deterministic=True, device=torch.device("cuda")):
        yield


@pytest.mark.parametrize(
    "settings",
    [{}, {"precision": "bf16"}, {"precision": "fp16"}, {"channels_last": True}, {"ema": {"decay": 0.9}},
     {"accumulate": 2}, {"fused": True, "optimizer": {"AdamW": {"lr": 2e-3}}}],
    ids=["fp32", "bf16", "fp16", "channels_last", "ema", "accumulate", "fused"],
)  # fmt: skip
def test_a_run_stopped_inside_an_epoch_resumes_to_the_bit(settings: dict[str, Any]) -> None:
    undisturbed, result = trained(on_cuda(**settings))
    assert result.scores["validation"]["accuracy"] > 0.5
    stopped = build(on_cuda(**settings))
    _interrupt_after(stopped, steps=11)
    resumed = build(on_cuda(**settings))
    resumed.state.load_state_dict(stopped.checkpoints.load_last() or {})
    drive_alone(training(resumed))
    assert same(last_weights(resumed), last_weights(undisturbed))
    assert untimed(resumed) == untimed(undisturbed)


@pytest.mark.parametrize("small", [0, 1 << 30])
def test_a_checkpoint_written_beside_the_training_holds_the_state_of_its_step(tmp_path: Path, small: int) -> None:
    """The copies to pinned memory are queued before the next steps change the weights."""
    settings = {"ema": {"decay": 0.9}, "run": {**CUDA, "checkpoint_every": {"steps": 1}}}
    folders = [CheckpointFolder(tmp_path / name, keep=1000, small=small) for name in ("at once", "beside")]
    for store in (folders[0], BackgroundCheckpoints(folders[1])):
        run = build(on_cuda(**settings))
        run.checkpoints = store
        drive_alone(training(run))
    files = [sorted(folder.folder.glob("last-*")) for folder in folders]
    assert len(files[0]) == len(files[1]) > 20
    for one, other in zip(*files, strict=True):
        expected, found = read_checkpoint(one), read_checkpoint(other)
        assert isinstance(expected, dict)
        assert isinstance(found, dict)
        assert same(expected["model"], found["model"])
        assert same(expected["average"], found["average"])
        for name, optimizer in expected["optimizers"].items():
            torch.testing.assert_close(optimizer["state"], found["optimizers"][name]["state"], rtol=0, atol=0)


def test_the_same_run_twice_is_the_same_to_the_bit() -> None:
    settings = {"dataset": MASKS, "model": U_NET, "task": "segmentation", "metrics": ["dice"], "batch_size": 8}
    first, _ = trained(on_cuda(**settings))
    second, _ = trained(on_cuda(**settings))
    assert same(last_weights(first), last_weights(second))


def test_scores_equal_those_of_a_cpu_up_to_rounding() -> None:
    _, there = trained(on_cuda())
    _, here = trained(on_cuda(run={**CUDA, "device": "cpu"}, model=CNN))
    assert there.scores["validation"]["loss"] == pytest.approx(here.scores["validation"]["loss"], rel=0.2)


def test_losses_are_told_when_they_are_logged() -> None:
    recorder = Recorder()
    trained(on_cuda(epochs=1), (recorder,))
    assert [step.step for step in recorder.steps if step.loss is not None] == [7, 14]


def test_a_loss_that_is_not_finite_is_found_before_it_is_saved() -> None:
    from weft.nets import MLP

    model = Component.of(MLP, in_features=30, out_features=2, hidden=[16])
    run = build(small_experiment({"class": {"train": Component.of(Poisoned)}}, model=model, run=CUDA))
    with pytest.raises(NotFiniteError, match=r"items of the batch: .*\b17\b"):
        drive_alone(training(run))
    assert run.checkpoints.load_last() is None


@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_a_compiled_network_trains(mode: str) -> None:
    _, result = trained(on_cuda(compile=True, compile_mode=mode, epochs=2))
    assert result.scores["validation"]["accuracy"] > 0.3
