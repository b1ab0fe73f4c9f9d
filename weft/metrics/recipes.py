"""How each score follows from sums over cases, or from their order. Imports no torch.

The formulas are those of the score book (`formulas`, `ranks`); which variant of a score was meant (binary or one of two
classes, mean of classes or not) is found by trying: see `rescoring`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy

from weft.metrics import formulas, ranks
from weft.metrics.caseterms import Layout
from weft.metrics.formulas import Array, Counts, mean_defined, ratio
from weft.metrics.names import KNOWN

_AVERAGES = ("macro", "micro", "weighted")
_WEIGHTS = ("linear", "quadratic")
_LABEL_SCORES = (*formulas.PER_CLASS, "accuracy", "balanced_accuracy", "mcc")
_PROBABILITY_SCORES = {"calibration_error": -1, "brier": -3, "log_loss": -2}  # the place of the sum, from the end
_RANK_SCORES: dict[str, Callable[[Array, Array], Array]] = {
    "auroc": ranks.auroc,
    "average_precision": ranks.average_precision,
}
_REGRESSION_SUMS = 7
_ROUNDING = 1e-12  # a variance this small beside the squares is none


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a score follows from case rows.

    Args:
        family: which sums it needs (a key of `caseterms.TERMS`), "order binary|multiclass|multilabel", or
            "values <columns>".
        formula: from totals [..., width] to the score [...]; of orders, from positives and negatives.
    """

    family: str
    formula: Callable[..., Array]

    @property
    def ranks(self) -> bool:
        """Whether it needs the order of cases."""
        return self.family.startswith("order ")


def split_key(key: str) -> tuple[str, dict[str, str]]:
    """Name and arguments of a score from what it is called in results: `f1_macro` is f1 with average macro."""
    if key.startswith("top_") and key.endswith("_accuracy") and key[4:-9].isdigit():
        return "top_k_accuracy", {"k": key[4:-9]}
    name, _, ending = key.rpartition("_")
    if ending in _AVERAGES and "average" in (KNOWN[name].arguments if name in KNOWN else ()):
        return name, {"average": ending}
    if ending in _WEIGHTS and name == "kappa":
        return name, {"weights": ending}
    return key, {}


def candidates(key: str, layout: Layout) -> Iterator[Recipe]:
    """Recipes that may be meant by a score, the likeliest first; none where case rows cannot give it.

    Args:
        key: what the score is called in results.
        layout: what the rows hold.
    """
    yield from _BY_KIND[layout.kind](key, layout)
    if layout.kind != "values":
        yield Recipe(f"values {key}", _mean_of_values)  # an own score that left a column


def _single(key: str, layout: Layout) -> Iterator[Recipe]:
    name, arguments = split_key(key)
    classes, kinds = len(layout.labels), ["binary", "multiclass"] if len(layout.labels) == 2 else ["multiclass"]
    if name in _LABEL_SCORES:
        averages = [arguments["average"]] if arguments else (["positive", "macro"] if classes == 2 else ["macro"])
        for average in averages:
            yield Recipe("labels", partial(_of_labels, name=name, classes=classes, average=average))
    elif name == "kappa":
        weights = arguments.get("weights", "none")
        yield Recipe("labels", partial(_kappa, classes=classes, weights=weights))
    elif name == "top_k_accuracy":
        yield Recipe("ranks", partial(_top_k, k=int(arguments.get("k", 5))))
    elif name in _PROBABILITY_SCORES or name == "loss":
        for family in ("probability of the positive", "probability of the class")[2 - len(kinds) :]:
            yield Recipe(family, partial(_probability, name="log_loss" if name == "loss" else name, bins=layout.bins))
    elif name in _RANK_SCORES:
        for kind in kinds:
            yield Recipe(f"order {kind}", _RANK_SCORES[name])


def _multilabel(key: str, layout: Layout) -> Iterator[Recipe]:
    name, arguments = split_key(key)
    width = len(layout.labels)
    if name in _LABEL_SCORES:
        average = arguments.get("average", "macro")
        yield Recipe("multilabel", partial(_of_tables, name=name, width=width, average=average))
    elif name == "exact_match":
        yield Recipe("multilabel", lambda totals: ratio(totals[..., -2], totals[..., -1]))
    elif name in _PROBABILITY_SCORES or name == "loss":
        score = "log_loss" if name == "loss" else name
        yield Recipe("probability of labels", partial(_probability, name=score, bins=layout.bins, each=width))
    elif name in _RANK_SCORES:
        yield Recipe("order multilabel", _RANK_SCORES[name])


def _regression(key: str, layout: Layout) -> Iterator[Recipe]:
    for name in ("mse", "mae") if key == "loss" else (key,):
        if name in ("mse", "rmse", "mae", "r2", "pearson"):
            yield Recipe("regression", partial(_regressed, name=name))


def _values(key: str, layout: Layout) -> Iterator[Recipe]:
    if key == "pooled_dice":
        yield Recipe("voxels", lambda totals: mean_defined(ratio(totals[..., 0::2], totals[..., 1::2])))
        return
    if layout.labels:
        yield Recipe("values " + "|".join(f"{key}_{label}" for label in layout.labels), _mean_of_values)
    yield Recipe(f"values {key}", _mean_of_values)


_BY_KIND = {"single": _single, "multilabel": _multilabel, "regression": _regression, "values": _values}


def _of_labels(totals: Array, name: str, classes: int, average: str) -> Array:
    true, predicted, hits = (totals[..., part * classes : (part + 1) * classes] for part in range(3))
    return formulas.label_score(name, Counts.of_margins(hits, true, predicted, true.sum(-1)), average)


def _kappa(totals: Array, classes: int, weights: str) -> Array:
    true, predicted, hits = (totals[..., part * classes : (part + 1) * classes] for part in range(3))
    mistakes = true.sum(-1) - hits.sum(-1)
    disagreement = {"none": mistakes, "linear": totals[..., -2], "quadratic": totals[..., -1]}[weights]
    return formulas.kappa(disagreement, true, predicted, weights)


def _top_k(totals: Array, k: int) -> Array:
    return ratio(totals[..., :k].sum(-1), totals.sum(-1))


def _of_tables(totals: Array, name: str, width: int, average: str) -> Array:
    true, predicted, hits = (totals[..., part * width : (part + 1) * width] for part in range(3))
    each = Counts.of_margins(hits, true, predicted, totals[..., -1])
    return formulas.label_score(name, Counts(each.tp, each.fp, each.fn, each.tn, exclusive=False), average)


def _probability(totals: Array, name: str, bins: int, each: int = 1) -> Array:
    """Calibration error, Brier score or log loss; `each` probabilities were judged per case."""
    if name == "calibration_error":
        confidence, hits = totals[..., :bins], totals[..., bins : 2 * bins]
        return formulas.calibration_error(confidence, hits, totals[..., -1] * each)
    return ratio(totals[..., _PROBABILITY_SCORES[name]], totals[..., -1])


def _mean_of_values(totals: Array) -> Array:
    return mean_defined(ratio(totals[..., 0::2], totals[..., 1::2]))


def _regressed(totals: Array, name: str) -> Array:
    count = totals[..., -1:]
    sums = totals[..., :-1].reshape(*totals.shape[:-1], -1, _REGRESSION_SUMS)
    true, said, true2, said2, both, squared, absolute = numpy.moveaxis(sums, -1, 0)
    if name in ("mse", "rmse"):
        mean: Array = ratio(squared, count).mean(-1)
        return mean if name == "mse" else numpy.sqrt(mean)
    if name == "mae":
        deviation: Array = ratio(absolute, count).mean(-1)
        return deviation
    spread = true2 - ratio(true * true, count)
    if name == "r2":
        return mean_defined(numpy.where(spread > 0, 1 - ratio(squared, spread), numpy.nan))
    other = said2 - ratio(said * said, count)
    defined = (spread > _ROUNDING * true2) & (other > _ROUNDING * said2)
    together = both - ratio(true * said, count)
    root = numpy.sqrt(numpy.where(defined, spread * other, 0.0))
    return mean_defined(numpy.where(defined, ratio(together, root), numpy.nan))
