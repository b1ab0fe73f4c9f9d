"""The names of Weft's scores: what each means, for which kinds of task, which direction is better. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from types import MappingProxyType
from typing import Literal, get_args

from weft.errors import UsageError

Kind = Literal["binary", "multiclass", "multilabel", "regression", "segmentation"]
Mode = Literal["min", "max"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_LABELS: tuple[Kind, ...] = ("binary", "multiclass", "multilabel")
_MATRIX: tuple[Kind, ...] = ("binary", "multiclass")


@dataclass(frozen=True, slots=True)
class MetricInfo:
    """What is known about one score before any data are seen.

    Args:
        meaning: one line for people.
        kinds: the kinds of task it applies to.
        mode: the direction that is better.
        family: the accumulator that it follows from; scores of one family share their sums.
        arguments: names of its arguments and their defaults.
    """

    meaning: str
    kinds: tuple[Kind, ...]
    mode: Mode
    family: str
    arguments: Mapping[str, object] = field(default_factory=dict)


_AVERAGE = {"average": "auto"}
_SURFACE = {"missing": "leave_out"}

KNOWN: Mapping[str, MetricInfo] = MappingProxyType(
    {
        "loss": MetricInfo("mean training loss, weighted by items; always present", KINDS, "min", "loss"),
        "accuracy": MetricInfo(
            "share of right labels (multilabel: of right yes/no decisions; segmentation: of voxels)",
            (*_LABELS, "segmentation"),
            "max",
            "confusion",
        ),
        "balanced_accuracy": MetricInfo("mean recall over the classes that occur", _LABELS, "max", "confusion"),
        "precision": MetricInfo("true among predicted positives", _LABELS, "max", "confusion", _AVERAGE),
        "recall": MetricInfo("found among real positives", _LABELS, "max", "confusion", _AVERAGE),
        "sensitivity": MetricInfo("the same as recall", _LABELS, "max", "confusion", _AVERAGE),
        "specificity": MetricInfo("negatives recognised as such", _LABELS, "max", "confusion", _AVERAGE),
        "negative_predictive_value": MetricInfo(
            "true among predicted negatives", _LABELS, "max", "confusion", _AVERAGE
        ),
        "f1": MetricInfo("harmonic mean of precision and recall", _LABELS, "max", "confusion", _AVERAGE),
        "jaccard": MetricInfo("intersection over union of labels", _LABELS, "max", "confusion", _AVERAGE),
        "kappa": MetricInfo(
            "agreement beyond chance (Cohen); weights: none, linear or quadratic",
            _MATRIX,
            "max",
            "confusion",
            {"weights": "none"},
        ),
        "mcc": MetricInfo("Matthews correlation coefficient", _MATRIX, "max", "confusion"),
        "exact_match": MetricInfo("share of samples with every label right", ("multilabel",), "max", "confusion"),
        "top_k_accuracy": MetricInfo(
            "share of samples whose class is among the k highest logits", ("multiclass",), "max", "top_k", {"k": 5}
        ),
        "auroc": MetricInfo(
            "area under the ROC curve, one against the rest, mean over classes", _LABELS, "max", "ranking"
        ),
        "average_precision": MetricInfo(
            "area under the precision-recall curve (steps), mean over classes", _LABELS, "max", "ranking"
        ),
        "calibration_error": MetricInfo(
            "expected calibration error over equal bins of probability", _LABELS, "min", "probability", {"bins": 15}
        ),
        "brier": MetricInfo("mean squared error of the probabilities", _LABELS, "min", "probability"),
        "log_loss": MetricInfo("mean negative log-probability of the true label", _LABELS, "min", "probability"),
        "mse": MetricInfo("mean squared error", ("regression",), "min", "regression"),
        "rmse": MetricInfo("root of the mean squared error", ("regression",), "min", "regression"),
        "mae": MetricInfo("mean absolute error", ("regression",), "min", "regression"),
        "r2": MetricInfo("explained share of variance, mean over outputs", ("regression",), "max", "regression"),
        "pearson": MetricInfo("Pearson correlation, mean over outputs", ("regression",), "max", "regression"),
        "dice": MetricInfo(
            "Dice of each case and foreground class, mean over cases, then over classes",
            ("segmentation",),
            "max",
            "confusion",
        ),
        "iou": MetricInfo(
            "intersection over union of each case and foreground class, mean over cases, then over classes",
            ("segmentation",),
            "max",
            "confusion",
        ),
        "pooled_dice": MetricInfo(
            "Dice from the voxels of all cases together, mean over foreground classes",
            ("segmentation",),
            "max",
            "confusion",
        ),
        "hd": MetricInfo("Hausdorff distance between surface voxels", ("segmentation",), "min", "surface", _SURFACE),
        "hd95": MetricInfo(
            "larger of the two directed 95th percentiles of the distances between surface voxels",
            ("segmentation",),
            "min",
            "surface",
            _SURFACE,
        ),
        "assd": MetricInfo(
            "average symmetric distance between surface voxels", ("segmentation",), "min", "surface", _SURFACE
        ),
        "nsd": MetricInfo(
            "normalised surface Dice: share of surface voxels within the tolerance (in units of the spacing)",
            ("segmentation",),
            "max",
            "surface",
            {"tolerance": 1.0},
        ),
    }
)
"""Every score that can be asked for by name."""


def check_kind(kind: str) -> Kind:
    """The kind of task, checked; an unknown one is a UsageError."""
    for known in KINDS:
        if kind == known:
            return known
    raise UsageError(f"unknown kind of task '{kind}'", f"kinds are {', '.join(KINDS)}")


def find_metric(name: str, kind: str | None = None) -> MetricInfo:
    """Look up a score by name.

    Args:
        name: a key of `KNOWN`.
        kind: the kind of task it shall serve; None checks the name alone.

    Raises:
        UsageError: the name is unknown (the hint has the nearest) or does not apply to the kind.
    """
    if name not in KNOWN:
        near = get_close_matches(name, KNOWN, n=1, cutoff=0.5)
        known = ", ".join(sorted(n for n, i in KNOWN.items() if kind is None or kind in i.kinds))
        raise UsageError(f"unknown metric '{name}'", f"did you mean '{near[0]}'?" if near else f"known are: {known}")
    info = KNOWN[name]
    if kind is not None and check_kind(kind) not in info.kinds:
        usable = ", ".join(sorted(n for n, i in KNOWN.items() if kind in i.kinds))
        raise UsageError(
            f"metric '{name}' is for {', '.join(info.kinds)}, not for {kind}", f"for {kind} there are: {usable}"
        )
    return info


def score_name(name: str, arguments: Mapping[str, object]) -> str:
    """What a score is called among the results: its name, with the arguments that make it another score.

    Args:
        name: a key of `KNOWN`.
        arguments: as given; defaults are filled in.
    """
    filled = {**KNOWN[name].arguments, **arguments}
    if filled.get("average", "auto") != "auto":
        name = f"{name}_{filled['average']}"
    if filled.get("weights", "none") != "none":
        name = f"{name}_{filled['weights']}"
    return name.replace("_k_", f"_{filled['k']}_") if "k" in filled else name


def name_of(metric: object) -> str:
    """What a score of somebody else's is called: the name of its function, or of its class, in small letters with _."""
    named = metric if isinstance(metric, type) or hasattr(metric, "__name__") else type(metric)
    return snake_case(str(getattr(named, "__name__", type(metric).__name__)))


def mode_of(metric: object) -> Mode | None:
    """Which direction is better as the object says (`higher_is_better` or `mode`); None when it does not."""
    mode = getattr(metric, "mode", None)
    if mode == "min" or mode == "max":
        return "min" if mode == "min" else "max"
    better = getattr(metric, "higher_is_better", None)
    return None if better is None else ("max" if better else "min")


def snake_case(name: str) -> str:
    """`MeanAbsoluteError` as `mean_absolute_error`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower().strip("<>")


def check_arguments(name: str, arguments: Mapping[str, object]) -> None:
    """See whether a score has the arguments that it is given.

    Args:
        name: of the score.
        arguments: by name.

    Raises:
        UsageError: there is no such score, or it has no such argument.
    """
    allowed = find_metric(name).arguments
    for argument in arguments:
        if argument not in allowed:
            near = get_close_matches(argument, allowed, n=1, cutoff=0.4)
            told = ", ".join(f"{key}={value!r}" for key, value in allowed.items()) or "none"
            hint = f"did you mean '{near[0]}'?" if near else f"its arguments: {told}"
            raise UsageError(f"metric '{name}' has no argument '{argument}'", hint)
