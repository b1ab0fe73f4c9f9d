"""MLflow is told of a run: parameters, metrics per epoch, final scores, where weights and report lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import weft
from tests.monitor.helpers import small_experiment
from weft.engine import Epoch, Observer
from weft.errors import Stopped, UsageError

mlflow = pytest.importorskip("mlflow")


class StopsAfterTheFirstEpoch(Observer):
    """As a signal would."""

    def on_epoch(self, epoch: Epoch) -> None:
        raise Stopped("stopped for a test")


def client(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    return mlflow.MlflowClient((folder / "mlruns").as_uri())


def only_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    store = client(folder, monkeypatch)
    (run,) = store.search_runs([store.get_experiment_by_name("small").experiment_id])
    return store, run


def test_a_run_is_told_with_parameters_metrics_and_references(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = weft.train(small_experiment(tmp_path, observers=["MLflow"]), out=tmp_path / "run")
    store, told = only_run(tmp_path, monkeypatch)
    assert told.info.status == "FINISHED"
    assert told.data.params["training.epochs"] == "2"
    assert told.data.params["model.MLP.in_features"] == "4"
    losses = store.get_metric_history(told.info.run_id, "train_loss")
    assert len(losses) == 2
    assert sorted(metric.step for metric in losses) == [3, 6]
    assert told.data.metrics["final.test.accuracy"] == pytest.approx(run.scores["test"]["accuracy"])
    assert told.data.tags["weft.weights"] == str(run.path / "model.safetensors")
    assert told.data.tags["weft.report"] == str(run.path / "report.html")
    assert told.data.tags["weft.model_sha256"] == run.result["model_sha256"]
    assert told.data.tags["weft.fingerprint"] == run.result["fingerprint"]


def test_a_resumed_run_goes_on_with_the_same_mlflow_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = small_experiment(tmp_path, observers=["MLflow"])
    with pytest.raises(Stopped):
        weft.train(experiment, out=tmp_path / "run", observers=[StopsAfterTheFirstEpoch()])
    _, stopped = only_run(tmp_path, monkeypatch)
    assert stopped.info.status == "KILLED"
    weft.resume(tmp_path / "run")
    _, told = only_run(tmp_path, monkeypatch)
    assert told.info.run_id == stopped.info.run_id
    assert told.info.status == "FINISHED"


def test_a_server_that_is_away_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    observers = [{"MLflow": {"tracking_uri": "http://127.0.0.1:1"}}]
    run = weft.train(small_experiment(tmp_path, observers=observers), out=tmp_path / "run")
    assert run.result["status"] == "finished"
    assert (run.path / "log.txt").read_text().count("telling MLflow failed") == 1


def test_a_password_in_the_address_is_refused(tmp_path: Path) -> None:
    observers = [{"MLflow": {"tracking_uri": "http://me:secret@127.0.0.1:1"}}]
    with pytest.raises(UsageError, match="password") as error:
        weft.train(small_experiment(tmp_path, observers=observers), out=tmp_path / "run")
    assert "secret" not in str(error.value)
