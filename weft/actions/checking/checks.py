"""`weft check`: an experiment and its data looked at before training, in seconds; nothing is written."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from weft.actions.batch_size import is_auto, settle
from weft.actions.checking import leaks
from weft.actions.checking.findings import CheckReport, Findings
from weft.actions.checking.geometry import check_geometry
from weft.actions.checking.inputs import InputNames, check_inputs
from weft.actions.checking.labels import check_finite_targets, check_fold_classes, check_loaded_labels
from weft.actions.checking.modelling import ModelCheck
from weft.actions.checking.raw import check_raw_labels, divided, input_names, read_raw, without_inputs
from weft.actions.checking.samples import Looked, look
from weft.actions.checking.settings import check_batches, check_monitor
from weft.actions.opening import Source, load, open_experiment_data, refuse_study, threads_of
from weft.config import Experiment
from weft.data import Data
from weft.data.parts import Part
from weft.data.tables import read_table
from weft.engine import pick_device
from weft.engine.determinism import reproducible
from weft.engine.seeding import outer_randomness_kept
from weft.errors import ConfigError, WeftError

_SECONDS = 1.5  # for looking at samples of each split, for reading files, and for overfitting: each
_LONG_SECONDS = 10.0  # for overfitting, when somebody wants it thoroughly


def check(source: Source, overrides: Sequence[str] = (), *, thorough: bool = False) -> CheckReport:
    """Look at an experiment, its data and the first steps of its training; nothing is trained or written.

    Random generators are afterwards as they were before. Of folds, the first one is looked at.

    Args:
        source: experiment file, dict or `Experiment`.
        overrides: `key=value` texts as for `--set`.
        thorough: look at every item, however long it takes, and try longer to overfit a batch.

    Returns:
        the report; `report.ok` says whether there are no errors.

    Raises:
        ConfigError: there is no such file.
    """
    started = time.monotonic()
    report = CheckReport(str(source) if isinstance(source, str | Path) else "experiment")
    try:
        experiment = load(source, overrides)
    except ConfigError as error:
        if isinstance(source, str | Path) and not Path(source).is_file():
            raise
        report.findings.raised("experiment", report.name, error)
    else:
        refuse_study(experiment)
        report.name = experiment.name
        with outer_randomness_kept():
            _Check(
                experiment, report, math.inf if thorough else _SECONDS, _LONG_SECONDS if thorough else _SECONDS
            ).run()
    report.sort()
    report.seconds = time.monotonic() - started
    return report


@dataclass(slots=True)
class _Check:
    experiment: Experiment
    report: CheckReport
    seconds: float
    fit_seconds: float
    parts: dict[str, Part] = field(default_factory=dict)
    names: InputNames = field(default_factory=lambda: InputNames((), ()))

    @property
    def findings(self) -> Findings:
        return self.report.findings

    def run(self) -> None:
        """All checks, as far as one does not need what another found broken."""
        self._choose_fold()
        data = self._open()
        check_monitor(self.experiment, list(data.splits) if data is not None else [], self.findings)
        if data is None:
            self.report.left_out["data and model"] = "the data cannot be read"
            return
        labels = self._wants_classes(data)
        scales = data.statistics.get("standardize")
        if scales is not None and not _finite_scales(scales):
            data = self._open_unscaled() or data  # one bad value makes all others bad when they are scaled
        looked = {name: look(split, self.seconds, self.findings, labels=labels) for name, split in data.splits.items()}
        self.report.looked_at = {name: seen.describe() for name, seen in looked.items()}
        self._check_data(data, looked, labels)
        self._check_other_folds(data)
        if not self._settle(data):
            return
        check_batches(self.experiment, data, self.findings)
        stop = [f.check for f in self.findings if f.severity == "error" and f.check in _NO_TRAINING]
        if stop:
            self.report.left_out["model"] = f"to be tried once this is mended: {stop[0]}"
            return
        self._check_model(data, looked)

    # --- data ---------------------------------------------------------------------------------------------------------

    def _choose_fold(self) -> None:
        split = self.experiment.dataset.split
        if split is not None and split.folds is not None and self.experiment.fold is None:
            self.experiment = self.experiment.model_copy(update={"fold": 1})
            self.report.left_out["other folds"] = f"fold 1 of {split.folds} was looked at"

    def _open(self) -> Data | None:
        try:
            parts = read_raw(self.experiment)
            self.names = input_names(parts, self.experiment.dataset)
            parts = without_inputs(parts)
            if self._task_kind() == "class":
                check_raw_labels(parts, self.findings, ignored=self._ignored())
            data = open_experiment_data(self.experiment)
            self.parts = divided(parts, data.splits)
            return data
        except Exception as error:  # datasets and transforms may be the user's
            if not self.findings.has("error", "float labels"):  # which opening the data stumbles over as well
                self.findings.raised("data", "dataset", error)
            return None

    def _open_unscaled(self) -> Data | None:
        dataset = self.experiment.dataset.model_copy(update={"standardize": False})
        try:
            return open_experiment_data(self.experiment.model_copy(update={"dataset": dataset}))
        except WeftError:
            return None

    def _task_kind(self) -> str:
        task = self.experiment.namespace().find(self.experiment.training.task, "task")
        return str(getattr(task, "target_kind", "auto"))

    def _settle(self, data: Data) -> bool:
        """Find the batch size where it is `auto`; False where not one item can be trained on."""
        if not is_auto(self.experiment) or "train" not in data.splits:
            return True
        try:
            self.experiment = settle(self.experiment, data=data)
        except Exception as error:  # the model and its parts may be the user's
            self.findings.raised("batch size", "training.batch_size", error)
            self.report.left_out["model"] = "no batch size was found"
            return False
        return True

    def _wants_classes(self, data: Data) -> bool:
        kind = self._task_kind()
        return kind == "class" or (kind == "auto" and data.classes is not None)

    def _check_data(self, data: Data, looked: Mapping[str, Looked], labels: bool) -> None:
        dataset, findings = self.experiment.dataset, self.findings
        check_inputs(looked, self.names, data.statistics.get("standardize"), findings)
        check_finite_targets(looked, findings)
        if labels:
            loads = any(split.arrays is None for split in data.splits.values())
            library = bool(dataset.transforms.base) or dataset.source() == "class"
            check_loaded_labels(looked, findings, ignored=self._ignored(), whole_is_fine=loads and library)
        leaks.check_repeats(looked, findings, labels=labels)
        leaks.check_groups(data, findings)
        leaks.check_files(self.parts, findings, self.seconds)
        check_geometry(self.parts, findings, self.seconds, transformed=bool(dataset.transforms.base))
        if dataset.table is not None and dataset.group is None:
            leaks.check_ungrouped_columns(self._unnamed_columns(data), findings)
        if "train" in data.splits:
            leaks.check_answers(data.splits["train"], data.statistics.get("standardize"), self.names, findings)

    def _ignored(self) -> int | None:
        loss = self.experiment.training.loss
        value = loss.arguments.get("ignore_index") if loss is not None else None
        return int(value) if isinstance(value, int) else None

    def _unnamed_columns(self, data: Data) -> dict[str, dict[str, list[str]]]:
        """Cells of the columns that the experiment does not name, by column and split."""
        table, dataset = self.experiment.dataset.table, self.experiment.dataset
        assert table is not None
        used = {*dataset.inputs, *dataset.targets}
        cells: dict[str, dict[str, list[str]]] = {}
        for name, split in data.splits.items():
            file = getattr(table, name, None) or table.file
            if file is None:
                continue
            path = self.experiment.base / file
            if not path.is_file() and table.root is not None:
                path = self.experiment.base / table.root / file
            read = read_table(path, table.separator)
            at = {line: place for place, line in enumerate(read.lines)}
            for column, values in read.columns.items():
                if column not in used:
                    cells.setdefault(column, {})[name] = [str(values[at[line]]) for line in split.rows]
        return cells

    def _check_other_folds(self, data: Data) -> None:
        """Classes that are missing from training in another fold; for labels in memory, where looking is cheap."""
        if "other folds" not in self.report.left_out or data.classes is None or data.fold_count is None:
            return
        if data.splits["train"].arrays is None:
            return
        for fold in range(2, data.fold_count + 1):
            other = open_experiment_data(self.experiment.model_copy(update={"fold": fold}))
            check_fold_classes(other, fold, self.findings)
        self.report.left_out["other folds"] += "; of the others only the classes"

    # --- model --------------------------------------------------------------------------------------------------------

    def _check_model(self, data: Data, looked: Mapping[str, Looked]) -> None:
        try:
            device = pick_device(self.experiment.run.device)
        except WeftError as error:
            self.findings.raised("device", "run.device", error)
            return
        report = self.report
        with reproducible(
            threads=threads_of(self.experiment, data),
            deterministic=self.experiment.training.deterministic,
            device=device,
        ):
            model = ModelCheck(
                self.experiment,
                data,
                looked,
                self.names,
                report.findings,
                report.measured,
                report.left_out,
                self.fit_seconds,
            )
            report.estimates = model.run()


# Errors after which training need not be tried: it would fail, or tell the same once more.
_NO_TRAINING = ("not finite", "float labels", "bad items", "batch size", "no training split", "label values")


def _finite_scales(scales: Sequence[Mapping[str, Any]]) -> bool:
    return all(bool(torch.isfinite(torch.as_tensor(scale["mean"])).all()) for scale in scales)
