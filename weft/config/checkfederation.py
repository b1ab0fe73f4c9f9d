"""Checks of the `federation:` section, and of each site's data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from weft.config.experiment import Experiment
from weft.config.federation import SiteConfig
from weft.errors import Problem

_SOURCES = tuple(field.alias or name for name, field in SiteConfig.model_fields.items())


def site_experiments(experiment: Experiment) -> dict[str, Experiment]:
    """What each site of a study trains, by name in order; no site where it is no study."""
    federation = experiment.federation
    return {} if federation is None else {name: experiment.at_site(name) for name in sorted(federation.sites)}


def at_site(problem: Problem, site: str) -> Problem:
    """A problem of a site's experiment, where the study's file has it."""
    if problem.path[:1] == ("dataset",) and problem.path[1:2] and problem.path[1] in _SOURCES:
        return replace(problem, path=("federation", "sites", site, *problem.path[1:]))
    if problem.path == ("dataset",) and ("no data" in problem.message or "which items" in problem.message):
        return replace(problem, path=("federation", "sites", site))
    return problem


def check_federation(experiment: Experiment) -> Iterable[Problem]:
    """A study has sites with data of their own, and nothing that only one place can do."""
    federation = experiment.federation
    if federation is None:
        return
    if len(federation.sites) < 2:
        found = ", ".join(federation.sites) or "none"
        hint = "name two sites or more, or remove 'federation' and train in one place"
        yield Problem(f"a study needs at least two sites, found {found}", hint, ("federation", "sites"))
    lowered = [name.lower() for name in federation.sites]
    for name in federation.sites:
        if name.lower() == "hub":
            message = "a site cannot have the name of the hub, which answers them all"
            yield Problem(message, "give it another one", ("federation", "sites", name))
        if lowered.count(name.lower()) > 1:
            message = f"the name {name!r} is that of another site but for upper and lower case"
            yield Problem(message, "sites are folders: give them different names", ("federation", "sites", name))
    if (source := experiment.dataset.source()) is not None:
        message = f"{source!r} gives data that belong to no site"
        hint = "move it to federation.sites.NAME; dataset says what all sites share"
        yield Problem(message, hint, ("dataset", source))
    if federation.exact and federation.pretraining is not None:
        message = "training on all data in one place does not begin with what one site has trained"
        yield Problem(message, "remove 'pretraining', or 'exact'", ("federation", "pretraining"))
    if federation.minimum_cells > 1:
        for index, metric in enumerate(experiment.training.metrics or ()):
            if metric.name == "calibration_error":
                message = "calibration_error is made of bins, also of few items, which minimum_cells keeps at the sites"
                yield Problem(message, "leave it out; brier says as much", ("training", "metrics", index))
    parts = (("model",), experiment.model.component), (("training", "task"), experiment.training.task)
    for path, component in parts:
        if component.is_finished:
            message = f"a finished {component.name} would be shared by all sites"
            yield Problem(message, "give its class, with arguments: Component.of(Class, …)", path)
    yield from _check_settings(experiment)


def _check_settings(experiment: Experiment) -> Iterator[Problem]:
    training, run = experiment.training, experiment.run
    if run.processes > 1:
        yield Problem("each site of a study trains in one process", "remove run.processes", ("run", "processes"))
    if run.restarts:
        message = "a study is not started again by itself"
        yield Problem(message, "remove run.restarts; weft federate simulate --resume goes on", ("run", "restarts"))
    if run.sharding != "none":
        yield Problem("strategies need parameters that are not sharded", "remove run.sharding", ("run", "sharding"))
    if training.batch_size == "auto":
        message = "the batch size of a study must be written, so that all sites have the same"
        yield Problem(message, "e.g. batch_size: 16", ("training", "batch_size"))
    if training.gradient_compression is not None:
        message = "gradient_compression is for processes of one run"
        hint = "wrap the strategy: federation.strategy: {Payload: {strategy: {component: {dSGD: {}}}}}"
        yield Problem(message, hint, ("training", "gradient_compression"))
