"""Checks of the folds that are not looked at whole: how each divides the items of all sites, and what that leaves.

Items are the same in every fold, and so is the model; what differs is who trains on which, and how many batches there
are. What several folds have alike is told once, with their numbers.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor

from weft.actions.checking.findings import CheckReport, Finding, Findings, listed
from weft.actions.checking.labels import MOST_CLASSES
from weft.actions.checking.place import Place
from weft.actions.checking.raw import divided
from weft.actions.checking.settings import check_batches
from weft.actions.opening import open_experiment_data
from weft.config import Experiment
from weft.data import Data
from weft.data.parts import Part
from weft.engine import Strategy
from weft.engine.loaders import batches_of_epoch
from weft.federated.agreeing import epoch_of
from weft.federated.checking.settings import check_with_sites
from weft.federated.site import site_experiment
from weft.federated.snapshots import has_rounds


@dataclass(slots=True)
class OtherFolds:
    """Looks at the folds from the second one on.

    Args:
        study: with its section `federation`, folds and the fold that was looked at.
        places: of the sites, as they were looked at.
        strategy: of the study.
        report: what is found goes in here, but what is known of the first fold already.
        seconds: how long to go on.
    """

    study: Experiment
    places: Mapping[str, Place]
    strategy: Strategy | None
    report: CheckReport
    seconds: float
    found: dict[tuple[str, ...], Finding] = field(default_factory=dict)
    folds: dict[tuple[str, ...], list[int]] = field(default_factory=dict)

    def look(self) -> None:
        """Look at them one by one, as long as there is time; says so in the report."""
        split = self.study.dataset.split
        assert split is not None
        assert split.folds is not None
        others = [fold for fold in range(1, split.folds + 1) if fold != self.study.fold]
        known = {_key(one) for one in self.report.findings}
        end, looked = time.monotonic() + self.seconds, 0
        for fold in others:
            if looked and time.monotonic() > end:
                break
            for one in self._of_fold(fold):
                if _key(one) not in known:
                    self.found.setdefault(_key(one), one)
                    self.folds.setdefault(_key(one), []).append(fold)
            looked += 1
        for key, one in self.found.items():
            these = self.folds[key]
            where = f"fold{'s' * (len(these) > 1)} {listed(these)}: {one.where}"
            self.report.findings.append(replace(one, where=where, evidence={**one.evidence, "folds": these}))
        told = f"of {_span(others[:looked])} only how items are divided, classes and batches were looked at"
        if left := others[looked:]:
            told += f", of {_span(left)} nothing, as time was short: add --thorough"
        self.report.left_out["other folds"] = told

    def _of_fold(self, fold: int) -> Findings:
        found, opened, batches = Findings(), dict[str, Data](), dict[str, int]()
        for name, place in self.places.items():
            experiment = site_experiment(self.study.model_copy(update={"fold": fold}), name)
            plain = experiment.dataset.model_copy(update={"standardize": False})
            experiment = experiment.model_copy(update={"dataset": plain})
            own = Findings()
            try:
                classes = place.opened.classes
                data = open_experiment_data(experiment, {} if classes is None else {"classes": classes})
                data.splits = {key: split for key, split in data.splits.items() if len(split)}
                opened[name] = data
                if "train" in data.splits:
                    check_batches(experiment, data, own)
                    batches[name] = 0 if own.has("error") else batches_of_epoch(experiment, data)
            except Exception as error:  # datasets, transforms and samplers may be the user's
                own.raised("data", "dataset", error)
            found.extend(replace(one, where=f"{name}: {one.where}") for one in own)
        self._check_emptied(opened, found)
        self._check_classes(opened, found)
        if self.strategy is not None and any(batches.values()) and len(opened) == len(self.places):
            epoch, _ = epoch_of(self.study.federation.uneven, list(batches.values()))  # type: ignore[union-attr]
            steps = -(-epoch // self.study.training.accumulate)
            check_with_sites(self.study, self.strategy, batches, steps, found)
        return found

    def _check_emptied(self, opened: Mapping[str, Data], found: Findings) -> None:
        """Sites that have nothing in a split in which they have something in the fold that was looked at."""
        for split in ("train", "validation"):
            emptied = [
                name for name, data in opened.items()
                if split in self.places[name].opened.splits and split not in data.splits
            ]  # fmt: skip
            if emptied:
                found.warning(
                    "empty split", f"{listed(emptied)}: {split}",
                    f"no items are left for {split} at {listed(emptied)}", "use fewer folds, or leave the site out",
                    sites=emptied,
                )  # fmt: skip

    def _check_classes(self, opened: Mapping[str, Data], found: Findings) -> None:
        """Classes that nobody has in training, or that a site that trains by itself lacks, though it has some."""
        counts = {
            name: {split: _labels(part) for split, part in divided(self.places[name].raw, data.splits).items()}
            for name, data in opened.items()
            if self.places[name].wants_classes
        }
        own = {name: set().union(*by_split.values()) for name, by_split in counts.items()}
        every = set().union(*own.values())
        if len(every) > MOST_CLASSES:
            return
        trained = set().union(*(by_split.get("train", Counter()) for by_split in counts.values()))
        if missing := sorted(every - trained):
            found.error(
                "missing class", "all sites: train",
                f"class {listed(missing)} has no item in train at any site: it cannot be learned",
                "divide the data with dataset.split.stratified: true, or use fewer folds", classes=missing,
            )  # fmt: skip
        lacking = {
            name: sorted(own[name] - set(by_split["train"]) - set(missing))
            for name, by_split in counts.items() if "train" in by_split
        }  # fmt: skip
        lacking = {name: classes for name, classes in lacking.items() if classes}
        if lacking:
            told = listed(f"{name} has no {listed(classes)}" for name, classes in lacking.items())
            apart = self.strategy is not None and has_rounds(self.strategy)
            found.report(
                "warning" if apart else "note", "missing class", f"{listed(lacking)}: train",
                f"{told} to train on, though it has some: the fold leaves all of them out",
                "divide the data with dataset.split.stratified: true, or use fewer folds", sites=list(lacking),
            )  # fmt: skip


def _labels(part: Part) -> Counter[str]:
    """How often each label is written; none where labels are no single cells."""
    targets = [column for column in part.of("target") if not column.is_path]
    if len(targets) != 1 or getattr(targets[0].values, "ndim", 1) != 1:
        return Counter()
    values = targets[0].values
    return Counter(map(str, values.tolist() if isinstance(values, Tensor) or hasattr(values, "tolist") else values))


def _key(one: Finding) -> tuple[str, ...]:
    return one.severity, one.check, one.where, one.message


def _span(folds: list[int]) -> str:
    return f"fold {folds[0]}" if len(folds) == 1 else f"folds {folds[0]} to {folds[-1]}"
