"""The experiment: dataset, model, training, and what else a file holds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, PrivateAttr

from weft.config.component import Component
from weft.config.dataset import DatasetConfig
from weft.config.federation import FederationConfig, SiteConfig
from weft.config.fields import Count, FilePath, Items, Section
from weft.config.running import RunConfig
from weft.config.training import ModelConfig, TrainingConfig
from weft.errors import Problem

if TYPE_CHECKING:
    from weft.config.document import Document
    from weft.config.namespace import Namespace

KeyPath = tuple[str | int, ...]


class Experiment(Section):
    """An experiment: what is trained on what, and how.

    Sections can also be given as plain dicts in the form of the experiment file. `name` and `run` do not belong to the
    fingerprint, everything else does.
    """

    name: Annotated[str, Field(min_length=1)] = "experiment"
    """Name of the experiment, for people; without it, the file's name."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Seed of everything random."""
    fold: Count | None = None
    """Number of the fold to run, from 1; without it, all folds of `dataset.split.folds`."""
    dataset: DatasetConfig
    """The data."""
    model: ModelConfig
    """The network."""
    training: TrainingConfig
    """How it is trained."""
    federation: FederationConfig | None = None
    """Makes it a study: sites that train one model together, each on data of its own; `weft federate simulate` runs
    it."""
    patches: Items[FilePath] = Field(default_factory=list)
    """Python files in which names are looked up first."""
    run: RunConfig = RunConfig()
    """How and where it is run."""

    _base: Path | None = PrivateAttr(default=None)
    _document: Document | None = PrivateAttr(default=None)

    @property
    def base(self) -> Path:
        """Folder that relative paths start from: that of the experiment file, else the working directory."""
        return self._base if self._base is not None else Path.cwd()

    def path(self, path: Path) -> Path:
        """A path of the experiment as seen from anywhere."""
        return self.base / path.expanduser()

    def namespace(self) -> Namespace:
        """The place where names of components are looked up: patches, Weft, MONAI (if installed), torch."""
        from weft.config.namespace import Namespace

        return Namespace(tuple(self.path(patch) for patch in self.patches))

    def components(self) -> Iterator[tuple[KeyPath, str, Component]]:
        """Every component with its key path and kind ("model", "optimizer", ...)."""
        dataset, training = self.dataset, self.training
        yield from _sources(("dataset",), dataset)
        if self.federation is not None:
            for name, site in self.federation.sites.items():
                yield from _sources(("federation", "sites", name), site)
            yield ("federation", "strategy"), "strategy", self.federation.strategy
            if (before := self.federation.pretraining) is not None and before.optimizer is not None:
                yield ("federation", "pretraining", "optimizer"), "optimizer", before.optimizer
        for stage in ("base", "train"):
            for index, transform in enumerate(getattr(dataset.transforms, stage)):
                yield ("dataset", "transforms", stage, index), "transform", transform
        for split, sampler in dataset.samplers.items():
            yield ("dataset", "samplers", split), "sampler", sampler
        yield ("model", "component"), "model", self.model.component
        for name, kind in (("task", "task"), ("optimizer", "optimizer"), ("scheduler", "scheduler"), ("loss", "loss")):
            if (single := getattr(training, name)) is not None:
                yield ("training", name), kind, single
        for network, optimizer in training.optimizers.items():
            yield ("training", "optimizers", network), "optimizer", optimizer
        for index, metric in enumerate(training.metrics or ()):
            yield ("training", "metrics", index), "metric", metric
        for index, observer in enumerate(self.run.observers):
            yield ("run", "observers", index), "observer", observer

    def at_site(self, name: str) -> Experiment:
        """What a site of a study trains: an experiment on its own data.

        Args:
            name: one of `federation.sites`.
        """
        assert self.federation is not None
        site = self.federation.sites[name]
        own = {field: getattr(site, field) for field in SiteConfig.model_fields}
        return self.model_copy(update={"dataset": self.dataset.model_copy(update=own), "federation": None})

    def check(self) -> list[Problem]:
        """Everything that is wrong with the experiment as a whole, without building or loading anything of it."""
        from weft.config.checks import check_experiment

        return check_experiment(self)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Experiment):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in type(self).model_fields)


def _sources(path: KeyPath, section: DatasetConfig | SiteConfig) -> Iterator[tuple[KeyPath, str, Component]]:
    """The components that data come from."""
    if isinstance(section.arrays, Component):
        yield (*path, "arrays"), "arrays", section.arrays
    if isinstance(section.class_, Component):
        yield (*path, "class"), "dataset", section.class_
    elif section.class_ is not None:
        yield from (((*path, "class", split), "dataset", part) for split, part in section.class_.items())
