"""What a study is compared with: training with all data in one place, and at each site alone, on the same splits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import ConcatDataset

from weft.actions.opening import open_experiment_data
from weft.config import Experiment, PretrainingConfig
from weft.data import Data, SplitData
from weft.engine import Membership, Run, Sum, build_run, drive_alone, training
from weft.engine.collectives import combine
from weft.engine.drivers import Steps
from weft.engine.loop import scoring
from weft.engine.seeding import outer_randomness_kept
from weft.errors import UsageError
from weft.federated.pretraining import pretrained
from weft.federated.site import Site

Scores = dict[str, dict[str, float]]


def compare_with_one_place(study: Experiment, sites: Sequence[Site]) -> dict[str, Any]:
    """Train with all data in one place, and each site alone: the same study, with one site instead of several.

    In one place a step takes as many items as all sites' together, `batch_size` times their number. A site alone scales
    its inputs by its own items, and is scored on its own: the counts of all sites are added up. Where the study begins
    with pretraining at its largest site, the one place begins with pretraining, too, and so does each site alone, on
    what they have. Scores are made alike: with `minimum_cells`, of bins that are put together at each site.

    Args:
        study: the experiment with its section `federation`.
        sites: after the study.

    Returns:
        scores of "study", "pooled" and "alone" by split, and of each site "alone_by_site", for JSON.
    """
    with outer_randomness_kept():
        pooled = _pooled(study, sites)
        alone, by_site = _alone(study, sites)
    live = next(site for site in sites if site.run is not None)
    study_scores = {name: split.scores for name, split in live.built.final.items()}
    return {"study": study_scores, "pooled": pooled, "alone": alone, "alone_by_site": by_site}


def union(parts: Sequence[Data], names: Sequence[str]) -> Data:
    """The data of several sites as those of one, site after site.

    Args:
        parts: opened alike: with the same names of classes, mean and scale.
        names: of the sites; they stand before the names of cases.
    """
    splits = {}
    for name in ("train", "validation", "test"):
        found = [(site, part.splits[name]) for site, part in zip(names, parts, strict=True) if name in part.splits]
        if found:
            splits[name] = _joined(name, found)
    return Data(splits, parts[0].classes, parts[0].statistics)


def _pooled(study: Experiment, sites: Sequence[Site]) -> Scores:
    assert study.federation is not None
    data = union([site.data for site in sites], [site.name for site in sites])
    size = study.training.items_per_batch * len(sites)
    settings = study.training.model_copy(update={"batch_size": size})
    experiment = sites[0].experiment.model_copy(update={"training": settings, "seed": study.seed})
    pretraining = study.federation.pretraining
    if pretraining is not None and pretraining.batch_size is not None:
        size = pretraining.batch_size * len(sites)
        pretraining = pretraining.model_copy(update={"batch_size": size})
    run = _trained(experiment, data, sites[0], study, pretraining)
    if study.federation.minimum_cells <= 1:  # sums over all items are sums of the sites' sums
        return _scores_of(run)
    return _added_up([_tested(run.state.scored_weights, site, study) for site in sites])


def _alone(study: Experiment, sites: Sequence[Site]) -> tuple[Scores, dict[str, Scores]]:
    assert study.federation is not None
    runs = {}
    for site in sites:
        if "train" not in site.data.splits:
            continue
        statistics = {"classes": classes} if (classes := site.data.classes) is not None else {}
        data = open_experiment_data(site.experiment, statistics)
        data.splits = {name: split for name, split in data.splits.items() if len(split)}
        runs[site.name] = _trained(site.experiment, data, site, study, study.federation.pretraining)
    by_site = {name: _scores_of(run) for name, run in runs.items()}
    return _added_up(list(runs.values())), by_site


def _added_up(runs: Sequence[Run]) -> Scores:
    """Scores of the items of several runs, from their counts; these become the first one's."""
    together: Scores = {}
    for split in ("train", "validation", "test"):
        books = [run.splits[split].book for run in runs if split in run.final]
        if books:
            books[0].load_states(combine([Sum(split, book.states()) for book in books]))
            together[split] = books[0].compute()
    return together


def _scores_of(run: Run) -> Scores:
    return {name: dict(split.scores) for name, split in run.final.items()}


def _trained(
    experiment: Experiment, data: Data, site: Site, study: Experiment, pretraining: PretrainingConfig | None
) -> Run:
    run = _built(experiment, data, site, study)

    def steps() -> Steps:
        if pretraining is not None:
            yield from pretrained(run, experiment, data, pretraining)
        return (yield from training(run))

    return _driven(run, steps())


def _tested(weights: dict[str, Tensor], site: Site, study: Experiment) -> Run:
    """A site's items, scored with given weights."""
    run = _built(site.experiment, site.data, site, study)
    module = run.state.average.module if run.state.average is not None else run.state.model
    module.load_state_dict(weights)
    return _driven(run, scoring(run, ("train",) if run.plan.score_train == "never" else ()))


def _built(experiment: Experiment, data: Data, site: Site, study: Experiment) -> Run:
    assert study.federation is not None
    membership = Membership(gather=False, minimum_cells=study.federation.minimum_cells)
    return build_run(experiment, data, interruption=site.interruption, membership=membership)


def _driven(run: Run, steps: Steps) -> Run:
    try:
        drive_alone(steps)
    finally:
        run.close()
    return run


def _joined(name: str, parts: Sequence[tuple[str, SplitData]]) -> SplitData:
    first = parts[0][1]
    splits = [split for _, split in parts]
    return SplitData(
        name,
        ConcatDataset([split.dataset for split in splits]),
        [f"{site}/{case}" for site, split in parts for case in split.cases],
        arrays=_joined_arrays([split.arrays for split in splits if split.arrays is not None], len(splits)),
        augmented=None if first.augmented is None else ConcatDataset([split.augmented for split in splits]),
        keys=first.keys,
        skip_bad=first.skip_bad,
    )


def _joined_arrays(arrays: Sequence[tuple[Any, Any]], wanted: int) -> tuple[Any, Any] | None:
    if len(arrays) < wanted:
        return None
    inputs = [part[0] for part in arrays]
    targets = [part[1] for part in arrays]
    several = isinstance(inputs[0], tuple)
    joined: Any = tuple(_rows(column) for column in zip(*inputs, strict=True)) if several else _rows(inputs)
    return joined, None if targets[0] is None else _rows(targets)


def _rows(parts: Sequence[Tensor]) -> Tensor:
    if len({tuple(part.shape[1:]) for part in parts}) > 1:
        shapes = ", ".join(str(list(part.shape[1:])) for part in parts)
        raise UsageError(f"items have other shapes at different sites: {shapes}", "bring them to one: dataset.shape")
    return torch.cat(list(parts))
