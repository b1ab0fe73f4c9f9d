"""Studies that only test: given weights, pooled scores, nothing trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.engine.studies import DoubleNet
from tests.federated.lab import SIZES, rows_of, study
from weft.actions import TrainedRun
from weft.engine.weights import save_weights
from weft.errors import ConfigError, DataError, RunDirectoryError, UsageError
from weft.federated.evaluating import evaluate
from weft.federated.study import simulate

pytest.importorskip("sklearn")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    """A study with scaled inputs."""
    return simulate(study(dataset__standardize=True), out=tmp_path_factory.mktemp("study") / "study")


def _tested_only() -> dict[str, Any]:
    """Sites that have nothing to train on."""
    parts = {"north": (0, 60), "south": (60, 90)}
    sites = {
        name: {"class": {"test": {"tests.federated.lab.Rows": {"start": start, "stop": stop}}}}
        for name, (start, stop) in parts.items()
    }
    written = study(sites)
    written["dataset"] = {}
    return written


def test_a_study_is_tested_to_the_scores_that_it_ended_with(trained: TrainedRun, tmp_path: Path) -> None:
    done = evaluate(trained.path, out=tmp_path / "test")
    assert done.scores == trained.scores
    assert done.result["model_sha256"] == trained.result["model_sha256"]
    assert done.result["bounds"] == trained.result["bounds"]
    for name in SIZES:
        written = [json.loads((each.path / "result.json").read_text())["sites"][name] for each in (done, trained)]
        assert written[0]["scores"] == written[1]["scores"]
        table = Path("sites", name, "scores", "test.csv")
        assert rows_of(done.path / table) == rows_of(trained.path / table)
    assert not list(done.path.glob("sites/*/checkpoints/*"))


def test_weights_are_tested_where_nobody_has_training_data(tmp_path: Path) -> None:
    model = DoubleNet()
    save_weights(model.state_dict(), tmp_path / "w.safetensors")
    done = evaluate(_tested_only(), weights=tmp_path / "w.safetensors", out=tmp_path / "test")
    assert done.result["sites"]["north"]["items"] == {"test": 60}
    from tests.engine.studies import share

    inputs, labels = share(0, 90)
    right = (model(torch.tensor(inputs)).argmax(1).numpy() == labels).tolist()
    assert done.scores["test"]["accuracy"] == sum(right) / 90
    assert done.result["sites"]["south"]["scores"]["test"]["accuracy"] == sum(right[60:]) / 30
    stored = json.loads((done.path / "scores" / "test.json").read_text())
    assert stored["scores"] == done.scores["test"]
    assert json.loads((done.path / "result.json").read_text())["scores"] == done.scores
    again = evaluate(
        _tested_only() | {"model": {"component": _tested_only()["model"], "weights": str(tmp_path / "w.safetensors")}},
        out=tmp_path / "again",
    )
    assert again.scores == done.scores


@pytest.mark.slow
def test_sites_that_ended_with_models_of_their_own_are_tested_with_these(tmp_path: Path) -> None:
    model = {"tests.engine.studies.DoubleNet": {"batch_norm": True}}
    trained = simulate(study(model=model, federation__strategy="FedBN", training__epochs=1), out=tmp_path / "study")
    assert trained.result["model_sha256"] is None
    done = evaluate(trained.path, out=tmp_path / "test")
    assert done.scores == trained.scores
    assert done.result["model_sha256"] is None
    for name in SIZES:
        assert done.result["sites"][name]["model_sha256"] == trained.result["sites"][name]["model_sha256"]
    assert not (done.path / "model.safetensors").exists()


def test_what_a_test_lacks_is_told_and_nothing_is_left(trained: TrainedRun, tmp_path: Path) -> None:
    out = tmp_path / "test"
    with pytest.raises(UsageError, match="names no weights to test") as caught:
        evaluate(_tested_only(), out=out)
    assert "--weights" in caught.value.hint
    save_weights(torch.nn.Linear(2, 2).state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(ConfigError, match="do not fit DoubleNet"):
        evaluate(_tested_only(), weights=tmp_path / "other.safetensors", out=out)
    with pytest.raises(UsageError, match="no site has a split 'validation'"):
        evaluate(_tested_only(), weights=trained.path / "model.safetensors", splits=["validation"], out=out)
    scaled = _tested_only() | {"dataset": {"standardize": True}}
    with pytest.raises(DataError, match="mean and scale") as told:
        evaluate(scaled, weights=trained.path / "model.safetensors", out=out)
    assert "weft federate evaluate STUDY" in told.value.hint
    with pytest.raises(UsageError, match="is no study"):
        evaluate(trained.path / "sites" / "north", out=out)
    assert not out.exists()


def test_a_study_without_training_data_is_told_how_to_test(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no site has anything to train on") as caught:
        simulate(_tested_only(), out=tmp_path / "study")
    assert "weft federate evaluate" in caught.value.hint


def test_a_test_is_not_gone_on_with_as_a_study(trained: TrainedRun, tmp_path: Path) -> None:
    done = evaluate(trained.path, splits=["test"], out=tmp_path / "test")
    assert done.scores.keys() == {"test"}
    assert simulate(done.path, resume=True).result == json.loads((done.path / "result.json").read_text())
    with pytest.raises(UsageError, match="a test of weights"):
        simulate(done.path, resume=True, compare=True)
    with pytest.raises(RunDirectoryError, match="already holds a run"):
        evaluate(trained.path, out=done.path)
