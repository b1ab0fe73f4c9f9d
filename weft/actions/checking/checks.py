"""`weft check`: an experiment and its data looked at before training, in seconds; nothing is written."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from weft.actions.batch_size import is_auto, settle
from weft.actions.checking.findings import CheckReport, Findings
from weft.actions.checking.labels import check_fold_classes
from weft.actions.checking.modelling import ModelCheck
from weft.actions.checking.place import Place, check_written_labels
from weft.actions.checking.settings import check_batches, check_monitor
from weft.actions.opening import Source, load, open_experiment_data, refuse_study, threads_of
from weft.config import Experiment
from weft.data import Data
from weft.engine import pick_device
from weft.engine.determinism import reproducible
from weft.engine.seeding import outer_randomness_kept
from weft.errors import ConfigError, WeftError

_SECONDS = 1.5  # for looking at samples of each split, for reading files, and for overfitting: each
_LONG_SECONDS = 10.0  # for overfitting, when somebody wants it thoroughly


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a check may take.

    Args:
        looking: seconds for the samples of each split, and for reading files: each.
        fitting: seconds for overfitting.
    """

    looking: float
    fitting: float


Examine = Callable[[Experiment, CheckReport, Patience], None]


def check(
    source: Source, overrides: Sequence[str] = (), *, thorough: bool = False, study: Examine | None = None
) -> CheckReport:
    """Look at an experiment, its data and the first steps of its training; nothing is trained or written.

    Random generators are afterwards as they were before. Of folds, the first one is looked at.

    Args:
        source: experiment file, dict or `Experiment`.
        overrides: `key=value` texts as for `--set`.
        thorough: look at every item, however long it takes, and try longer to overfit a batch.
        study: looks at an experiment whose data lie at several sites; without it such a one is refused.

    Returns:
        the report; `report.ok` says whether there are no errors.

    Raises:
        ConfigError: there is no such file.
        UsageError: it is a study, and nothing was given that looks at such.
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
        if study is None:
            refuse_study(experiment)
        report.name = experiment.name
        patience = Patience(math.inf if thorough else _SECONDS, _LONG_SECONDS if thorough else _SECONDS)
        with outer_randomness_kept():
            if study is not None and experiment.federation is not None:
                study(experiment, report, patience)
            else:
                _Check(with_first_fold(experiment, report), report, patience).run()
    report.sort()
    report.seconds = time.monotonic() - started
    return report


def with_first_fold(experiment: Experiment, report: CheckReport) -> Experiment:
    """The experiment of the fold that is looked at, where there are folds and none is chosen."""
    split = experiment.dataset.split
    if split is None or split.folds is None or experiment.fold is not None:
        return experiment
    report.left_out["other folds"] = f"fold 1 of {split.folds} was looked at"
    return experiment.model_copy(update={"fold": 1})


@dataclass(slots=True)
class _Check:
    experiment: Experiment
    report: CheckReport
    patience: Patience

    @property
    def findings(self) -> Findings:
        return self.report.findings

    def run(self) -> None:
        """All checks, as far as one does not need what another found broken."""
        place = Place(self.experiment, self.findings, self.patience.looking)
        opened = place.read()
        if opened:
            check_written_labels(self.experiment, place.raw, self.findings)
            opened = place.open()
        check_monitor(self.experiment, list(place.opened.splits) if opened else [], self.findings)
        if not opened:
            self.report.left_out["data and model"] = "the data cannot be read"
            return
        place.look()
        data = place.opened
        self.report.looked_at = {name: seen.describe() for name, seen in place.looked.items()}
        self._check_other_folds(data)
        if not self._settle(data):
            return
        check_batches(self.experiment, data, self.findings)
        if prevents_training(self.report):
            return
        self._check_model(place)

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

    def _check_model(self, place: Place) -> None:
        try:
            device = pick_device(self.experiment.run.device)
        except WeftError as error:
            self.findings.raised("device", "run.device", error)
            return
        report, data = self.report, place.opened
        with reproducible(
            threads=threads_of(self.experiment, data),
            deterministic=self.experiment.training.deterministic,
            device=device,
        ):
            model = ModelCheck(
                self.experiment,
                data,
                place.looked,
                place.names,
                report.findings,
                report.measured,
                report.left_out,
                self.patience.fitting,
            )
            report.estimates = model.run()


# Errors after which training need not be tried: it would fail, or tell the same once more.
_NO_TRAINING = (
    "not finite", "float labels", "bad items", "batch size", "no training split", "label values", "unlike labels",
)  # fmt: skip


def prevents_training(report: CheckReport) -> bool:
    """Whether what was found makes trying the model out useless; says so in the report."""
    stop = [f.check for f in report.findings if f.severity == "error" and f.check in _NO_TRAINING]
    if stop:
        report.left_out["model"] = f"to be tried once this is mended: {stop[0]}"
    return bool(stop)
