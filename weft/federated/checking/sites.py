"""The data of all sites of a study, opened as the study opens them: with the classes and scales of all."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from weft.actions.checking.findings import Finding, Findings, listed
from weft.actions.checking.place import Place
from weft.actions.checking.samples import Looked
from weft.actions.opening import target_kind_of
from weft.config import Experiment
from weft.data import measure
from weft.data.standardize import Moments
from weft.data.targets import encode_targets
from weft.engine.collectives import Answer, Collective, combine
from weft.errors import DataError
from weft.federated.agreeing import joined_classes, pooled_scales, told_by_all
from weft.federated.site import site_experiment
from weft.federated.traffic import Counts, counted

_LEAST_SECONDS = 0.05  # for each split of a site


@dataclass(slots=True)
class SitesData:
    """The sites of a study, and what was seen of their data.

    Args:
        study: the experiment with its section `federation`.
        findings: what is about several sites goes in here; what is about one, into that of its place.

    Attributes:
        places: of the sites that could be read so far, by name in order.
        broken: findings of those that could not be.
        classes: by site the names that occur there; empty where targets are no classes.
        shapes: by site those of the means of its inputs, with `standardize`.
        scaled: the sites whose training items mean and scale come from; none where nothing is scaled.
        counts: by site the bytes of what it tells before training.
    """

    study: Experiment
    findings: Findings
    places: dict[str, Place] = field(default_factory=dict)
    broken: dict[str, Findings] = field(default_factory=dict)
    classes: dict[str, list[str]] = field(default_factory=dict)
    shapes: dict[str, list[list[int]]] = field(default_factory=dict)
    scaled: list[str] = field(default_factory=list)
    counts: dict[str, Counts] = field(default_factory=dict)

    def read(self, seconds: float) -> None:
        """Read what each site has.

        Args:
            seconds: for looking at one split; the sites share it.
        """
        assert self.study.federation is not None
        names = sorted(self.study.federation.sites)
        share = max(seconds / len(names), _LEAST_SECONDS)
        for name in names:
            place = Place(site_experiment(self.study, name), Findings(), share)
            self._keep(name, place, place.read())

    def open(self) -> bool:
        """Open the data with what all sites agree on; False where they do not agree on whether there are classes."""
        kind = target_kind_of(self.study)
        told: dict[str, list[str] | None] = {}
        for name, place in list(self.places.items()):
            try:
                told[name] = encode_targets(place.raw, kind)[1]
            except Exception as error:  # targets may be of a kind that nobody thought of
                place.failed(error)
                self._keep(name, place, False)
        self.together({name: told_by_all("classes", said) for name, said in told.items()})
        try:
            classes = joined_classes(list(told), list(told.values())) if told else None
        except DataError as error:
            self.findings.error("unlike labels", listed(n for n, said in told.items() if said is None),
                                error.message, error.hint)  # fmt: skip
            return False
        self.classes = {name: names for name, names in told.items() if names is not None}
        known: dict[str, Any] = {} if classes is None else {"classes": classes}
        if self.study.dataset.standardize:
            scales = self._scales(classes)
            known |= {} if scales is None else {"standardize": scales}
        for name, place in list(self.places.items()):
            self._keep(name, place, place.open(known))
        return True

    def _keep(self, name: str, place: Place, good: bool) -> None:
        if good:
            self.places[name] = place
            if place.data is not None:  # a site may lack any of them
                place.data.splits = {split: data for split, data in place.data.splits.items() if len(data)}
                place.parts = {split: part for split, part in place.parts.items() if split in place.data.splits}
        else:
            self.places.pop(name, None)
            self.broken[name] = place.findings

    def _scales(self, classes: list[str] | None) -> list[dict[str, Any]] | None:
        """Mean and scale over all sites whose training items are finite; the others are opened as they are, and so are
        all where there is none.
        """
        moments: dict[str, list[Moments]] = {}
        for name, place in list(self.places.items()):
            experiment = place.experiment
            try:
                moments[name] = measure(
                    experiment.dataset, experiment.namespace(), seed=experiment.seed, fold=experiment.fold,
                    base=experiment.base, kind=target_kind_of(experiment), classes=classes,
                )  # fmt: skip
            except Exception as error:  # datasets and transforms may be the user's
                place.failed(error)
                self._keep(name, place, False)
        self.shapes = {name: [list(one.mean.shape) for one in found] for name, found in moments.items() if found}
        shapes = most_common(self.shapes.values())
        usable = {
            name: found for name, found in moments.items()
            if self.shapes.get(name, shapes) == shapes and all(_is_finite(one) for one in found)
        }  # fmt: skip
        for name in self.places if shapes is None else self.places.keys() - usable.keys():
            place = self.places[name]
            plain = place.experiment.dataset.model_copy(update={"standardize": False})
            place.experiment = place.experiment.model_copy(update={"dataset": plain})
        if shapes is None or not any(usable.values()):
            return None
        self.scaled = [name for name, found in usable.items() if found]
        self.together({name: told_by_all("shapes", self.shapes.get(name, [])) for name in usable})
        told = self.together({name: pooled_scales(found, shapes) for name, found in usable.items()})
        scales: list[dict[str, Any]] = next(iter(told.values()))
        return scales

    def together(self, steps: Mapping[str, Generator[Collective, Answer, Any]]) -> dict[str, Any]:
        """What sites come to that ask one another the same, by name; what they send is counted."""
        counting = [counted(step, self.counts.setdefault(name, {}), "opening") for name, step in steps.items()]
        return dict(zip(steps, told_together(counting), strict=True))

    def look(self) -> None:
        """Look at samples of every split of every site."""
        for place in self.places.values():
            place.look(whole=False)

    @property
    def looked(self) -> dict[str, Looked]:
        """What was seen of each split, by "site: split"."""
        return {f"{name}: {split}": seen for name, place in self.places.items() for split, seen in place.looked.items()}

    @property
    def training_items(self) -> dict[str, int]:
        """How many items each site has to train on; sites without are left out."""
        splits = {name: place.opened.splits for name, place in self.places.items()}
        return {name: len(found["train"]) for name, found in splits.items() if "train" in found}

    @property
    def own_findings(self) -> dict[str, Findings]:
        """Of each site, by name in order."""
        by_site = self.broken | {name: place.findings for name, place in self.places.items()}
        return {name: by_site[name] for name in sorted(by_site)}


def joined_findings(by_site: Mapping[str, Findings]) -> list[Finding]:
    """Findings of several sites as those of a study: what several of them have alike is one finding."""
    sites: dict[tuple[str, ...], list[str]] = {}
    first: dict[tuple[str, ...], Finding] = {}
    for name, findings in by_site.items():
        for one in findings:
            key = (one.severity, one.check, one.where, one.message, one.remedy)
            sites.setdefault(key, []).append(name)
            first.setdefault(key, one)
    return [
        replace(one, where=f"{listed(sites[key])}: {one.where}", evidence={**one.evidence, "sites": sites[key]})
        for key, one in first.items()
    ]


def most_common(values: Iterable[Any]) -> Any:
    """The value that occurs most often, of several the first one; None of none."""
    seen = list(values)
    return max(seen, key=seen.count) if seen else None


def told_together(steps: Sequence[Generator[Collective, Answer, Any]]) -> list[Any]:
    """What the sites come to that ask one another the same, in their order."""
    asked = [next(step) for step in steps]
    found: list[Any] = []
    while asked:
        answer, asked = combine(asked), []
        for step in steps:
            try:
                asked.append(step.send(answer))
            except StopIteration as end:
                found.append(end.value)
    return found


def _is_finite(moments: Moments) -> bool:
    return bool(torch.isfinite(moments.mean).all() and torch.isfinite(moments.squares).all())
