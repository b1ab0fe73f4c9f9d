"""Going on from checkpoints: old ones with NumPy's numbers in them, hostile ones, and Weft's own."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch

from tests.interop.scorch.files import more, result, same, train, weights
from weft.errors import CheckpointError
from weft.interop import scorch

OPTIMIZER = "self.optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)"


def old_network() -> torch.nn.Module:
    """What scorch would have trained: a module with the names of the model file's Network."""
    torch.manual_seed(3)
    network = torch.nn.Module()
    network.first, network.last = torch.nn.Linear(4, 8), torch.nn.Linear(8, 3)
    return network


def write_old(path: Path, main: Any, **changes: Any) -> dict[str, torch.Tensor]:
    """A checkpoint as scorch wrote it, scores as NumPy's numbers; returns its weights."""
    network = old_network()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    scores = {"main": main, "accuracy": main, "errors": 1.0 - main}
    content = {
        "epoch": 7, "model_state": network.state_dict(), "optimizer_state": optimizer.state_dict(), "verbosity": -1,
        "info": scores, "metrics": scores, **changes,
    }  # fmt: skip
    torch.save(content, path)
    return network.state_dict()


@pytest.mark.parametrize("kind", [numpy.float64, numpy.float32])
def test_an_old_checkpoint_with_numbers_of_numpy_is_gone_on_from(kind: Any, tmp_path: Path) -> None:
    begun = write_old(tmp_path / "old.pth.tar", kind(0.125))
    with pytest.raises(pickle.UnpicklingError, match="numpy"):  # it does hold what torch refuses by itself
        torch.load(tmp_path / "old.pth.tar", weights_only=True)
    run = train(
        tmp_path, model=more(OPTIMIZER.replace("0.9", "0.0")), checkpoint=tmp_path / "old.pth.tar", epochs=1,
        max_train_iterations=1,
    )  # fmt: skip
    checkpoint = scorch.read_checkpoint(tmp_path / "run_checkpoint.pth.tar")
    assert checkpoint["epoch"] == 8  # --epochs are those beyond the checkpoint's
    assert result(run)["epochs"] == 1
    assert checkpoint["optimizer_state"]["param_groups"][0]["momentum"] == 0.9  # the checkpoint's, not the file's
    assert all((checkpoint["model_state"][name] - begun[name]).abs().max() < 0.5 for name in begun)
    assert not same(checkpoint["model_state"], begun)


def test_files_of_torch_before_zip_and_of_numpy_before_2_are_read(tmp_path: Path) -> None:
    path = tmp_path / "old.pth.tar"
    content = {"epoch": 3, "model_state": old_network().state_dict(), "metrics": {"main": numpy.float64(0.5)}}
    torch.save(content, path, _use_new_zipfile_serialization=False)
    data = path.read_bytes()
    assert b"numpy._core.multiarray" in data
    path.write_bytes(data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))  # protocol 2: a line of text
    found = scorch.read_checkpoint(path)
    assert (found["epoch"], found["metrics"]["main"]) == (3, 0.5)


class Hostile:
    def __reduce__(self) -> Any:
        return os.mkdir, ("owned",)


class Array:
    def __reduce__(self) -> Any:
        return numpy.load, ("somewhere.npy",)


@pytest.mark.parametrize("value", [Hostile(), Array(), numpy.zeros(3), numpy.dtype("O"), {"set": {1, 2}}, object])
def test_a_checkpoint_with_anything_else_is_not_read(
    value: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_old(tmp_path / "old.pth.tar", numpy.float64(0.5), info=value)
    if isinstance(value, dict):  # harmless, and let in by torch itself
        scorch.read_checkpoint(tmp_path / "old.pth.tar")
        return
    with pytest.raises(CheckpointError, match="holds more than weights and numbers"):
        train(tmp_path, checkpoint=tmp_path / "old.pth.tar")
    assert not (tmp_path / "owned").exists()


def test_reading_leaves_torchs_own_list_of_what_is_safe_as_it_was(tmp_path: Path) -> None:
    write_old(tmp_path / "old.pth.tar", numpy.float64(0.5))
    before = set(map(str, torch.serialization.get_safe_globals()))
    scorch.read_checkpoint(tmp_path / "old.pth.tar")
    assert set(map(str, torch.serialization.get_safe_globals())) == before


def test_checkpoints_that_do_not_fit_are_told(tmp_path: Path) -> None:
    path = tmp_path / "old.pth.tar"
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        train(tmp_path, checkpoint=path)
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(CheckpointError, match=r"old\.pth\.tar"):
        train(tmp_path, checkpoint=path)
    torch.save({"epoch": 1}, path)
    with pytest.raises(CheckpointError, match="it has no model_state"):
        train(tmp_path, checkpoint=path)
    write_old(path, numpy.float64(0.5))
    with pytest.raises(CheckpointError, match="does not fit Network"):
        train(tmp_path, checkpoint=path, model_args="'hidden': 5")


@pytest.mark.slow
def test_the_state_of_another_optimizer_is_left_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_old(tmp_path / "old.pth.tar", numpy.float64(0.5))
    adam = more("self.optimizer = torch.optim.Adam(model.parameters(), lr=0.02)")
    run = train(tmp_path, model=adam, checkpoint=tmp_path / "old.pth.tar", epochs=1)
    assert "Failed to load optimizer state, starting to train from scratch" in caplog.text
    assert result(run)["status"] == "finished"
    state = scorch.read_checkpoint(tmp_path / "run_checkpoint.pth.tar")["optimizer_state"]
    assert state["param_groups"][0]["lr"] == 0.02


@pytest.mark.slow
def test_a_best_checkpoint_is_replaced_by_a_better_one_only(tmp_path: Path) -> None:
    """The original forgot what was best and took the first epoch for it; strictly, so does Weft."""
    for name, strict in (("mended", False), ("strict", True)):
        best = tmp_path / f"{name}_checkpoint_best.pth.tar"
        write_old(best, numpy.float64(1.5))  # no accuracy is better
        write_old(tmp_path / "old.pth.tar", numpy.float64(0.0))
        train(tmp_path, checkpoint=tmp_path / "old.pth.tar", out=name, epochs=1, strict=strict)
        assert scorch.read_checkpoint(tmp_path / f"{name}_checkpoint.pth.tar")["epoch"] == 8
        assert scorch.read_checkpoint(best)["epoch"] == (8 if strict else 7)
        assert scorch.read_checkpoint(best)["metrics"]["main"] == pytest.approx(1.5) or strict


@pytest.mark.slow
def test_wefts_own_checkpoints_are_gone_on_from(tmp_path: Path) -> None:
    train(tmp_path, out="first", epochs=2)
    begun = weights(tmp_path, "first")
    train(tmp_path, out="second", epochs=1, checkpoint=tmp_path / "first_checkpoint.pth.tar", max_train_iterations=1)
    after = weights(tmp_path, "second")
    assert all((after[name] - begun[name]).abs().max() < 0.002 for name in begun)  # a step of Adam at 1e-3
    assert not same(after, begun)
