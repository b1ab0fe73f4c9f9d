"""A run as an object, as a notebook uses it: history, curves, network, predictions; now and later."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import torch

import weft
from tests.monitor.helpers import small_experiment
from weft.actions import TrainedRun
from weft.errors import RunDirectoryError, UsageError


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    folder = tmp_path_factory.mktemp("trained")
    return weft.train(small_experiment(folder), out=folder / "run")


def test_the_history_has_a_row_per_epoch(run: TrainedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    pandas = pytest.importorskip("pandas")
    history = run.history
    assert isinstance(history, pandas.DataFrame)
    assert len(history) == 2
    assert history["train_loss"].notna().all()
    monkeypatch.setitem(sys.modules, "pandas", None)
    rows = run.history
    assert [row["epoch"] for row in rows] == history["epoch"].tolist()


def test_the_network_holds_the_weights_that_were_scored(run: TrainedRun) -> None:
    state = torch.get_rng_state()
    model = run.model
    assert torch.equal(torch.get_rng_state(), state)
    assert not model.training
    rows = run.predict("test", out=run.path.parent / "predicted").to_dict("records")
    assert len(rows) == 12
    experiment = run.experiment
    assert experiment.training.epochs == 2
    again = weft.open(run.path)
    assert again.scores == run.scores
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.model.state_dict()[name])


def test_curves_are_images_that_stand_alone(run: TrainedRun, tmp_path: Path) -> None:
    drawn = run.plot()
    files = drawn.save(tmp_path)
    assert "loss.svg" in [file.name for file in files]
    for file in files:
        root = ElementTree.parse(file).getroot()
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert "var(--s0)" in file.read_text()
        assert "--s0:" in file.read_text()
    shown = drawn._repr_html_()
    assert shown.count("<img alt=") == len(drawn.svgs)
    assert 'alt="Loss. training:' in shown


def test_a_run_shows_its_scores_in_a_notebook(run: TrainedRun) -> None:
    shown = run._repr_html_()
    assert "small" in shown
    assert "Accuracy" in shown
    assert "report.html" in shown
    assert "<script" not in shown


def test_folds_are_runs_of_their_own(tmp_path: Path) -> None:
    experiment = small_experiment(tmp_path)
    experiment["dataset"]["split"] = {"folds": 2}
    experiment["training"]["epochs"] = 1
    weft.train(experiment, out=tmp_path / "folds")
    run = weft.open(tmp_path / "folds")
    assert [len(fold.history) for fold in run.folds] == [1, 1]
    assert run.result
    with pytest.raises(UsageError, match=r"holds folds"):
        run.plot()
    assert "<div" in run._repr_html_()


def test_a_folder_without_a_run_is_told(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError):
        weft.open(tmp_path)
