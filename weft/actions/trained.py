"""A run as an object: where it lies, what came out, its history, curves, network and predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import nn

from weft.actions.opening import open_run
from weft.config import Experiment
from weft.engine.network import build_model, pick_device
from weft.engine.seeding import outer_randomness_kept
from weft.engine.weights import load_weights
from weft.errors import UsageError
from weft.report import Drawings, drawings, overview
from weft.runs import Row, RunDirectory, read_rows, resume_command


@dataclass(frozen=True, slots=True)
class TrainedRun:
    """A run that was trained. A notebook shows it with its scores.

    Args:
        path: its directory.
        result: what `result.json` says; for k folds the summary over them.
    """

    path: Path
    result: dict[str, Any]

    @property
    def scores(self) -> dict[str, dict[str, float]]:
        """Split to score name to value."""
        scores: dict[str, dict[str, float]] = self.result.get("scores", {})
        return scores

    @property
    def history(self) -> Any:
        """A row per epoch: a pandas DataFrame where pandas is installed, else a list of dicts.

        Raises:
            UsageError: these are folds, each of which has a history of its own.
        """
        return _as_table(read_rows(self._ordinary().history_file))

    @property
    def folds(self) -> list[TrainedRun]:
        """The folds of a cross-validation, in order; none for an ordinary run."""
        return [open(fold) for fold in RunDirectory(self.path).folds()]

    @property
    def experiment(self) -> Experiment:
        """The experiment as it was trained, with all defaults."""
        return open_run(self._ordinary().path).experiment

    @property
    def model(self) -> nn.Module:
        """The network with the weights that were scored, on the CPU and in evaluation mode; a new object every time.

        Raises:
            UsageError: the run did not finish, or these are folds.
        """
        directory, experiment = self._ordinary(), self.experiment
        if not directory.weights.exists():
            raise UsageError(f"{self.path} has no weights: it did not finish", resume_command(self.path))
        bare = experiment.model.model_copy(update={"weights": None})  # those it began with need not be there any more
        experiment = experiment.model_copy(update={"model": bare})
        with outer_randomness_kept():
            model = build_model(experiment, experiment.namespace(), pick_device("cpu"))
        load_weights(model, directory.weights)
        return model.eval()

    def predict(self, split: str = "test", overrides: Sequence[str] = (), *, out: Path | str | None = None) -> Any:
        """Predict a split, or new data.

        Args:
            split: which split.
            overrides: `key=value` texts; `dataset.table.test=new.csv` predicts new data, whose table needs no targets.
            out: folder of the files; by default the run's `predictions`.

        Returns:
            a row per item, a DataFrame or a list of dicts as `history`: its case, and the prediction with
            probabilities, numbers, or the name of the file with the predicted map.

        Raises:
            UsageError, ConfigError, DataError: see `weft.predict`.
        """
        from weft.actions.predict import predict

        table, *_ = predict(self._ordinary().path, overrides, split=split, out=out)
        return _as_table(read_rows(table))

    def plot(self) -> Drawings:
        """The curves over the epochs, as the report draws them; the value of a notebook's cell shows them.

        Raises:
            UsageError: these are folds, each of which has curves of its own.
        """
        return drawings(self._ordinary().path)

    def _ordinary(self) -> RunDirectory:
        directory = RunDirectory.open(self.path)
        if directory.folds():
            raise UsageError(f"{self.path} holds folds, each a run of its own", "take one of them: run.folds[0]")
        return directory

    def _repr_html_(self) -> str:
        return overview(self.path)


def open(path: Path | str) -> TrainedRun:
    """Open an earlier run, of which everything is then at hand that `weft.train` returns.

    Args:
        path: the run directory, also one of k folds or of a run that has not finished.

    Raises:
        RunDirectoryError: there is no run.
    """
    directory = RunDirectory.open(path)
    if directory.summary_file.exists():
        return TrainedRun(directory.path, directory.read_json(directory.summary_file))
    return TrainedRun(directory.path, directory.result() or {})


def _as_table(rows: Any) -> Any:
    found: list[Row] = list(rows)
    if find_spec("pandas") is None:
        return found
    import pandas

    return pandas.DataFrame(found)
