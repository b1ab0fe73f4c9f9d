"""What comes out of a study: the run of each site, and what all of them have in common."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from weft.actions.ending import report_on, write_outcome
from weft.actions.scores import write_scores, write_states
from weft.config import Experiment
from weft.engine import RunResult
from weft.engine.weights import save_weights
from weft.federated.site import Site
from weft.federated.traffic import summary, trained
from weft.runs import RunDirectory


def write_site(site: Site, result: RunResult) -> dict[str, Any]:
    """Write the run of a site, with the scores of its own items.

    Args:
        site: at its end.
        result: what its generator returned.

    Returns:
        what the study says of it.
    """
    run = site.built
    own = site.own_scores()
    scores = {name: split.scores for name, split in own.items()}
    pooled, run.final = run.final, own
    try:
        write_outcome(site.directory, site.experiment, run, replace(result, scores=scores))
    finally:
        run.final = pooled
    report_on(site.directory)
    return {
        "scores": scores,
        "items": {name: len(split) for name, split in site.data.splits.items()},
        "trained": trained(run.state.beside),
        "bytes": summary(run.state.beside),
        "model_sha256": result.model_sha256,
    }


def write_common(
    directory: RunDirectory, experiment: Experiment, first: Site, result: RunResult, *, one_model: bool
) -> None:
    """Write pooled scores, statistics and the model.

    Args:
        directory: of the study.
        experiment: its.
        first: a site that came to its end.
        result: what that site's generator returned.
        one_model: whether all sites ended with the same weights.
    """
    run = first.built
    for name, split in run.final.items():
        write_scores(directory.scores, name, replace(split, rows=[]), result.model_sha256)
        if experiment.fold is not None:
            write_states(directory.scores, name, run.splits[name].book)
    if one_model:
        save_weights(run.state.scored_weights, directory.weights)
    directory.write_json(directory.statistics_file, first.data.statistics)
