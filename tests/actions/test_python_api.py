"""Weft from Python: dicts, experiments with classes, own observers, losses and metrics."""

from __future__ import annotations

import copy
import inspect
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.datasets import load_breast_cancer
from torch import Tensor, nn

import weft
from weft import Experiment
from weft.actions import Comparison, TrainedRun
from weft.config import Component, DatasetConfig, TrainingConfig
from weft.engine import Epoch, Observer, RunResult, Start, Step
from weft.errors import ConfigError, RunDirectoryError, UsageError, WeftError
from weft.tasks import Classification


def measurements(rows: int = 90) -> tuple[Tensor, Tensor]:
    """Some rows of the breast cancer table."""
    data = load_breast_cancer()
    return torch.tensor(data.data[:rows], dtype=torch.float32), torch.tensor(data.target[:rows])


class Net(nn.Module):
    """A network of the user's own."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(30, width), nn.ReLU(), nn.Dropout(0.2), nn.Linear(width, 2))

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.layers(inputs)
        return outputs


class Doubting(Classification):
    """A task of the user's own: a loss that punishes certainty."""

    def loss_of(self, outputs: Tensor, targets: Any) -> Tensor:
        return super().loss_of(outputs, targets) + 0.1 * outputs.square().mean()


def smooth(outputs: Tensor, targets: Tensor) -> Tensor:
    """A loss of the user's own."""
    return nn.functional.cross_entropy(outputs, targets, label_smoothing=0.1)


def hits(outputs: Tensor, targets: Tensor) -> Tensor:
    """A score of the user's own, one value per item."""
    return (outputs.argmax(1) == targets).float()


AS_DICT: dict[str, Any] = {
    "name": "from python",
    "dataset": {"arrays": measurements, "split": {"ratio": [0.6, 0.2, 0.2]}, "standardize": True},
    "model": Component.of(Net, width=6),
    "training": {
        "task": "classification",
        "epochs": 2,
        "batch_size": 16,
        "optimizer": Component.of(torch.optim.AdamW, lr=0.01),
        "metrics": ["accuracy", hits],
    },
    "run": {"device": "cpu", "num_workers": 0, "threads": 1, "progress": False, "tensorboard": False},
}


def experiment(**training: Any) -> dict[str, Any]:
    """The experiment with other settings of training."""
    changed = copy.copy(AS_DICT)
    changed["training"] = {**AS_DICT["training"], **training}
    return changed


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    """A run of the experiment as a dict."""
    return weft.train(AS_DICT, out=tmp_path_factory.mktemp("trained") / "run")


def test_train_gives_the_directory_and_the_result(trained: TrainedRun) -> None:
    assert isinstance(trained, TrainedRun)
    assert trained.result == json.loads((trained.path / "result.json").read_text())
    assert trained.result["status"] == "finished"
    assert trained.scores == trained.result["scores"]
    assert trained.scores["test"]["hits"] == trained.scores["test"]["accuracy"]


def test_a_dict_and_an_experiment_with_classes_are_the_same(trained: TrainedRun, tmp_path: Path) -> None:
    made = Experiment(
        name="another name",
        dataset=DatasetConfig(arrays=measurements, split={"ratio": [0.6, 0.2, 0.2]}, standardize=True),
        model=Component.of(Net, width=6),
        training=TrainingConfig(**AS_DICT["training"]),
        run=AS_DICT["run"],
    )
    again = weft.train(made, out=tmp_path / "run")
    assert again.result["model_sha256"] == trained.result["model_sha256"]
    assert again.result["fingerprint"] == trained.result["fingerprint"]


def test_the_caller_s_dict_and_settings_of_torch_are_left_alone(tmp_path: Path) -> None:
    given = experiment()
    before = copy.deepcopy({key: value for key, value in given.items() if key != "model"})
    threads = torch.get_num_threads()
    weft.train(given, ["training.epochs=1", "run.threads=1"], out=tmp_path / "run")
    assert {key: value for key, value in given.items() if key != "model"} == before
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.get_num_threads() == threads


def test_evaluate_predict_and_reproduce_take_the_run(trained: TrainedRun, tmp_path: Path) -> None:
    evaluated = weft.evaluate(trained.path, splits=["test"])
    assert evaluated["scores"] == {"test": trained.scores["test"]}
    (table,) = weft.predict(trained.path, out=tmp_path / "predictions")
    assert table == tmp_path / "predictions" / "test.csv"
    comparison = weft.reproduce(trained.path, out=tmp_path / "again")
    assert isinstance(comparison, Comparison)
    assert comparison.identical


def test_evaluate_scores_weights_of_any_origin(trained: TrainedRun, tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.save(Net(6).state_dict(), tmp_path / "fresh.pt")
    fresh = weft.evaluate(AS_DICT, weights=tmp_path / "fresh.pt")
    assert fresh["scores"].keys() == trained.scores.keys()
    assert fresh["model_sha256"] != trained.result["model_sha256"]


def test_a_loss_of_the_user_s_own(trained: TrainedRun, tmp_path: Path) -> None:
    smoothed = weft.train(experiment(loss=smooth), out=tmp_path / "run")
    assert smoothed.result["model_sha256"] != trained.result["model_sha256"]
    assert weft.evaluate(smoothed.path)["scores"] == smoothed.scores


def test_a_task_of_the_user_s_own(trained: TrainedRun, tmp_path: Path) -> None:
    doubting = weft.train(experiment(task=Doubting), out=tmp_path / "run")
    assert doubting.scores["test"]["loss"] != trained.scores["test"]["loss"]
    assert weft.evaluate(doubting.path)["scores"] == doubting.scores


class Notebook(Observer):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def on_start(self, start: Start) -> None:
        self.told.append(f"start {start.steps_per_epoch}")

    def on_step(self, step: Step) -> None:
        self.told.append(f"step {step.step}")

    def on_epoch(self, epoch: Epoch) -> None:
        self.told.append(f"epoch {epoch.epoch} {sorted(epoch.row)[0]}")

    def on_end(self, result: RunResult) -> None:
        self.told.append(result.status)

    def on_error(self, error: BaseException) -> None:
        self.told.append(type(error).__name__)


def test_an_observer_of_the_user_s_own_is_told_everything(tmp_path: Path) -> None:
    notebook = Notebook()
    weft.train(AS_DICT, ["training.epochs=1"], out=tmp_path / "run", observers=[notebook])
    steps = [f"step {number}" for number in (1, 2, 3, 4)]
    assert notebook.told == ["start 4", *steps, "epoch 0 epoch", "finished"]


def test_an_observer_hears_of_errors(tmp_path: Path) -> None:
    notebook = Notebook()
    with pytest.raises(WeftError):
        weft.train(experiment(loss=hits), out=tmp_path / "run", observers=[notebook])
    assert notebook.told == ["DataError"]


def test_an_observer_that_fails_is_left_out_and_the_run_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Clumsy(Observer):
        def on_step(self, step: Step) -> None:
            raise ZeroDivisionError

    run = weft.train(AS_DICT, out=tmp_path / "run", observers=[Clumsy()])
    assert run.result["status"] == "finished"
    assert "observer Clumsy failed in on_step" in caplog.text
    assert "observer Clumsy failed in on_step" in (run.path / "log.txt").read_text()


@pytest.mark.parametrize("wrong", [Notebook, print, object()])
def test_what_is_no_observer_is_refused(wrong: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not an observer"):
        weft.train(AS_DICT, out=tmp_path / "run", observers=[wrong])
    assert not (tmp_path / "run").exists()


def test_a_run_goes_on_from_python(trained: TrainedRun, tmp_path: Path) -> None:
    class Stopper(Observer):
        def on_step(self, step: Step) -> None:
            if step.step == 3:
                raise weft.errors.Stopped("enough for today", "")

    with pytest.raises(weft.errors.Stopped):
        weft.train(AS_DICT, ["run.checkpoint_every={steps: 2}"], out=tmp_path / "run", observers=[Stopper()])
    resumed = weft.resume(tmp_path / "run")
    assert resumed.result["model_sha256"] == trained.result["model_sha256"]
    assert weft.train(AS_DICT, out=tmp_path / "run", resume=True) == resumed
    with pytest.raises(RunDirectoryError, match="already holds a run"):
        weft.train(AS_DICT, out=tmp_path / "run")
    with pytest.raises(UsageError, match="which run"):
        weft.train(AS_DICT, resume=True)


def test_mistakes_are_told_all_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        weft.train({**AS_DICT, "seed": "x", "model": {"Nett": {}}})
    assert len(caught.value.problems) == 2


def test_what_cannot_be_written_down_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be"):
        weft.train(experiment(loss=lambda outputs, targets: outputs.mean()), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_everything_public_is_documented() -> None:
    for name in weft.__all__:
        if name == "__version__":
            continue
        described = inspect.getdoc(getattr(weft, name))
        assert described, name
        parameters = [] if name == "Experiment" else inspect.signature(getattr(weft, name)).parameters
        for parameter in parameters:
            assert parameter in described, f"{name}({parameter})"
