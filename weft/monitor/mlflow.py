"""A run in MLflow: its settings as parameters, its scores as metrics, and where its weights and report lie."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from weft.engine.events import Epoch, Observer, RunResult, Start
from weft.errors import Stopped, UsageError
from weft.monitor.background import Background
from weft.monitor.extras import require_extra
from weft.monitor.logfile import words_of
from weft.runs import RunDirectory, flatten, mask, parse_yaml, read_json, write_json

_FILE = "mlflow.json"  # in the run directory: which run of which server it is, so that a resumed run goes on with it
_PATIENCE = 30.0  # seconds that the end of a run waits for the server
_LONGEST_VALUE = 6000  # characters of a parameter that MLflow takes
_MOST_PARAMETERS = 100  # in one call


class MLflow(Observer):
    """Tells an MLflow server, or a local store, of a run: `observers: [MLflow: {experiment: ventricles}]`.

    Parameters are the experiment's settings with dotted names, metrics the numbers of each epoch's row (by step) and
    the final scores (`final.test.accuracy`), tags the places of weights and report with the weights' digest: by
    reference, nothing large is copied. A resumed run goes on with the same MLflow run. The server is spoken to in a
    thread; when it does not answer, the run goes on without.

    Args:
        tracking_uri: the server, or a folder; by default $MLFLOW_TRACKING_URI, else `mlruns` beside the run directory.
            User and password belong into $MLFLOW_TRACKING_USERNAME and $MLFLOW_TRACKING_PASSWORD.
        experiment: name of MLflow's experiment, which groups runs; by default that of Weft's.

    Raises:
        UsageError: mlflow is not installed, or the address holds a password.
    """

    for_study = True

    def __init__(self, tracking_uri: str | None = None, experiment: str | None = None) -> None:
        require_extra("mlflow", "mlflow", "the observer MLflow")
        if tracking_uri is not None and mask(tracking_uri) != tracking_uri:
            raise UsageError(
                "tracking_uri of the observer MLflow holds a password, and is copied into every run",
                "use the environment variables MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD",
            )
        self._uri, self._experiment = tracking_uri, experiment
        self._background: Background | None = None
        self._client: Any = None
        self._run_id = ""
        self._directory: RunDirectory | None = None

    def on_start(self, start: Start) -> None:
        if start.run_path is None:
            raise UsageError("MLflow has no run to tell of: this run has no directory", "leave this observer out")
        self._directory = RunDirectory(start.run_path)
        self._background = Background("telling MLflow")
        self._do(partial(self._begin, self._directory, start))

    def on_epoch(self, epoch: Epoch) -> None:
        row = {name: value for name, value in epoch.row.items() if name not in ("step",)}
        self._do(partial(self._log_metrics, row, epoch.step))

    def on_end(self, result: RunResult) -> None:
        scores = {f"final.{name}": value for name, value in flatten(result.scores)}
        self._do(partial(self._log_metrics, scores, result.steps))
        if result.model_sha256 is not None:
            self._do(partial(self._tag, "weft.model_sha256", result.model_sha256))
        self._end("FINISHED")

    def on_error(self, error: BaseException) -> None:
        stopped = isinstance(error, Stopped | KeyboardInterrupt)
        self._do(partial(self._tag, "weft.error", mask(words_of(error))))
        self._end("KILLED" if stopped else "FAILED")

    def _do(self, work: Callable[[], None]) -> None:
        if self._background is not None:
            self._background.do(work)

    def _end(self, status: str) -> None:
        self._do(partial(self._terminate, status))
        if self._background is not None:
            self._background.close(_PATIENCE)
            self._background = None

    # --- in the thread ---

    def _begin(self, directory: RunDirectory, start: Start) -> None:
        uri = self._uri or os.environ.get("MLFLOW_TRACKING_URI") or str(directory.path.parent / "mlruns")
        if "://" not in uri:
            uri = Path(uri).absolute().as_uri()
        if uri.startswith("file:"):
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # newer versions refuse a folder without it
        from mlflow import MlflowClient

        client = MlflowClient(uri)
        file = directory.path / _FILE
        known = read_json(file) if start.resumed and file.exists() else {}
        if known.get("tracking_uri") == uri:
            client.update_run(known["run_id"], status="RUNNING")
            self._client, self._run_id = client, known["run_id"]
            return
        name = self._experiment or start.name
        found = client.get_experiment_by_name(name)
        identifier = found.experiment_id if found is not None else client.create_experiment(name)
        run = client.create_run(identifier, run_name=directory.path.name, tags=_references(directory))
        self._client, self._run_id = client, run.info.run_id
        write_json(file, {"run_id": self._run_id, "tracking_uri": uri})
        self._log_parameters(directory)

    def _log_parameters(self, directory: RunDirectory) -> None:
        from mlflow.entities import Param

        written = parse_yaml(directory.experiment_file.read_text(encoding="utf-8"))
        pairs = [Param(_key(name), mask(_text(value))[:_LONGEST_VALUE]) for name, value in flatten(written)]
        for first in range(0, len(pairs), _MOST_PARAMETERS):
            self._client.log_batch(self._run_id, params=pairs[first : first + _MOST_PARAMETERS])

    def _log_metrics(self, values: dict[str, Any], step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        numbers = {name: float(value) for name, value in values.items() if isinstance(value, int | float)}
        finite = [Metric(_key(name), value, now, step) for name, value in numbers.items() if math.isfinite(value)]
        self._require_client().log_batch(self._run_id, metrics=finite)

    def _tag(self, name: str, value: str) -> None:
        self._require_client().set_tag(self._run_id, name, value)

    def _terminate(self, status: str) -> None:
        self._require_client().set_terminated(self._run_id, status)

    def _require_client(self) -> Any:
        if self._client is None:
            raise ConnectionError("there is no connection to MLflow")
        return self._client


def _references(directory: RunDirectory) -> dict[str, str]:
    """Where the results lie."""
    places = {"run": directory.path, "weights": directory.weights, "report": directory.report}
    fingerprint = read_json(directory.provenance_file).get("fingerprint", "")
    return {"weft.fingerprint": str(fingerprint), **{f"weft.{name}": str(path) for name, path in places.items()}}


def _key(name: str) -> str:
    """A name as MLflow allows it."""
    return "".join(letter if letter.isalnum() or letter in "_-. /" else "_" for letter in name)[:250]


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)
