"""The data of one place, looked at: of an experiment, or of one site of a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from weft.actions.checking import leaks
from weft.actions.checking.findings import Findings
from weft.actions.checking.geometry import check_geometry
from weft.actions.checking.inputs import InputNames, check_inputs
from weft.actions.checking.labels import check_finite_targets, check_loaded_labels
from weft.actions.checking.raw import check_raw_labels, divided, input_names, read_raw, without_inputs
from weft.actions.checking.samples import Looked, look
from weft.actions.opening import open_experiment_data, target_kind_of
from weft.config import Experiment
from weft.data import Data
from weft.data.parts import Part
from weft.data.tables import read_table
from weft.errors import WeftError


@dataclass(slots=True)
class Place:
    """Data that lie together, and what was seen of them.

    Args:
        experiment: on these data.
        findings: goes in here.
        seconds: for looking at samples of each split, and for reading files: each.

    Attributes:
        raw: what was read, before it is divided, without inputs in memory.
        parts: the raw part of each split.
        names: of the inputs.
        data: opened; None where they cannot be.
        looked: what was seen of each split.
    """

    experiment: Experiment
    findings: Findings
    seconds: float
    raw: dict[str, Part] = field(default_factory=dict)
    parts: dict[str, Part] = field(default_factory=dict)
    names: InputNames = field(default_factory=lambda: InputNames((), ()))
    data: Data | None = None
    looked: dict[str, Looked] = field(default_factory=dict)

    @property
    def opened(self) -> Data:
        """The data, once they are open."""
        assert self.data is not None
        return self.data

    @property
    def wants_classes(self) -> bool:
        """Whether targets are classes."""
        kind = target_kind_of(self.experiment)
        return kind == "class" or (kind == "auto" and self.opened.classes is not None)

    def read(self) -> bool:
        """Read what there is before it is divided; False where that fails, which becomes a finding."""
        try:
            parts = read_raw(self.experiment)
            self.names = input_names(parts, self.experiment.dataset)
            self.raw = without_inputs(parts)
        except Exception as error:  # datasets may be the user's
            self.failed(error)
            return False
        return True

    def open(self, statistics: dict[str, Any] | None = None) -> bool:
        """Open what was read; False where that fails, which becomes a finding.

        Args:
            statistics: classes and scales that are agreed on; by default those of these data.
        """
        try:
            data = open_experiment_data(self.experiment, statistics)
            self.parts = divided(self.raw, data.splits)
            self.data = data
        except Exception as error:  # datasets and transforms may be the user's
            self.failed(error)
            return False
        return True

    def failed(self, error: Exception) -> None:
        """The data cannot be used."""
        if not self.findings.has("error", "float labels"):  # which opening the data stumbles over as well
            self.findings.raised("data", "dataset", error)

    def look(self, *, whole: bool = True) -> None:
        """Look at samples of every split, and at what the data alone tell.

        Args:
            whole: whether these are all the data there are; those of a site have but some of the labels.
        """
        scales = self.opened.statistics.get("standardize")
        if scales is not None and not finite_scales(scales):
            self.data = self._open_unscaled() or self.data  # one bad value makes all others bad when they are scaled
        data, labels = self.opened, self.wants_classes
        self.looked = {
            name: look(split, self.seconds, self.findings, labels=labels) for name, split in data.splits.items()
        }
        self._check(labels, whole)

    def _open_unscaled(self) -> Data | None:
        dataset = self.experiment.dataset.model_copy(update={"standardize": False})
        known = {} if self.opened.classes is None else {"classes": self.opened.classes}
        try:
            return open_experiment_data(self.experiment.model_copy(update={"dataset": dataset}), known)
        except WeftError:
            return None

    def _check(self, labels: bool, whole: bool) -> None:
        data, dataset, findings = self.opened, self.experiment.dataset, self.findings
        check_inputs(self.looked, self.names, data.statistics.get("standardize"), findings)
        check_finite_targets(self.looked, findings)
        if labels and whole:
            check_labels_of([self], self.looked, findings)
        leaks.check_repeats(self.looked, findings, labels=labels)
        leaks.check_groups(data, findings)
        leaks.check_files(self.parts, findings, self.seconds)
        check_geometry(self.parts, findings, self.seconds, transformed=bool(dataset.transforms.base))
        if dataset.table is not None and dataset.group is None:
            leaks.check_ungrouped_columns(self.unnamed_columns(), findings)
        if "train" in data.splits:
            leaks.check_answers(data.splits["train"], data.statistics.get("standardize"), self.names, findings)

    def unnamed_columns(self) -> dict[str, dict[str, list[str]]]:
        """Cells of the columns that the experiment does not name, by column and split; none of what is no table."""
        table, dataset = self.experiment.dataset.table, self.experiment.dataset
        if table is None:
            return {}
        used = {*dataset.inputs, *dataset.targets}
        cells: dict[str, dict[str, list[str]]] = {}
        for name, split in self.opened.splits.items():
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


def ignored_label(experiment: Experiment) -> int | None:
    """The label that the loss leaves out."""
    loss = experiment.training.loss
    value = loss.arguments.get("ignore_index") if loss is not None else None
    return int(value) if isinstance(value, int) else None


def check_written_labels(experiment: Experiment, parts: Mapping[str, Part], findings: Findings) -> None:
    """Labels as they are written, of all data there are.

    Args:
        experiment: what is trained.
        parts: as they were read, of one place or of all.
        findings: goes in here.
    """
    if target_kind_of(experiment) == "class":
        check_raw_labels(parts, findings, ignored=ignored_label(experiment))


def check_labels_of(places: Sequence[Place], looked: Mapping[str, Looked], findings: Findings) -> None:
    """Labels that are known only once items are loaded, of all data there are.

    Args:
        places: where they lie.
        looked: what was seen of each split of all of them.
        findings: goes in here.
    """
    dataset = places[0].experiment.dataset
    loads = any(split.arrays is None for place in places for split in place.opened.splits.values())
    library = bool(dataset.transforms.base) or dataset.source() == "class"
    ignored = ignored_label(places[0].experiment)
    check_loaded_labels(looked, findings, ignored=ignored, whole_is_fine=loads and library)


def finite_scales(scales: Sequence[Mapping[str, Any]]) -> bool:
    """Whether all means are finite."""
    return all(bool(torch.isfinite(torch.as_tensor(scale["mean"])).all()) for scale in scales)
