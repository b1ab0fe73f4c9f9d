"""Checks of the inputs: values that are not finite, columns and samples that are constant, scales that do not fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from weft.actions.checking.facts import InputFacts
from weft.actions.checking.findings import Findings, count, listed, number
from weft.actions.checking.samples import Looked

_LARGE = 100.0  # a typical value beyond this, or below its inverse, slows training down
_OTHER_SCALE = 20.0  # ratio of the scales of two splits that no chance explains
_ENOUGH = 8  # samples from which on a statement about their spread means something


@dataclass(frozen=True, slots=True)
class InputNames:
    """What the inputs are called.

    Args:
        columns: for each input of the model the names of its columns; empty where nobody named them.
        whole: for each input a name for all of it.
    """

    columns: Sequence[Sequence[str]]
    whole: Sequence[str]

    def feature(self, place: int, feature: int) -> str:
        """A feature of an input."""
        columns = self.columns[place] if place < len(self.columns) else ()
        return f"column '{columns[feature]}'" if feature < len(columns) else f"{self.input(place)}, feature {feature}"

    def features(self, place: int, features: Sequence[int], most: int = 5) -> str:
        """Several features of an input."""
        if self.named(place):
            return listed((self.feature(place, feature) for feature in features), most)
        word = "feature" if len(features) == 1 else "features"
        return f"{self.input(place)}, {word} {listed(features, most)}"

    def input(self, place: int) -> str:
        """An input."""
        return self.whole[place] if place < len(self.whole) else f"input {place}"

    def named(self, place: int) -> bool:
        """Whether somebody named the columns of an input."""
        return place < len(self.columns) and bool(self.columns[place])


Scales = Sequence[Mapping[str, Any]]


def check_inputs(looked: Mapping[str, Looked], names: InputNames, scales: Scales | None, findings: Findings) -> None:
    """All checks of inputs.

    Args:
        looked: what was seen of each split.
        names: of columns and inputs.
        scales: mean and scale of each input, where Weft scales them.
        findings: goes in here.
    """
    for split, seen in looked.items():
        for place, facts in enumerate(seen.inputs):
            _check_finite(split, seen, place, facts, names, findings)
            _check_constant_samples(split, seen, place, facts, names, findings)
    train = looked.get("train")
    if train is None:
        return
    for place, facts in enumerate(train.inputs):
        _check_constant_columns(place, facts, scales[place] if scales else None, names, findings)
        if scales is None and "int" not in "".join(facts.dtypes):
            _check_scale(place, facts, names, findings)
        for split in ("validation", "test"):
            if split in looked and place < len(looked[split].inputs):
                _compare_scales(split, place, facts, looked[split].inputs[place], names, findings)


def _check_finite(
    split: str, seen: Looked, place: int, facts: InputFacts, names: InputNames, findings: Findings
) -> None:
    if not facts.broken:
        return
    samples = list(facts.broken)
    value = facts.broken[samples[0]][1]
    values = sum(amount for amount, _ in facts.broken.values())
    vectors = all(len(shape) == 1 for shape in facts.shapes)
    features = sorted(facts.broken_features)
    findings.error(
        "not finite",
        f"{split}, {names.features(place, features, 3) if vectors else names.input(place)}",
        f"{count(values, 'value')} in {count(len(samples), 'sample')} of {len(seen.owners)} are not finite, "
        "the first is "
        f"{value}: {seen.whose(samples)}",
        "fill such values in, or leave these items out",
        samples=[seen.split.cases[seen.owners[sample]] for sample in samples[:20]],
        values=values,
    )


def _check_constant_samples(
    split: str, seen: Looked, place: int, facts: InputFacts, names: InputNames, findings: Findings
) -> None:
    constant = np.flatnonzero(facts.constant_samples()).tolist()
    if not constant or facts.feature_low is not None:
        return
    share = len(constant) / max(len(seen.owners), 1)
    findings.report(
        "warning" if share > 0.5 else "note",
        "constant samples",
        f"{split}, {names.input(place)}",
        f"{count(len(constant), 'sample')} of {len(seen.owners)} hold one value everywhere: {seen.whose(constant)}",
        "see whether these files are empty, or were cropped or scaled to nothing",
        samples=[seen.split.cases[seen.owners[sample]] for sample in constant[:20]],
    )


def _check_constant_columns(
    place: int, facts: InputFacts, scale: Mapping[str, Any] | None, names: InputNames, findings: Findings
) -> None:
    low, high = facts.feature_low, facts.feature_high
    if low is None or high is None or _samples(facts) < 2:
        return
    constant = (low == high).nonzero().flatten().tolist()
    if not constant:
        return
    if scale is not None:  # as they were before
        mean, factor = torch.tensor(scale["mean"]), torch.tensor(scale["scale"])
        low, high = low * factor + mean, high * factor + mean
    pixels = not names.named(place) and _looks_like_pixels(low, high)
    findings.report(
        "note" if pixels else "warning",
        "constant input",
        names.features(place, constant),
        f"the same in every training sample ({listed(number(float(low[feature])) for feature in constant)}), "
        "so nothing can be learned from it",
        "" if pixels else "leave it out of the inputs, or see why it never varies",
        features=constant[:100],
    )


def _looks_like_pixels(low: torch.Tensor, high: torch.Tensor) -> bool:
    """Whether features share one range, as the pixels of images do: those at the border may well be constant."""
    if len(low) < 16:
        return False
    extent = high.max() - low.min()
    same_floor = float((low - low.min() <= 1e-4 * extent).float().mean())
    full = high > low.min() + 0.5 * extent
    return same_floor > 0.9 and float(full.float().mean()) > 0.5


def _check_scale(place: int, facts: InputFacts, names: InputNames, findings: Findings) -> None:
    typical = max(abs(facts.mean), facts.deviation)
    if 1 / _LARGE <= typical <= _LARGE or typical == 0:
        return
    findings.note(
        "input scale",
        names.input(place),
        f"values lie between {number(facts.low)} and {number(facts.high)} (mean {number(facts.mean)}, "
        "standard deviation "
        f"{number(facts.deviation)}); networks learn best from values around 1",
        "set dataset.standardize: true, or scale in a transform",
        mean=facts.mean,
        deviation=facts.deviation,
    )


def _compare_scales(
    split: str, place: int, train: InputFacts, other: InputFacts, names: InputNames, findings: Findings
) -> None:
    if min(len(train.lows), len(other.lows)) == 0 or min(_samples(train), _samples(other)) < _ENOUGH:
        return
    if not (train.deviation > 0 and other.deviation > 0):
        return
    ratio = other.deviation / train.deviation
    if 1 / _OTHER_SCALE < ratio < _OTHER_SCALE:
        return
    findings.warning(
        "other scale",
        f"{split}, {names.input(place)}",
        f"values spread {number(ratio if ratio > 1 else 1 / ratio)} times {'wider' if ratio > 1 else 'less'} than in "
        f"training (standard deviation {number(other.deviation)} against {number(train.deviation)})",
        "bring all splits to one unit and range",
        ratio=ratio,
    )


def _samples(facts: InputFacts) -> int:
    return sum(len(part) for part in facts.hashes)
