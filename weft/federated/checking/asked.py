"""Checks of what a study asks for: sites that must be there, robust means, exactness, what stays private."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from weft.actions.checking.findings import Findings, count, listed
from weft.actions.checking.samples import Looked
from weft.config import Experiment
from weft.engine import Run, Strategy
from weft.errors import WeftError
from weft.federated.choosing import NORMALISES, normalises_over_batches, require_exact, require_private
from weft.federated.dsgd import dSGD
from weft.federated.wrapping import innermost


def check_cohort(study: Experiment, findings: Findings) -> None:
    """Whether the study can begin with the sites that it has."""
    assert study.federation is not None
    sites, wanted = len(study.federation.sites), study.federation.cohort.minimum_sites
    if wanted > sites:
        findings.error(
            "cohort", "federation.cohort.minimum_sites",
            f"the study has {count(sites, 'site')} and stops with fewer than {wanted}: it can never begin",
            f"write at most {sites}",
        )  # fmt: skip


def check_robust(strategy: Strategy, training: int, findings: Findings) -> None:
    """Whether there are enough sites for a mean that some cannot spoil.

    Args:
        strategy: of the study.
        training: how many sites have something to train on.
        findings: goes in here.
    """
    inner = innermost(strategy)
    aggregate, tolerated = getattr(inner, "aggregate", "sum"), int(getattr(inner, "tolerated", 0))
    if aggregate == "sum" or tolerated == 0:
        return
    needed = 2 * tolerated + (3 if aggregate == "krum" else 1)
    if training < needed:
        findings.warning(
            "robust mean", "federation.strategy",
            f"{aggregate} keeps {count(tolerated, 'site')} that may send anything from spoiling the model among "
            f"{needed} or more, but only {training} have training data",
            "set tolerated to a smaller number, use another aggregate, or find more sites",
            aggregate=aggregate, tolerated=tolerated, sites_needed=needed,
        )  # fmt: skip


def check_cells(study: Experiment, looked: Mapping[str, Mapping[str, Looked]], findings: Findings) -> None:
    """Sites with fewer items of a class than `minimum_cells`: what follows from bins, they do not tell.

    Args:
        study: with its section `federation`.
        looked: what was seen, by site and split.
        findings: goes in here.
    """
    assert study.federation is not None
    cells = study.federation.minimum_cells
    silent = {
        name: sorted(split for split, seen in by_split.items() if split != "train" and _is_below(seen, cells))
        for name, by_split in looked.items()
    }
    silent = {name: splits for name, splits in silent.items() if splits}
    if cells > 1 and silent:
        told = listed(f"{name} ({listed(splits)})" for name, splits in silent.items())
        findings.note(
            "minimum cells", listed(silent),
            f"fewer than {cells} items of a class at {told}: AUROC and average precision are pooled without "
            "these, with wider bounds", sites=list(silent), minimum_cells=cells,
        )  # fmt: skip


def _is_below(seen: Looked, cells: int) -> bool:
    return seen.complete and seen.targets is not None and any(n < cells for n in seen.targets.holders.values())


def check_demands(run: Run, study: Experiment, findings: Findings) -> None:
    """What the study asks of the model and its training.

    Args:
        run: of one site, with the study's strategy.
        study: with its section `federation`.
        findings: goes in here.
    """
    assert study.federation is not None
    demands: dict[str, Callable[[], None]] = {"private": lambda: require_private(run, study)}
    if study.federation.exact:
        demands["exact"] = lambda: require_exact(run)
    for name, demand in demands.items():
        try:
            demand()
        except WeftError as error:
            findings.raised(name, f"federation.{name}", error)
    layers = normalises_over_batches(run)
    if layers and isinstance(run.state.strategy, dSGD) and not study.federation.exact:
        findings.warning(
            "batch normalisation", f"layer {listed(layers, 3)}", NORMALISES,
            "normalise otherwise (normalization: group), freeze these layers, or use strategy: FedBN", layers=layers,
        )  # fmt: skip
