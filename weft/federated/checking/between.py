"""Checks for leaks between sites: the same items, files or people at two of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from weft.actions.checking.findings import Findings, count, listed
from weft.actions.checking.leaks import (
    BY_CHANCE,
    GRAVE,
    chance_of_repeats,
    common_samples,
    item_hashes,
    looks_like_group,
    same_files,
)
from weft.actions.checking.place import Place
from weft.actions.checking.samples import Looked
from weft.data.digest import KnownDigest

SAME_ITEM = "same item at two sites"
_NUMBERED_ANEW = 0.5  # share of the names of one site at another, from which on both seem to count from 1
_COPIED = 0.5  # share of a site's items at another, from which on one is a copy of the other
_MOST_PAIRS = 10  # of sites, each of which is a finding of its own
_REMEDY = (
    "leave the copies out at all sites but one: what one site trains on must not be what another is scored on, and "
    "what lies at two sites counts twice"
)


def check_same_items(places: Mapping[str, Place], findings: Findings) -> None:
    """The same content at two sites.

    Args:
        places: by site; those whose inputs are scaled unlike the others' are left out.
        findings: goes in here.
    """
    scaled = {name: "standardize" in place.opened.statistics for name, place in places.items()}
    alike = {name: place for name, place in places.items() if scaled[name] == any(scaled.values())}
    hashes = {name: {split: item_hashes(seen) for split, seen in place.looked.items()} for name, place in alike.items()}
    sharing = _sharing(hashes)
    for first, second in sharing[:_MOST_PAIRS]:
        pairs = [
            _Common(first, second, a, b, alike[first].looked[a], alike[second].looked[b], found)
            for a in hashes[first]
            for b in hashes[second]
            if (found := common_samples({"first": hashes[first][a], "second": hashes[second][b]}, "first", "second"))
        ]
        items = min(sum(seen.items for seen in alike[name].looked.values()) for name in (first, second))
        _report_common(first, second, pairs, items, findings)
    if more := sharing[_MOST_PAIRS:]:
        sites = sorted({name for pair in more for name in pair})
        findings.warning(
            SAME_ITEM, listed(sites), f"{count(len(more), 'more pair')} of sites have items in common", _REMEDY,
            sites=sites, pairs=more,
        )  # fmt: skip


def _sharing(hashes: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Pairs of sites with an item in common, by name in order."""
    distinct = {
        name: np.unique(np.concatenate([*parts.values(), np.empty(0, np.uint64)])) for name, parts in hashes.items()
    }
    if not distinct:
        return []
    values, amounts = np.unique(np.concatenate(list(distinct.values())), return_counts=True)
    repeated = values[(amounts > 1) & (values != 0)]
    having = [name for name, own in distinct.items() if np.isin(own, repeated).any()]
    return [
        pair for pair in combinations(having, 2)
        if len(np.intersect1d(np.intersect1d(distinct[pair[0]], repeated), distinct[pair[1]]))
    ]  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Common:
    """Samples with the same content in a split of one site and one of another."""

    first_site: str
    second_site: str
    first_split: str
    second_split: str
    first: Looked
    second: Looked
    pairs: Sequence[tuple[int, int]]

    @property
    def leaks(self) -> bool:
        """Whether one site trains on what the other is scored on."""
        return (self.first_split == "train") != (self.second_split == "train")

    @property
    def share(self) -> float:
        """Of the items that are scored; elsewhere of the smaller split."""
        firsts = len({self.first.owners[one] for one, _ in self.pairs}) / max(self.first.items, 1)
        seconds = len({self.second.owners[two] for _, two in self.pairs}) / max(self.second.items, 1)
        if self.leaks:
            return firsts if self.second_split == "train" else seconds
        return max(firsts, seconds)

    @property
    def items(self) -> int:
        """How many items of the second site."""
        return len({self.second.owners[two] for _, two in self.pairs})

    def words(self) -> str:
        """In words."""
        share = f" ({self.share:.0%} of what is scored)" if self.leaks else ""
        return (
            f"{self.first_split} of {self.first_site} and {self.second_split} of {self.second_site} {self.items}{share}"
        )

    def examples(self) -> list[str]:
        """Where some of them lie."""
        return [f"{self.first.where(one)} = {self.second.where(two)}" for one, two in self.pairs[:3]]


def _report_common(first: str, second: str, found: Sequence[_Common], items: int, findings: Findings) -> None:
    """Tell of what two sites have in common, the smaller of which has so many items."""
    total = sum(len(one.pairs) for one in found)
    by_chance = sum(chance_of_repeats(one.first, one.second) for one in found)
    expected = by_chance >= BY_CHANCE * total
    ordered = sorted(found, key=lambda one: (not one.leaks, -one.share))
    copied = sum(one.items for one in found) >= _COPIED * items
    grave = copied or any(one.leaks and one.share >= GRAVE and one.items > 1 for one in found)
    message = (
        f"{count(sum(one.items for one in found), 'item')} of {second} have the inputs of one of {first}, namely of "
        f"{listed((one.words() for one in ordered), 3)}: {listed(ordered[0].examples(), 3)}"
    )
    findings.report(
        "note" if expected else "error" if grave else "warning",
        SAME_ITEM,
        f"{first}, {second}",
        message + (f"; with inputs of so few values about {by_chance:.3g} such pairs are chance" if expected else ""),
        "" if expected else _REMEDY,
        sites=[first, second],
        splits=[[one.first_split, one.second_split, one.items] for one in ordered],
        items=[
            [one.first.split.cases[one.first.owners[a]], one.second.split.cases[one.second.owners[b]]]
            for one in ordered for a, b in one.pairs[:10]
        ],
        leaks=any(one.leaks for one in found),
    )  # fmt: skip


def check_same_files(places: Mapping[str, Place], findings: Findings, seconds: float, known: KnownDigest) -> int:
    """The same file, by name or content, at two sites, where looking at samples has not told so.

    Args:
        places: by site.
        findings: goes in here.
        seconds: how long to go on reading.
        known: the digest of a file that was made before.

    Returns:
        how many files could not be read in that time.
    """
    parts = {(name, split): part for name, place in places.items() for split, part in place.parts.items()}
    owners = {f"{name}: {split}": (name, split) for name, split in parts}
    told = [one.evidence for one in findings if one.check == SAME_ITEM]
    known_pairs = {tuple(pair) for evidence in told for pair in evidence.get("pairs", [evidence["sites"]])}
    named = {f"{name}: {split}": part for (name, split), part in parts.items()}
    found: dict[tuple[str, str], list[tuple[tuple[str, str], tuple[str, str], str]]] = {}
    unread: list[Path] = []

    def apart(one: str, two: str) -> bool:
        return owners[one][0] != owners[two][0]

    for one, two, words in same_files(named, seconds, apart, known=known, unread=unread):
        pair = owners[one[0]][0], owners[two[0]][0]
        found.setdefault(min(pair, pair[::-1]), []).append((one, two, words))
    for pair, files in found.items():
        if pair in known_pairs:
            continue
        leaks = any((owners[one[0]][1] == "train") != (owners[two[0]][1] == "train") for one, two, _ in files)
        one, two, words = files[0]
        findings.report(
            "error" if leaks else "warning", SAME_ITEM, ", ".join(pair),
            f"{count(len(files), 'file')} of one are also the other's: case {one[1]} ({one[0]}) and case {two[1]} "
            f"({two[0]}) have {words}",
            _REMEDY, sites=list(pair), items=[[one[1], two[1]] for one, two, _ in files[:20]], leaks=leaks,
        )  # fmt: skip
    return len(unread)


def check_same_people(places: Mapping[str, Place], findings: Findings) -> None:
    """The same group (of a column `dataset.group`, or one that looks like it) at two sites.

    Args:
        places: by site.
        findings: goes in here.
    """
    by_column: dict[str, dict[str, set[str]]] = {}
    for name, place in places.items():
        for column, values in _groups_of(place).items():
            by_column.setdefault(column, {})[name] = values
    for column, by_site in by_column.items():
        shared = {pair: by_site[pair[0]] & by_site[pair[1]] for pair in combinations(by_site, 2)}
        shared = {pair: values for pair, values in shared.items() if values}
        anew = [pair for pair, values in shared.items()
                if len(values) >= _NUMBERED_ANEW * min(len(by_site[name]) for name in pair)]  # fmt: skip
        if anew:
            sites = sorted({name for pair in anew for name in pair})
            findings.note(
                "same names at sites", listed(sites),
                f"most values of '{column}' at one of these sites occur at another, too "
                f"({listed(sorted(shared[anew[0]]), 3)})",
                "where each site counts from 1 nothing is wrong; where they are the same people, leave them out at all "
                "sites but one", sites=sites, column=column,
            )  # fmt: skip
        few = {pair: sorted(values) for pair, values in sorted(shared.items()) if pair not in anew}
        if few:
            sites = sorted({name for pair in few for name in pair})
            told = listed(f"{' and '.join(pair)} {len(values)} ({listed(values, 3)})" for pair, values in few.items())
            findings.warning(
                "same group at two sites", listed(sites), f"values of '{column}' occur at two sites: {told}",
                "see whether they are the same people; if so, leave them out at all sites but one",
                sites=sites, column=column, pairs={" and ".join(pair): values[:50] for pair, values in few.items()},
            )  # fmt: skip


def _groups_of(place: Place) -> dict[str, set[str]]:
    """Values of the columns that say who an item is of, by name of the column."""
    named = place.experiment.dataset.group
    if named is not None:
        return {str(named): {group for split in place.opened.splits.values() for group in split.groups or ()}}
    return {
        column: {cell for cells in by_split.values() for cell in cells}
        for column, by_split in place.unnamed_columns().items()
        if looks_like_group(column)
    }
