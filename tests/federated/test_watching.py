"""What `run:` names watches the study once, or each site."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from tests.federated.lab import SIZES, rows_of, simulate_and_die, study
from tests.monitor.helpers import web_server
from weft.engine import Observer
from weft.engine.events import Epoch, RunResult, Start
from weft.errors import ConfigError, UsageError
from weft.federated.study import simulate

pytest.importorskip("sklearn")


def read_points(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """The points of TensorBoard's files by tag, as TensorBoard shows them: later files forget."""
    from tensorboardX.proto import event_pb2

    points: dict[str, list[tuple[int, float]]] = {}
    for file in sorted(folder.glob("events.*")):
        data = file.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            event = event_pb2.Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]
            if event.HasField("session_log"):
                points = {tag: [one for one in found if one[0] < event.step] for tag, found in points.items()}
            for value in event.summary.value:
                points.setdefault(value.tag, []).append((event.step, value.simple_value))
    return points


class Told(Observer):
    """Writes down what a study is told.

    Args:
        file: where.
    """

    for_study = True

    def __init__(self, file: str) -> None:
        self.file = Path(file)

    def _note(self, **said: Any) -> None:
        with self.file.open("a") as handle:
            handle.write(json.dumps(said) + "\n")

    def on_start(self, start: Start) -> None:
        described = start.run_path is not None and (start.run_path / "provenance.json").exists()
        self._note(start=str(start.run_path), name=start.name, described=described)

    def on_epoch(self, epoch: Epoch) -> None:
        self._note(accuracy=epoch.row["validation_accuracy"])

    def on_end(self, result: RunResult) -> None:
        self._note(end=result.scores)

    def facts(self) -> dict[str, Any]:
        return {"told": True}


def test_the_study_is_watched_once_with_pooled_values(tmp_path: Path) -> None:
    told = {"tests.federated.test_watching.Told": {"file": str(tmp_path / "told.jsonl")}}
    done = simulate(study(run__observers=[told], run__debug=True), out=tmp_path / "study")
    first, *epochs, last = [json.loads(line) for line in (tmp_path / "told.jsonl").read_text().splitlines()]
    assert first == {"start": str(done.path), "name": "tumours", "described": True}
    history = rows_of(done.path / "history.csv")
    assert [each["accuracy"] for each in epochs] == [float(row["validation_accuracy"]) for row in history]
    assert last == {"end": done.scores}
    assert done.result["told"] is True
    assert "told" not in json.loads((done.path / "sites" / "north" / "result.json").read_text())
    points = read_points(done.path / "tensorboard")
    assert [value for _, value in points["validation/accuracy"]] == pytest.approx(
        [float(row["validation_accuracy"]) for row in history]
    )
    assert "train/loss" not in points  # steps have losses of a site's own
    for name in SIZES:
        steps = rows_of(done.path / "sites" / name / "steps.csv")
        losses = [value for _, value in read_points(done.path / "sites" / name / "tensorboard")["train/loss"]]
        assert losses == pytest.approx([float(row["loss"]) for row in steps if row["loss"]])
        assert f"debug: site {name}, step 1" in (done.path / "log.txt").read_text()


@pytest.mark.slow
def test_points_of_a_killed_study_are_not_doubled(tmp_path: Path) -> None:
    simulate_and_die(study(), tmp_path / "study", "south", 2)
    done = simulate(tmp_path / "study", ["run.observers=[]"], resume=True)
    found = read_points(done.path / "tensorboard")["validation/accuracy"]
    assert [step for step, _ in found] == [int(row["step"]) for row in rows_of(done.path / "history.csv")]


def test_what_cannot_watch_is_told_before_anything_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("apprise")
    monkeypatch.delenv("WEFT_NOTIFY", raising=False)
    with pytest.raises(UsageError, match="WEFT_NOTIFY"):
        simulate(study(run__notify={}), out=tmp_path / "study")
    with pytest.raises(ConfigError, match="not started again by itself"):
        simulate(study(run__restarts=2), out=tmp_path / "study")
    assert not (tmp_path / "study").exists()


@pytest.mark.slow
def test_messages_are_of_the_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("apprise")
    received: list[dict[str, Any]] = []
    with web_server(received) as port:
        monkeypatch.setenv("WEFT_NOTIFY", f"json://127.0.0.1:{port}/hook")
        done = simulate(study(run__notify={}, training__epochs=1), out=tmp_path / "study")
    assert [message["title"] for message in received] == ["tumours has started", "tumours is finished"]
    assert f"{done.scores['validation']['accuracy']:.4g}" in received[-1]["message"]
    assert str(done.path) in received[-1]["message"]


@pytest.mark.slow
def test_emissions_and_mlflow_are_of_the_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("codecarbon")
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    settings = {"run__carbon": {"country": "DEU"}, "run__observers": ["MLflow"]}
    done = simulate(study(**settings), out=tmp_path / "study")
    assert done.result["carbon"]["kg_co2eq"] > 0
    assert json.loads((done.path / "carbon.json").read_text()) == done.result["carbon"]
    store = mlflow.MlflowClient((tmp_path / "mlruns").as_uri())
    (run,) = store.search_runs([store.get_experiment_by_name("tumours").experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.tags["weft.fingerprint"] == done.result["fingerprint"]
    assert run.data.metrics["final.test.accuracy"] == pytest.approx(done.scores["test"]["accuracy"])
    assert not list(done.path.glob("sites/**/mlruns"))


@pytest.mark.slow
def test_who_watches_through_a_site_that_left_is_told_the_end(tmp_path: Path) -> None:
    told = {"tests.federated.test_watching.Told": {"file": str(tmp_path / "told.jsonl")}}
    leaves = {"events": [{"event": "leaves", "site": "north", "step": 3}]}
    done = simulate(study(run__observers=[told]), out=tmp_path / "study", scenario=leaves)
    assert done.result["away"] == ["north"]
    assert done.result["told"] is True
    said = [json.loads(line) for line in (tmp_path / "told.jsonl").read_text().splitlines()]
    assert said[-1] == {"end": done.scores}


@pytest.mark.parametrize(
    "events",
    [
        [{"event": "leaves", "site": "north", "step": 10}],
        pytest.param([{"event": "leaves", "site": "north", "step": 3, "returns": 11}], marks=pytest.mark.slow),
        pytest.param(  # the one that took its place leaves, too, when it is back
            [
                {"event": "leaves", "site": "north", "step": 3, "exchange": 2, "returns": 6},
                {"event": "leaves", "site": "south", "step": 12},
            ],
            marks=pytest.mark.slow,
        ),
    ],
)
def test_another_site_takes_the_place_of_the_one_that_left(events: list[dict[str, Any]], tmp_path: Path) -> None:
    told = {"tests.federated.test_watching.Told": {"file": str(tmp_path / "told.jsonl")}}
    done = simulate(study(run__observers=[told]), out=tmp_path / "study", scenario={"events": events})
    site = next(name for name in ("north", "south", "west") if name not in done.result["away"])
    history = rows_of(done.path / "history.csv")
    assert history == rows_of(done.path / "sites" / site / "history.csv")
    assert len(history) == done.result["epochs"] == 3
    said = [json.loads(line) for line in (tmp_path / "told.jsonl").read_text().splitlines()]
    assert [next(iter(one)) for one in said] == ["start", *["accuracy"] * 3, "end"]
    points = read_points(done.path / "tensorboard")["validation/accuracy"]
    assert [step for step, _ in points] == [int(row["step"]) for row in history]


class SeesHistory(Observer):
    """Writes down how much of a study's history there was after each of its epochs.

    Args:
        file: where.
    """

    for_study = True

    def __init__(self, file: str) -> None:
        self.file = Path(file)
        self.history = Path()

    def on_start(self, start: Start) -> None:
        assert start.run_path is not None
        self.history = start.run_path / "history.csv"

    def on_epoch(self, epoch: Epoch) -> None:
        with self.file.open("a") as handle:
            handle.write(f"{len(rows_of(self.history))}\n")


@pytest.mark.slow
def test_a_study_that_goes_on_without_its_first_site_is_watched(tmp_path: Path) -> None:
    away = {"event": "leaves", "site": "north", "step": 5}
    simulate_and_die(study(), tmp_path / "study", "south", 2, scenario={"events": [away]})
    seen = tmp_path / "seen"
    watching = json.dumps([{"tests.federated.test_watching.SeesHistory": {"file": str(seen)}}])
    done = simulate(tmp_path / "study", [f"run.observers={watching}"], resume=True)
    assert done.result["away"] == ["north"]
    assert seen.read_text().split() == ["2", "3"]  # south alone had saved the end of the second epoch
    assert len(rows_of(done.path / "history.csv")) == 3
