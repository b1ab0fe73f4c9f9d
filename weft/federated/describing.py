"""What the directory of a study says of it, beside what comes out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from weft.actions.beginning import describe_origin
from weft.actions.opening import digest_experiment_data, open_experiment_data, threads_of
from weft.config import Experiment
from weft.federated.site import Site, site_experiment
from weft.runs import RunDirectory


def describe_study(
    directory: RunDirectory, experiment: Experiment, threads: int, sites: Sequence[Site]
) -> dict[str, Any]:
    """Write the experiment, its code, and where it comes from (last of all); returns the provenance.

    Args:
        directory: of the study, locked.
        experiment: with its section `federation`.
        threads: of an operation.
        sites: that take part.
    """
    seeds = {"seed": experiment.seed, **{f"seed of {site.name}": site.experiment.seed for site in sites}}
    folders = {site.name: f"sites/{site.name}" for site in sites}
    manifest = digest_experiment_data(experiment)
    return describe_origin(directory, experiment, manifest, threads, seeds, {}, sites=folders)


def threads_of_study(experiment: Experiment) -> int:
    """Threads of an operation: as written, or as the batches of the first site ask for."""
    if experiment.run.threads != "auto":
        return int(experiment.run.threads)
    assert experiment.federation is not None
    first = site_experiment(experiment, min(experiment.federation.sites))
    plain = first.model_copy(update={"dataset": first.dataset.model_copy(update={"standardize": False})})
    return threads_of(plain, open_experiment_data(plain))


def bounds_of(details: dict[str, Any]) -> dict[str, float]:
    """How far scores from bins may be off, by name of the score."""
    return {key.removesuffix("_bound"): value for key, value in details.items() if key.endswith("_bound")}
