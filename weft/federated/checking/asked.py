"""Checks of what a study asks of the model and its training: exactness, what stays private."""

from __future__ import annotations

from collections.abc import Callable

from weft.actions.checking.findings import Findings, listed
from weft.config import Experiment
from weft.engine import Run
from weft.errors import WeftError
from weft.federated.choosing import NORMALISES, normalises_over_batches, require_exact, require_private
from weft.federated.dsgd import dSGD


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
