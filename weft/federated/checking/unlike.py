"""Checks of how unlike sites are: numbers of items and batches, forms and scales of their inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from torch import Tensor

from weft.actions.checking.findings import Findings, count, listed, number
from weft.actions.checking.place import Place
from weft.config import Experiment
from weft.errors import DataError
from weft.federated.agreeing import epoch_of
from weft.federated.checking.sites import most_common

_UNEVEN = 10.0  # the largest site by the smallest, from which on it is worth a warning
_OTHER_SCALE = 20.0  # ratio of the spreads of two sites that no chance explains
_FAR = 3.0  # how far means lie apart, in units of both spreads
_ENOUGH = 8
_MOST = 2000  # features of a vector that are looked at one by one
_FEW = 3  # training items below which sums tell what single ones are


def check_sizes(items: Mapping[str, int], findings: Findings, *, equal_votes: bool) -> None:
    """Sites with very unlike numbers of training items, and those with so few that their sums tell them.

    Args:
        items: to train on, by site.
        findings: goes in here.
        equal_votes: whether sites count alike, whatever they have.
    """
    few = {name: amount for name, amount in items.items() if amount < _FEW}
    if few:
        told = listed(f"{name} ({amount})" for name, amount in few.items())
        findings.warning(
            "few items",
            listed(few),
            f"very few training items at {told}: sums over so few (means, gradients) tell what single ones are",
            "put such data together with another site's, or leave the site out",
            sites=list(few),
        )
    if len(items) < 2:
        return
    smallest, largest = min(items, key=items.__getitem__), max(items, key=items.__getitem__)
    ratio = items[largest] / max(items[smallest], 1)
    if ratio >= _UNEVEN:
        findings.warning(
            "unlike sizes", f"{largest}, {smallest}",
            f"{largest} has {count(items[largest], 'training item')}, {smallest} {items[smallest]:,} ({ratio:.0f} "
            "times fewer): " + ("both have one vote" if equal_votes else f"the model will hardly be {smallest}'s"),
            "look at the scores of each site, and compare with each site alone (weft federate simulate --compare)",
            sites=[largest, smallest], items=dict(items), ratio=ratio,
        )  # fmt: skip


def check_epochs(study: Experiment, batches: Mapping[str, int], findings: Findings) -> None:
    """Epochs of unlike lengths, and what becomes of those that are shorter or longer.

    Args:
        study: with its section `federation`.
        batches: of an epoch of each site; 0 of those that have nothing to train on.
        findings: goes in here.
    """
    assert study.federation is not None
    uneven = study.federation.uneven
    there = {name: amount for name, amount in batches.items() if amount}
    try:
        epoch, _ = epoch_of(uneven, list(batches.values()))
    except DataError:
        return  # told of elsewhere
    other = {name: amount for name, amount in there.items() if amount != epoch}
    if not other:
        return
    grave = max(max(epoch / amount, amount / epoch) for amount in other.values()) >= _UNEVEN
    have = listed(f"{name} {amount}" for name, amount in other.items())
    first = f"an epoch has {epoch} {'batch' if epoch == 1 else 'batches'}, "
    if uneven == "weight_zero":
        what = f"{first}but {have}: in the steps that are left they take part and count nothing"
        remedy = "federation.uneven: wrap lets them begin their items again, stop ends the epoch for all"
    elif uneven == "wrap":
        times = listed(f"those of {name} are visited {epoch / amount:.2g} times" for name, amount in other.items())
        what = f"{first}but {have}: their items begin again ({times} in an epoch)"
        remedy = "see whether so many visits make the model learn them by heart"
    else:
        seen = listed(f"{epoch / amount:.0%} of {name}" for name, amount in other.items())
        what = f"{first}where the first site ends, but {have}: in an epoch are visited {seen}"
        remedy = "federation.uneven: weight_zero visits every item once in an epoch"
    findings.report(
        "warning" if grave else "note", "uneven epochs", listed(other), what, remedy if grave else "",
        sites=list(other), batches=dict(batches), epoch=epoch, uneven=uneven,
    )  # fmt: skip


def check_forms(places: Mapping[str, Place], shapes: Mapping[str, Any], findings: Findings) -> list[str]:
    """Inputs of other shapes or dtypes than at most sites.

    Args:
        places: by site.
        shapes: of the means of inputs, where they were measured.
        findings: goes in here.

    Returns:
        the sites whose items the model has to be tried on: their shapes are others, and it may bear that.
    """
    usual = most_common(shapes.values())
    narrow = [name for name, own in shapes.items() if own != usual]
    forms = {name: _forms(place) for name, place in places.items() if place.looked}
    forms = {name: own for name, own in forms.items() if own}
    several = any(len(shapes_of) > 1 for own in forms.values() for shapes_of, _ in own)
    common = most_common(own for own in forms.values())
    odd: list[str] = []
    for name, own in forms.items():
        if own == common:
            continue
        unlike = _difference(own, common)
        if unlike and (not several or name in narrow):
            vectors = len(own) != len(common) or any(
                len(shape) == 1 for (found, _), (wanted, _) in zip(own, common) for shape in found | wanted
            )
            findings.report(
                "error" if vectors else "warning", "unlike inputs", name,
                f"inputs are {_words(own)}, at most sites {_words(common)}",
                "bring all sites to the same columns" if vectors else
                "bring them to one size (dataset.shape, or a transform), or see that the model takes any",
                sites=[name],
            )  # fmt: skip
            odd += [] if vectors else [name]
        dtypes = [", ".join(sorted(kinds)) for _, kinds in own], [", ".join(sorted(kinds)) for _, kinds in common]
        if dtypes[0] != dtypes[1] and len(own) == len(common):
            findings.warning(
                "unlike inputs", name, f"inputs are {listed(dtypes[0])}, at most sites {listed(dtypes[1])}",
                "store or load them alike: such numbers may mean other things (0 to 255, or 0 to 1)", sites=[name],
            )  # fmt: skip
    return odd


Form = list[tuple[frozenset[tuple[int, ...]], frozenset[str]]]


def _forms(place: Place) -> Form:
    """Shapes and dtypes that each input has, in any split."""
    inputs = [seen.inputs for seen in place.looked.values() if seen.inputs]
    return [
        (frozenset().union(*(one.shapes for one in same)), frozenset().union(*(one.dtypes for one in same)))
        for same in zip(*inputs, strict=False)
    ]


def _difference(own: Form, common: Form) -> bool:
    return len(own) != len(common) or any(not (a & b) for (a, _), (b, _) in zip(own, common, strict=True))


def _words(form: Form) -> str:
    return ", ".join(
        " or ".join("×".join(map(str, shape)) or "1" for shape in sorted(shapes)[:3]) for shapes, _ in form
    )


@dataclass(frozen=True, slots=True)
class _Spread:
    """Where the values of a feature lie at a site."""

    mean: float
    deviation: float
    items: int


def check_scales(places: Mapping[str, Place], findings: Findings) -> None:
    """Features whose values lie elsewhere, or spread otherwise, at one site than at the others: other units, it may be.

    Args:
        places: by site.
        findings: goes in here.
    """
    spreads: dict[str, dict[str, _Spread]] = {}
    for name, place in places.items():
        for feature, spread in _spreads(place).items():
            if spread.items >= _ENOUGH and spread.deviation > 0:
                spreads.setdefault(feature, {})[name] = spread
    told: dict[str, list[tuple[str, str]]] = {}
    for feature, by_site in spreads.items():
        if len(by_site) < 2:
            continue
        usual = _usual(list(by_site.values()))
        for name, own in by_site.items():
            if own is not usual and _is_far(own, usual):
                words = f"{feature} lies around {_told(own)}, elsewhere around {_told(usual)}"
                told.setdefault(name, []).append((feature, words))
    for name, found in told.items():
        findings.warning(
            "unlike scales", name, f"{count(len(found), 'feature')}: {listed((words for _, words in found), 3)}",
            "see whether units are the same at all sites (mg or g, mm or cm, raw or normalised)",
            sites=[name], features=[feature for feature, _ in found[:50]],
        )  # fmt: skip


def _told(spread: _Spread) -> str:
    return f"{number(spread.mean)} ± {number(spread.deviation)}"


def _usual(spreads: list[_Spread]) -> _Spread:
    """Of two sites the larger one, of more their medians."""
    if len(spreads) == 2:
        return max(spreads, key=lambda one: one.items)
    return _Spread(median(one.mean for one in spreads), median(one.deviation for one in spreads), 0)


def _is_far(own: _Spread, usual: _Spread) -> bool:
    ratio = own.deviation / usual.deviation
    far = abs(own.mean - usual.mean) > _FAR * (own.deviation + usual.deviation)
    return far or not 1 / _OTHER_SCALE < ratio < _OTHER_SCALE


def _spreads(place: Place) -> dict[str, _Spread]:
    """Of the training items: each feature of vectors, each other input as a whole, and targets that are numbers."""
    seen, data = place.looked.get("train"), place.opened
    if seen is None:
        return {}
    scales = data.statistics.get("standardize")
    arrays = data.splits["train"].arrays
    inputs = () if arrays is None else arrays[0] if isinstance(arrays[0], tuple) else (arrays[0],)
    found: dict[str, _Spread] = {}
    for order, facts in enumerate(seen.inputs):
        if (
            order < len(inputs)
            and isinstance(inputs[order], Tensor)
            and inputs[order].ndim == 2
            and inputs[order].shape[1] <= _MOST
        ):
            found |= _of_columns(inputs[order], scales[order] if scales else None, order, place)
        elif scales is None:
            found[place.names.input(order)] = _Spread(facts.mean, facts.deviation, len(seen.owners))
    targets = seen.targets.joined() if seen.targets is not None and not place.wants_classes else None
    if targets is not None and targets.is_floating_point() and targets.ndim <= 2:
        columns = targets.reshape(len(targets), -1)
        for order in range(columns.shape[1]):
            word = "the target" if columns.shape[1] == 1 else f"target {order}"
            found[word] = _spread(columns[:, order])
    return found


def _of_columns(values: Tensor, scale: Mapping[str, Any] | None, order: int, place: Place) -> dict[str, _Spread]:
    found = {}
    for feature in range(values.shape[1]):
        own = _spread(values[:, feature])
        if scale is not None:  # as they were before
            factor, mean = float(scale["scale"][feature]), float(scale["mean"][feature])
            own = _Spread(own.mean * factor + mean, own.deviation * factor, own.items)
        found[place.names.feature(order, feature)] = own
    return found


def _spread(values: Tensor) -> _Spread:
    finite = values.double()[values.isfinite()]
    if len(finite) < 2:
        return _Spread(0.0, 0.0, len(finite))
    return _Spread(float(finite.mean()), float(finite.std()), len(finite))
