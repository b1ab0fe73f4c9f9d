"""What the directory of a study says of it, beside what comes out."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from weft.actions.opening import digest_experiment_data, open_experiment_data, threads_of
from weft.config import Experiment, dump_yaml, fingerprint
from weft.engine import pick_device
from weft.federated.site import Site, site_experiment
from weft.runs import RunDirectory, collect_provenance, snapshot_code, write_atomically, write_requirements


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
    manifest = digest_experiment_data(experiment)
    write_atomically(directory.experiment_file, dump_yaml(experiment).encode())
    patches = snapshot_code(directory, [experiment.path(patch) for patch in experiment.patches])
    write_requirements(directory.requirements)
    extra = {
        "base": str(experiment.base),
        "patches": patches,
        "data": {"digest": manifest.digest, "files": manifest.as_dict()["files"], "undigested": manifest.undigested},
        "run_threads": threads,
        "device": str(pick_device(experiment.run.device)),
        "sites": {site.name: f"sites/{site.name}" for site in sites},
    }
    seeds = {"seed": experiment.seed, **{f"seed of {site.name}": site.experiment.seed for site in sites}}
    provenance = collect_provenance(
        fingerprint(experiment, manifest.digest), seeds, sys.argv, folder=experiment.base, extra=extra
    )
    directory.write_json(directory.provenance_file, provenance)
    return provenance


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
