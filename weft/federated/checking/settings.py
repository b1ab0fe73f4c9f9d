"""What a study's section `federation` asks for and its sites cannot give: by `weft check`, and before training begins.

What can never be is an error; what may come to nothing, or to less than was meant, is a warning.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import combinations
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from weft.actions.checking.estimates import steps_of
from weft.actions.checking.findings import Findings, count, listed
from weft.config import Experiment, FederationConfig
from weft.config.component import Place
from weft.engine import Strategy
from weft.errors import ConfigError, Problem, UsageError
from weft.federated.checking.classes import check_labels
from weft.federated.choosing import build_strategy
from weft.federated.snapshots import has_rounds
from weft.federated.wrapping import innermost

if TYPE_CHECKING:
    from weft.federated.site import Site

logger = logging.getLogger("weft")

_FROM_BINS = ("auroc", "average_precision", "calibration_error")  # scores that minimum_cells changes
Counts = Mapping[str, Mapping[str, Sequence[int]]]  # items of each class, by site and split


def check_settings(study: Experiment, strategy: Strategy | None, findings: Findings) -> None:
    """What can be told from the file alone.

    Args:
        study: with its section `federation`.
        strategy: as it names it; None where that cannot be built.
        findings: goes in here.
    """
    federation = study.federation
    assert federation is not None
    _check_cohort(federation, findings)
    if strategy is not None:
        _check_robust(federation, strategy, findings)
    _check_same_source(federation, findings)
    _check_cells_wanted(study, findings)


def check_with_sites(
    study: Experiment, strategy: Strategy, batches: Mapping[str, int], steps: int, findings: Findings
) -> None:
    """What can be told once it is known what each site has.

    Args:
        study: with its section `federation`.
        strategy: of the study.
        batches: of an epoch, by site; 0 or none of those that have nothing to train on.
        steps: of an epoch.
        findings: goes in here.
    """
    federation = study.federation
    assert federation is not None
    training = {name: amount for name, amount in batches.items() if amount}
    _check_robust_with(federation, strategy, training, findings)
    if len(training) == 1 and len(federation.sites) > 1:
        (only,) = training
        findings.warning(
            "one training site", only,
            f"only {only} has training data: what the others receive in each round is what {only} alone computed",
            "give other sites training data, or train there with weft train", sites=[only],
        )  # fmt: skip
    rounds = getattr(innermost(strategy), "steps_per_round", None)
    if rounds is not None and rounds > steps:
        findings.warning(
            "rounds", "federation.steps_per_round" if federation.steps_per_round else "federation.strategy",
            f"a round of {rounds} steps ends with its epoch, after {steps}", f"write at most {steps}, or leave it out",
        )  # fmt: skip
    every, whole = federation.cohort.compare_weights, steps_of(study, steps)
    if "compare_weights" in federation.cohort.model_fields_set and every is not None and every > whole:
        findings.warning(
            "cohort", "federation.cohort.compare_weights",
            f"weights are compared after {every} steps, but the study takes {whole}", f"write at most {whole}",
        )  # fmt: skip


def check_cells(study: Experiment, counts: Counts, findings: Findings) -> None:
    """Sites with fewer items of a class than `minimum_cells`: what follows from bins, they do not tell.

    Args:
        study: with its section `federation`.
        counts: of classes that occur, where all items of a split were looked at.
        findings: goes in here.
    """
    assert study.federation is not None
    cells, scored = study.federation.minimum_cells, {}
    if cells <= 1:
        return
    for name, by_split in counts.items():
        scored[name] = {split: any(n < cells for n in own) for split, own in by_split.items() if split != "train"}
    silent = {name: sorted(split for split, below in own.items() if below) for name, own in scored.items()}
    silent = {name: splits for name, splits in silent.items() if splits}
    if not silent:
        return
    told = listed(f"{name} ({listed(splits)})" for name, splits in silent.items())
    findings.note(
        "minimum cells", listed(silent),
        f"fewer than {cells} items of a class at {told}: AUROC and average precision are pooled without "
        "these, with wider bounds", sites=list(silent), minimum_cells=cells,
    )  # fmt: skip
    for split in sorted({split for splits in silent.values() for split in splits}):
        if all(own.get(split, True) for own in scored.values()) and any(split in own for own in scored.values()):
            monitor = study.training.monitor
            followed = split == "validation" and monitor is not None and str(monitor.metric) in _FROM_BINS
            findings.report(
                "error" if followed else "warning", "minimum cells", "federation.minimum_cells",
                f"no site has {cells} items of each class in {split}: AUROC and average precision are undefined there"
                + (", and training follows one of them" if followed else ""),
                "write a smaller number, or give more items to this split", split=split, minimum_cells=cells,
            )  # fmt: skip


def refuse_settings(study: Experiment) -> None:
    """Before anything is read: errors end the study, warnings are told.

    Raises:
        ConfigError, UsageError: there are errors; with their places in the file.
    """
    findings = Findings()
    try:
        strategy = build_strategy(study)
    except UsageError as error:
        place = study._document.place(("federation", "strategy"), key=True) if study._document is not None else Place()
        where = ":".join(str(part) for part in (place.file, place.line, place.column) if part is not None)
        message = ": ".join(part for part in (where, "federation.strategy", error.message) if part)
        raise UsageError(message, error.hint) from error
    check_settings(study, strategy, findings)
    _tell(findings)


def tell_unlike_labels(told: Mapping[str, Sequence[str] | None]) -> None:
    """Warn of labels that sites write in unlike ways: they would be classes of their own.

    Args:
        told: by site the names of the classes that occur there; None where targets are no classes.
    """
    findings = Findings()
    check_labels({name: set(names or ()) for name, names in told.items()}, findings)
    for one in findings:
        logger.warning("%s; %s", one.message, one.remedy)


def refuse_sites(study: Experiment, sites: Sequence[Site]) -> int:
    """Before training, when all sites have opened their data: errors end the study, warnings are told.

    Returns:
        the steps that the study takes where nothing ends it earlier.

    Raises:
        ConfigError: there are errors; with their places in the file.
    """
    steps = max(site.built.steps_per_epoch for site in sites)
    findings = Findings()
    strategy = sites[0].built.state.strategy
    assert strategy is not None
    check_with_sites(study, strategy, {site.name: site.built.batches for site in sites}, steps, findings)
    counts = {
        site.name: {split: _classes_in(data.arrays) for split, data in site.data.splits.items()} for site in sites
    }
    check_cells(study, counts, findings)
    _tell(findings)
    return steps_of(study, steps)


def _classes_in(arrays: tuple[object, object] | None) -> list[int]:
    """Items of each class that occurs; none where targets are no classes, or not in memory."""
    targets = None if arrays is None else arrays[1]
    if not isinstance(targets, Tensor) or targets.ndim != 1 or targets.is_floating_point():
        return []
    return [int(amount) for amount in torch.unique(targets, return_counts=True)[1]]


@contextmanager
def told_with_places(study: Experiment) -> Iterator[None]:
    """Problems with keys of the study's file are told with where these stand there."""
    try:
        yield
    except ConfigError as error:
        document = study._document
        if document is None:
            raise
        raise ConfigError([document.at(one, key=True) if one.path else one for one in error.problems]) from error


def _tell(findings: Findings) -> None:
    problems = []
    for one in findings:
        key = tuple(one.where.split(".")) if one.where.startswith("federation.") else ()
        if one.severity == "error":
            problems.append(Problem(one.message, one.remedy, key))
        elif one.severity == "warning":
            logger.warning("%s%s; %s", f"{one.where}: " if key else "", one.message, one.remedy)
    if problems:
        raise ConfigError(problems)


def _check_cohort(federation: FederationConfig, findings: Findings) -> None:
    sites, wanted, where = len(federation.sites), federation.cohort.minimum_sites, "federation.cohort.minimum_sites"
    if wanted > sites:
        findings.error(
            "cohort", where,
            f"the study has {count(sites, 'site')} and stops with fewer than {wanted}: it can never begin",
            f"write at most {sites}",
        )  # fmt: skip
    elif federation.cohort.deadline is not None and wanted == sites:
        findings.warning(
            "cohort", where,
            f"the study stops with fewer than {wanted} of its {sites} sites: one that misses the deadline of "
            f"{federation.cohort.deadline:g} s ends it", "lower minimum_sites, or remove the deadline",
        )  # fmt: skip


def _needed(strategy: Strategy) -> tuple[str, int, int]:
    """The aggregate, how many sites it tolerates, and among how many it can (0: any number, as it tolerates none).

    Krum: Blanchard et al., 2017, arXiv:1703.02757 (2f + 3 or more); median and trimmed mean: Yin et al., 2018,
    arXiv:1803.01498 (fewer than half, so 2f + 1 or more).
    """
    inner = innermost(strategy)
    aggregate, tolerated = str(getattr(inner, "aggregate", "sum")), int(getattr(inner, "tolerated", 0))
    least = {"krum": 2 * tolerated + 3, "median": 2 * tolerated + 1, "trimmed_mean": 2 * tolerated + 1}
    return aggregate, tolerated, least.get(aggregate, 0) if tolerated else 0


def _check_robust(federation: FederationConfig, strategy: Strategy, findings: Findings) -> None:
    aggregate, tolerated, needed = _needed(strategy)
    sites, least, where = len(federation.sites), federation.cohort.minimum_sites, "federation.strategy"
    written = federation.strategy.arguments
    if aggregate == "sum":
        if "tolerated" in written:
            findings.warning(
                "robust mean", where, f"tolerated: {tolerated} says nothing with aggregate: sum, which tolerates no "
                "site that sends anything", "add aggregate: median, trimmed_mean or krum, or remove it",
            )  # fmt: skip
    elif sites < needed:
        findings.error("robust mean", where, *_too_few(aggregate, tolerated, needed, f"the study has {sites}"),
                       aggregate=aggregate, tolerated=tolerated, sites_needed=needed)  # fmt: skip
    elif least < needed:
        findings.warning(
            "robust mean", "federation.cohort.minimum_sites",
            _too_few(aggregate, tolerated, needed, f"the study goes on with {least}")[0],
            f"write minimum_sites: {needed}, or a smaller tolerated",
            aggregate=aggregate, tolerated=tolerated, sites_needed=needed,
        )  # fmt: skip
    if tolerated == 0:
        _check_of_two(aggregate, sites, f"the study has {sites}", findings)
    if aggregate == "trimmed_mean" and tolerated == 0:
        message = "a trimmed mean that trims nothing is the mean of all sites, which count alike"
        findings.warning("robust mean", where, message, "write tolerated: 1 or more, or aggregate: sum")


def _check_robust_with(
    federation: FederationConfig, strategy: Strategy, training: Mapping[str, int], findings: Findings
) -> None:
    """Only sites with something to train on count in a robust mean."""
    aggregate, tolerated, needed = _needed(strategy)
    if aggregate == "sum" or len(federation.sites) < needed:
        return
    if tolerated == 0 and len(federation.sites) > 2:
        _check_of_two(aggregate, len(training), f"only {len(training)} have training data", findings)
    evidence: dict[str, Any] = {"aggregate": aggregate, "tolerated": tolerated, "sites_needed": needed}
    if len(training) < needed:
        told = _too_few(aggregate, tolerated, needed, f"only {len(training)} have training data")
        findings.error("robust mean", "federation.strategy", *told, **evidence)
    elif federation.uneven == "weight_zero" and not has_rounds(strategy):
        ends = sorted(training.values(), reverse=True)
        without = ends[0] - ends[needed - 1]  # steps in which fewer sites have batches left
        if without:
            findings.warning(
                "robust mean", "federation.uneven",
                _too_few(aggregate, tolerated, needed, f"in {without} of {ends[0]} steps of an epoch fewer have items "
                         "left")[0],
                "write uneven: wrap or stop, or use FedAvg or its kin", **evidence,
            )  # fmt: skip


def _check_of_two(aggregate: str, sites: int, found: str, findings: Findings) -> None:
    """Where none is tolerated, any number of sites is enough; of two, the median and Krum's choice are the mean."""
    if aggregate in ("median", "krum") and sites == 2:
        findings.warning(
            "robust mean", "federation.strategy",
            f"the {'median' if aggregate == 'median' else 'choice of Krum'} of two sites is their mean, which counts "
            f"them alike, and {found}", "write aggregate: sum, or find more sites", aggregate=aggregate, tolerated=0,
        )  # fmt: skip


def _too_few(aggregate: str, tolerated: int, needed: int, found: str) -> tuple[str, str]:
    message = (
        f"{aggregate} keeps {count(tolerated, 'site')} that may send anything from spoiling the model among "
        f"{needed} or more, but {found}"
    )
    return message, "set tolerated to a smaller number, use another aggregate, or find more sites"


def _check_same_source(federation: FederationConfig, findings: Findings) -> None:
    pairs = [
        pair for pair in combinations(federation.sites, 2) if federation.sites[pair[0]] == federation.sites[pair[1]]
    ]
    if pairs:
        names = sorted({name for pair in pairs for name in pair})
        findings.warning(
            "same source", f"federation.sites.{pairs[0][1]}",
            f"{listed(names)} name the same data: their items count several times, and what one site trains on "
            "another is scored on", "name the data of each site", sites=names,
        )  # fmt: skip


def _check_cells_wanted(study: Experiment, findings: Findings) -> None:
    assert study.federation is not None
    cells, metrics = study.federation.minimum_cells, study.training.metrics
    where = "federation.minimum_cells"
    if cells == 1:
        findings.warning("minimum cells", where, "every bin that is not empty has an item: 1 changes nothing",
                         "write 5, for example, or remove it")  # fmt: skip
    elif cells > 1 and metrics is not None and not any(one.name in _FROM_BINS for one in metrics):
        named = listed(one.name for one in metrics)
        findings.warning("minimum cells", where, f"no score of this study comes from bins ({named})",
                         "add auroc or average_precision, or remove it")  # fmt: skip
