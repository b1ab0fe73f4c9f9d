"""Checkpoints applied to items of any mode, and Weft's own commands on what scorch-train left."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.cli.lab import good, weft
from tests.interop.scorch.files import result, train, weights, write
from weft import actions
from weft.interop import scorch

ITEM = "return [img], [target]"


def flags(folder: Path) -> scorch.Flags:
    return scorch.Flags(
        folder / "model.py", folder / "dataset.py", str(folder), checkpoint=folder / "run_checkpoint_best.pth.tar"
    )


def test_a_checkpoint_is_applied_to_test_items(tmp_path: Path) -> None:
    run = train(tmp_path, test=True)
    found = scorch.infer(flags(tmp_path), "test", tmp_path / "results.pth.tar")
    assert found.scores["main"] == result(run)["scores"]["test"]["main"]
    written = torch.load(tmp_path / "results.pth.tar", weights_only=True)
    assert torch.equal(written["rows"], torch.arange(24))
    assert written["outputs"][0].shape == (24, 3)
    assert written["targets"][0].tolist() == found.targets[0].tolist()


def test_inference_needs_no_targets_and_uses_the_networks_own_method(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mode `inference` is passed on to DataSet, which gives inputs only; some items are None."""
    method = "    def inference(self, input):\n        return [self.forward(input)[0].argmax(dim=1)]\n\n"
    own = {"    def __call__": method + "    def __call__"}
    modes = {
        '["train", "valid", "test"]': '["train", "valid", "inference"]',
        ITEM: "inference = self.mode == 'inference'\n"
        "        return None if inference and index == 2 else ([img], [None if inference else target])",
    }
    train(tmp_path, model=own, dataset=modes, epochs=1)
    monkeypatch.chdir(tmp_path)
    files = ["--model", "model.py", "--dataset", "dataset.py", "-dp", ".", "-c", "run_checkpoint.pth.tar"]
    said = good("scorch", "test", *files, "--mode", "inference", "--out", "found.pth.tar")
    assert said.out == "found.pth.tar\n"  # no scores without targets
    written = torch.load("found.pth.tar", weights_only=True)
    assert written["rows"].tolist() == [row for row in range(24) if row != 2]
    assert written["outputs"][0].shape == (23,)
    assert written["outputs"][0].dtype == torch.int64
    assert written["targets"] == []


def test_a_checkpoint_is_needed(tmp_path: Path) -> None:
    write(tmp_path)
    said = weft("scorch", "test", "--model", tmp_path / "model.py", "--dataset", tmp_path / "dataset.py", "-dp", ".")
    assert said.code == 2
    assert "--checkpoint" in said.err


@pytest.mark.slow
def test_wefts_commands_work_on_a_run_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = train(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    scores = actions.evaluate(run.path, splits=["validation"])
    assert scores["scores"]["validation"]["main"] == result(run)["scores"]["validation"]["main"]
    left = weights(tmp_path, "run")
    (tmp_path / "run_checkpoint.pth.tar").unlink()
    assert actions.reproduce(run.path).weights_identical
    assert not (tmp_path / "run_checkpoint.pth.tar").exists()  # what scorch-train wrote is left alone
    assert left


@pytest.mark.slow
def test_a_run_is_gone_on_with_by_wefts_own_command(tmp_path: Path) -> None:
    """It goes on to write scorch's files."""
    from weft.engine import Epoch, Observer
    from weft.errors import Stopped

    class Stop(Observer):
        def on_epoch(self, epoch: Epoch) -> None:
            if epoch.epoch == 1:
                raise Stopped("enough", "go on")

    write(tmp_path)
    given = scorch.Flags(
        tmp_path / "model.py", tmp_path / "dataset.py", str(tmp_path), epochs=4, progress=False,
        checkpoint_prefix=str(tmp_path / "run_"),
    )  # fmt: skip
    experiment = scorch.as_experiment(given)
    with pytest.raises(Stopped):
        actions.train(experiment, out=tmp_path / "run", observers=[Stop()])
    assert not (tmp_path / "run_checkpoint.pth.tar").exists()
    actions.resume(tmp_path / "run")
    assert scorch.read_checkpoint(tmp_path / "run_checkpoint.pth.tar")["epoch"] == 4


@pytest.mark.gpu
def test_a_gpu_is_used_where_it_is_asked_for(tmp_path: Path) -> None:
    check = {
        "return torch.nn.functional": "assert pred[0].is_cuda and target[0].is_cuda\n        return torch.nn.functional"
    }
    run = train(tmp_path, model=check, use_cuda=True)
    assert result(run)["status"] == "finished"
    assert not next(iter(weights(tmp_path, "run").values())).is_cuda
