"""The model of a study, tried out on the data of one site, and judged by what all sites have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from weft.actions.checking.estimates import Measured, Work, check_room, disk_of, memory_of, time_of
from weft.actions.checking.findings import Findings
from weft.actions.checking.modelling import ModelCheck
from weft.actions.checking.tracing import ShapeTrace
from weft.actions.checking.trial import build_trial, first_batches, forward, is_plain, ready
from weft.engine.loaders import evaluation_batch_size
from weft.engine.run import Run
from weft.federated.checking.classes import ClassesOfStudy
from weft.federated.checking.sites import SitesData

_STATES_KEPT = 3  # at least: see `weft.federated.site`


@dataclass(slots=True)
class StudyModelCheck(ModelCheck):
    """As in one place, with the labels, batches and costs of all sites.

    Args:
        sites: their data.
        batches: of an epoch of each.
        steps_per_epoch: of the study.
        apart: whether sites train by themselves in between.
    """

    sites: SitesData = field(kw_only=True)
    batches: dict[str, int] = field(kw_only=True)
    steps_per_epoch: int = field(kw_only=True)
    apart: bool = field(kw_only=True)

    def judge_classes(self, names: Sequence[str], *, maps: bool, compensated: str | None) -> None:
        """Over all sites, and at each."""
        looked = {name: place.looked for name, place in self.sites.places.items()}
        ClassesOfStudy(looked, names, maps, self.apart).check(compensated, self.findings)

    def training_items(self) -> dict[str, int]:
        """Of each site."""
        return {f"{name}: ": items for name, items in self.sites.training_items.items()}

    def estimates(self, trial: Run, measured: Measured) -> dict[str, Any]:
        """Of the simulation, with all sites in one process, one after another."""
        places = self.sites.places.values()
        memory = memory_of(self.experiment, trial, [place.opened for place in places], measured)
        keep = max(self.experiment.run.keep_last, _STATES_KEPT)
        disk = disk_of(self.experiment, trial, runs=len(places), keep_last=keep)
        check_room(memory, disk, self.findings, measured)
        return {"memory": memory, "disk": disk, "time": time_of(self.experiment, self._work(), measured)}

    def _work(self) -> Work:
        scored: dict[str, int] = {}
        loading: dict[str, float] = {}
        for place in self.sites.places.values():
            for name, split in place.opened.splits.items():
                size = evaluation_batch_size(place.experiment.training, split)
                scored[name] = scored.get(name, 0) + -(-len(split) // size)
                loading[name] = loading.get(name, 0.0) + place.looked[name].seconds_per_item * len(split)
        return Work(self.steps_per_epoch, sum(self.batches.values()), scored, loading)


def try_forward(sites: SitesData, names: Sequence[str], findings: Findings) -> None:
    """Whether the model takes the items of sites whose shapes are others.

    Args:
        sites: their data.
        names: of those sites.
        findings: goes in here.
    """
    for name in names:
        place = sites.places[name]
        if "train" not in place.opened.splits:
            continue
        with ShapeTrace() as trace:
            try:
                trial = build_trial(place.experiment, place.opened)
                if is_plain(trial.task):
                    forward(trial, ready(trial), first_batches(trial, 1)[0])
            except Exception as error:  # the model may be the user's
                reason = f"{type(error).__name__}: {error}".splitlines()[0]
                layer = f" in {trace.place()[0]}" if trace.broken else ""
                findings.error(
                    "shapes", name, f"the model does not take the items of this site{layer}: {reason}",
                    "bring them to the size that other sites have (dataset.shape, or a transform)", sites=[name],
                )  # fmt: skip
