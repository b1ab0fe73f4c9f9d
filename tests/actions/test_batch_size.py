"""`batch_size: auto` and `effective_batch_size`: what fits is found, kept with the run, and changes no result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.data.helpers import global_states
from tests.engine.runs import build, last_weights, rows, small_experiment, trained
from weft.actions import batch_size as room
from weft.actions import check, profile, resume, show, train
from weft.actions.batch_size import candidates, find_batch_size, settle
from weft.actions.opening import open_experiment_data
from weft.config import Component, Experiment, fingerprint, load_experiment
from weft.errors import ConfigError
from weft.nets import MLP, UNet
from weft.runs import RunDirectory

MIB = 2**20


def pictures(count: int = 32) -> tuple[Tensor, Tensor]:
    """Noise of 64 x 64 points, and labels for each point."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(count, 1, 64, 64, generator=generator)
    return images, (images > 0).long()


class Normalised(nn.Module):
    """A network that needs two items in a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(30, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits [n, 2]."""
        result: Tensor = self.layers(inputs)
        return result


def segmentation(**changes: Any) -> Experiment:
    dataset = {"arrays": Component.of(pictures), "split": {"ratio": [0.75, 0.25]}}
    model = Component.of(UNet, in_channels=1, out_channels=2, channels=[8, 16])
    training = {"batch_size": "auto", "task": "segmentation", "metrics": ["dice"], "epochs": 1}
    return small_experiment(dataset, model=model, **{**training, **changes})


def plain(**changes: Any) -> Experiment:
    model = Component.of(MLP, in_features=30, out_features=2, hidden=[8])
    return small_experiment(**{"model": model, "batch_size": "auto", **changes})


@given(items=st.integers(1, 500), effective=st.none() | st.integers(1, 500))
def test_sizes_that_are_tried(items: int, effective: int | None) -> None:
    sizes = candidates(items, effective)
    assert sizes[0] == 1
    assert sizes == sorted(set(sizes))
    assert sizes[-1] <= items
    if effective is not None:
        assert all(effective % size == 0 for size in sizes)
        assert max(size for size in range(1, min(items, effective) + 1) if effective % size == 0) == sizes[-1]
    else:
        assert 2 * sizes[-1] > items


@pytest.mark.slow
def test_the_largest_batch_within_the_limit_is_found_and_no_larger_one_is_tried() -> None:
    experiment = segmentation()
    data = open_experiment_data(experiment)
    before = global_states()
    free = find_batch_size(experiment, data)
    assert free.batch_size == 24, free
    assert "largest there can be" in free.reason
    tight = find_batch_size(experiment, data, limit=free.needed // 3)
    assert 2 <= tight.batch_size <= 12, (free, tight)
    assert tight.needed <= free.needed // 3
    assert "at hand" in tight.reason
    assert global_states() == before
    several = find_batch_size(experiment, data, limit=free.needed // 3, processes=2)
    assert several.batch_size > tight.batch_size  # each holds half of it


def test_not_even_one_item_fits() -> None:
    experiment = segmentation()
    with pytest.raises(ConfigError, match="a training step on 1 item needs more memory than there is: 1.0 KiB") as told:
        find_batch_size(experiment, open_experiment_data(experiment), limit=1024)
    assert told.value.problems[0].path == ("training", "batch_size")
    assert "activation_checkpointing" in told.value.problems[0].hint


def test_a_network_that_normalises_over_batches_is_not_left_with_one_item() -> None:
    dataset = {"arrays": Component.of(rows, count=66), "split": {"ratio": [0.5, 0.5]}}  # 33 = 2**5 + 1
    settings: dict[str, Any] = {"model": Component.of(Normalised), "batch_size": "auto"}
    found = settle(small_experiment(dataset, **settings)).training
    assert found.batch_size == 24
    assert settle(small_experiment(dataset, **settings, drop_last=True)).training.batch_size == 32
    with pytest.raises(ConfigError, match="every batch size leaves one item"):
        settle(small_experiment(dataset, **settings, effective_batch_size=32))


def test_accumulated_batches_train_like_the_undivided_one() -> None:
    """Also where the last step of an epoch has fewer items."""
    whole = trained(plain(batch_size=32))[0]
    for size in (1, 8, 16):
        experiment = plain(batch_size=size, effective_batch_size=32)
        assert experiment.training.accumulate == 32 // size
        divided = trained(experiment)[0]
        assert divided.state.position.step == whole.state.position.step
        for name, tensor in last_weights(whole).items():
            assert torch.allclose(last_weights(divided)[name], tensor, rtol=0, atol=2e-6)


def test_a_run_keeps_the_number_and_goes_on_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def experiment() -> Experiment:
        return plain(effective_batch_size=64, run={"progress": False, "tensorboard": False})

    first = train(experiment(), out=tmp_path / "run")
    directory = RunDirectory.open(first.path)
    stored = load_experiment(directory.experiment_file).training
    assert (stored.batch_size, stored.accumulate, stored.effective_batch_size) == (64, 1, 64)
    taken = directory.read_json(directory.provenance_file)["fingerprint"]

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("the size is known")

    monkeypatch.setattr(room, "find_batch_size", never)
    directory.result_file.unlink()  # as if it had been killed at the end
    assert resume(first.path).result["model_sha256"] == first.result["model_sha256"]
    directory.result_file.unlink()
    again = train(experiment(), out=first.path, resume=True)
    assert again.result["model_sha256"] == first.result["model_sha256"]
    written = plain(batch_size=64)
    data = directory.read_json(directory.provenance_file)["data"]["digest"]
    assert fingerprint(written, data) == taken  # what is computed counts, not how it was written


@pytest.mark.slow
def test_what_does_not_train_knows_auto() -> None:
    experiment = plain()
    with pytest.raises(ConfigError, match="found when training begins"):
        fingerprint(experiment)
    assert show(experiment).fingerprint is None
    assert check(experiment).ok
    assert profile(experiment, steps=2).batch_size == 96
    with pytest.raises(ConfigError, match="found when training begins"):
        build(experiment)
