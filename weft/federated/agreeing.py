"""What sites agree on before training: names of classes, mean and scale of inputs, splits, where they begin.

Sums carry everything that comes from items; what is gathered says nothing about a single one: names, numbers of items
and batches, shapes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Generator, Sequence
from typing import Any

import torch
from torch import Tensor

from weft.data.standardize import Moments
from weft.engine.collectives import Answer, Collective, Gather, Sum
from weft.engine.run import Run
from weft.errors import CohortError, DataError

Told = Generator[Collective, Answer, list[Any]]


def told_by_all(tag: str, content: Any, of: int | None = None) -> Told:
    """What every site says, in order of their names: numbers, texts, lists and dicts, as JSON.

    Args:
        tag: what is asked.
        content: what this site says.
        of: how many must have said something; None for any number.

    Raises:
        CohortError: they are fewer.
    """
    data = torch.frombuffer(bytearray(json.dumps(content).encode()), dtype=torch.uint8)
    parts, lengths = yield Gather(tag, [data, torch.tensor([len(data)])])
    if of is not None and len(lengths) != of:
        raise CohortError(
            f"{len(lengths)} of {of} sites have told their {tag}; all must agree before training begins",
            "begin anew when all are there",
        )
    return [json.loads(bytes(part.tolist())) for part in torch.split(parts, lengths.tolist())]


def site_seed(seed: int, site: str, sites: Collection[str]) -> int:
    """A site's own seed: no two draw the same random numbers. The first one by name has the study's, and so the weights
    that training in one place begins with.
    """
    if site == min(sites):
        return seed
    return int.from_bytes(hashlib.sha256(f"weft site {seed} {site}".encode()).digest()[:8]) >> 1


def joined_classes(sites: Sequence[str], told: Sequence[list[str] | None]) -> list[str] | None:
    """The names of the classes that occur at any site; None where targets are no classes.

    Numbers go by their value, names by the alphabet. Several targets are named alike at all sites, and stay in their
    order.

    Raises:
        DataError: targets are classes at some sites only.
    """
    missing = [site for site, names in zip(sites, told, strict=True) if names is None]
    if len(missing) == len(sites):
        return None
    if missing:
        raise DataError(
            f"targets are classes at some sites, but not at {', '.join(missing)}",
            "look at the targets there: a column of names or whole numbers",
        )
    known = [names for names in told if names is not None]
    if all(names == known[0] for names in known):
        return known[0]
    every = {name for names in known for name in names}
    whole = all(name.lstrip("-").isdecimal() for name in every)
    return sorted(every, key=int) if whole else sorted(every)


def pooled_scales(
    moments: Sequence[Moments], shapes: Sequence[Sequence[int]]
) -> Generator[Collective, Answer, list[dict[str, Any]]]:
    """Mean and scale of each input over the training items of all sites, from sums alone.

    Args:
        moments: this site's; none where it has no training items.
        shapes: of the means of each input.

    Returns:
        as `Moments.as_dict`, the same at every site.
    """
    own = [moment if moment.count else _nothing(shape) for moment, shape in zip(_filled(moments, shapes), shapes)]
    means = [_mean_of(moment) for moment in own]
    counts = torch.tensor([moment.count for moment in own], dtype=torch.float64)
    totals = [mean * moment.count for mean, moment in zip(means, own, strict=True)]
    *sums, everybodys = yield Sum("means", [*totals, counts])
    pooled = [total / count for total, count in zip(sums, everybodys, strict=True)]
    squares, varying = [], []
    for moment, mean, common in zip(own, means, pooled, strict=True):
        away = (mean - common) if moment.count else torch.zeros_like(common)
        squares.append(moment.squares.reshape(common.shape) + moment.count * away**2)
        # A mean of equal numbers may differ from them by rounding.
        elsewhere = away.abs() > 8 * torch.finfo(torch.float64).eps * common.abs()
        differs = (moment.lowest != moment.highest).reshape(-1).expand(common.shape) if moment.count else away != 0
        varying.append((differs | elsewhere).long())
    answer = yield Sum("deviations", [*squares, *varying])
    found = zip(pooled, answer[: len(pooled)], answer[len(pooled) :], everybodys, strict=True)
    return [_scale(mean, square, varies, float(count)) for mean, square, varies, count in found]


def epoch_of(uneven: str, batches: Sequence[int]) -> tuple[int, int | None]:
    """How many batches an epoch of the study has, from what all sites have.

    Args:
        uneven: `federation.uneven`.
        batches: of an epoch of each site; 0 of those that have nothing to train on.

    Returns:
        the number, and how many each site with training data is to have; None leaves each those of its items.

    Raises:
        DataError: nobody has any.
    """
    there = [number for number in batches if number]
    if not there:
        raise DataError(
            "no site has anything to train on",
            "look at the sites' training splits; weights are tested without training by weft federate evaluate",
        )
    if uneven == "weight_zero":
        return max(there), None
    epoch = min(there) if uneven == "stop" else max(there)
    return epoch, epoch


def same_weights(run: Run, giver: int = 0) -> Generator[Collective, Answer, None]:
    """All sites take the weights that one of them, by default the first, begins with: a sum with zeros elsewhere.

    Raises:
        CohortError: that site has left.
    """
    gives = run.participant == giver
    own = run.state.model.state_dict()
    sent = [value.detach() if gives else torch.zeros_like(value) for value in own.values()]
    *sums, given = yield Sum("weights", [*sent, torch.tensor([int(gives)])])
    if not int(given):
        raise CohortError(
            "the site whose weights all begin with has left before it told them", "go on when it is back, or begin anew"
        )
    run.state.model.load_state_dict(dict(zip(own, sums, strict=True)))
    if run.state.average is not None:
        run.state.average.module.load_state_dict(run.state.model.state_dict())


def _filled(moments: Sequence[Moments], shapes: Sequence[Sequence[int]]) -> Sequence[Moments]:
    return moments or [Moments() for _ in shapes]


def _nothing(shape: Sequence[int]) -> Moments:
    return Moments(mean=torch.zeros(*shape, dtype=torch.float64), squares=torch.zeros(*shape, dtype=torch.float64))


def _mean_of(moment: Moments) -> Tensor:
    """The mean of each entry; of equal numbers the number itself."""
    return torch.where(moment.lowest == moment.highest, moment.lowest, moment.mean) if moment.count else moment.mean


def _scale(mean: Tensor, squares: Tensor, varies: Tensor, count: float) -> dict[str, Any]:
    deviation = torch.sqrt(squares / max(count, 1))
    constant = (varies == 0) | (deviation == 0)
    scale = torch.where(constant, torch.ones_like(deviation), deviation)
    places = torch.nonzero(constant.reshape(-1)).flatten().tolist()
    return {"mean": mean.tolist(), "scale": scale.tolist(), "constant": places}
