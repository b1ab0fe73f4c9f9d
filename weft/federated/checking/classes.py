"""Checks of the labels of several sites: what they are called, which are missing where, and how unlike they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from weft.actions.checking.findings import Findings, listed
from weft.actions.checking.labels import MOST_CLASSES, check_balance, class_counts
from weft.actions.checking.place import Place
from weft.actions.checking.samples import Looked

_UNLIKE = 0.3  # total variation between the classes of a site and those of all, from which on it is worth a word
_ENOUGH = 8  # training items of a site, from which on a statement about its classes means something
_SEEN = 30  # items of a split from which on most of its labels have been seen
_SIGMAS = 3.0  # how far beyond chance


def check_label_sets(places: Mapping[str, Place], findings: Findings) -> None:
    """Labels that sites write in unlike ways.

    Args:
        places: by site; those without labels are left out.
        findings: goes in here.
    """
    check_labels({name: _labels_at(place) for name, place in places.items() if place.wants_classes}, findings)


def check_labels(found: Mapping[str, set[str]], findings: Findings) -> None:
    """Labels that sites write in unlike ways, by their names alone.

    Args:
        found: by site, the names of the labels that occur there; none where that is not known.
        findings: goes in here.
    """
    at = {name: labels for name, labels in found.items() if labels}
    if len(at) < 2 or len(set().union(*at.values())) > MOST_CLASSES:
        return
    if _check_spelling(at, findings):
        return
    apart = [name for name, own in at.items() if not any(own & at[other] for other in at if other != name)]
    if apart:
        pair = apart if len(apart) > 1 else [apart[0]]
        findings.report(
            "error" if all(len(at[name]) > 1 for name in pair) else "warning",
            "unlike labels",
            listed(pair),
            "; ".join(f"{name} has {listed(sorted(at[name]))}" for name in pair)
            + ": none of these labels occurs at another site"
            + ("" if len(pair) > 1 else f" ({listed(sorted(set().union(*(at[o] for o in at if o != pair[0]))))})"),
            "write the labels alike at all sites; a class that one site alone has cannot be told from the site",
            sites=pair,
        )
    _check_counting(at, findings)


def _labels_at(place: Place) -> set[str]:
    """Names of the labels that were seen at a site, in any split; none where too few items were looked at."""
    if not all(looked.complete or looked.items >= _SEEN for looked in place.looked.values()):
        return set()
    names = place.opened.classes
    seen = {value for looked in place.looked.values() if looked.targets is not None for value in looked.targets.holders}
    if names is None:
        return {f"{value:g}" for value in seen}
    return {names[int(value)] for value in seen if 0 <= value < len(names)}


def _check_spelling(at: Mapping[str, set[str]], findings: Findings) -> bool:
    """Names that differ in case, spaces or signs only; whether there are such."""
    spelled: dict[str, dict[str, list[str]]] = {}
    for name, labels in at.items():
        for label in sorted(labels):
            spelled.setdefault(_plain(label), {}).setdefault(label, []).append(name)
    unlike = [by_label for _, by_label in sorted(spelled.items()) if len(by_label) > 1 and not _told_apart(by_label)]
    if unlike:
        sites = sorted({name for by_label in unlike for names in by_label.values() for name in names})
        told = (
            " and ".join(f"{label!r} ({listed(by_label[label])})" for label in sorted(by_label)) for by_label in unlike
        )
        findings.error(
            "unlike labels", listed(sites), f"labels that look like one are two classes here: {listed(told)}",
            "write them alike at all sites", sites=sites, labels=[sorted(by_label) for by_label in unlike],
        )  # fmt: skip
    return bool(unlike)


def _told_apart(by_label: Mapping[str, Sequence[str]]) -> bool:
    """Whether a site has two labels that differ in more than case and spaces: Rh+ and Rh- are no slips."""
    at: dict[str, set[str]] = {}
    for label, names in by_label.items():
        for name in names:
            at.setdefault(name, set()).add("".join(label.casefold().split()))
    return any(len(labels) > 1 for labels in at.values())


def _plain(label: str) -> str:
    letters = "".join(letter for letter in label.casefold() if letter.isalnum())
    return letters if letters and not label.lstrip("-").isdecimal() else label


def _check_counting(at: Mapping[str, set[str]], findings: Findings) -> None:
    """Sites that count classes from 1 where others count from 0."""
    if not all(label.isdecimal() for labels in at.values() for label in labels):
        return
    numbers = {name: {int(label) for label in labels} for name, labels in at.items()}
    zero = {name: own for name, own in numbers.items() if min(own) == 0 and len(own) > 1}
    shifted = [
        name for name, own in numbers.items()
        if len(own) > 1 and any({label - 1 for label in own} == other for other in zero.values())
    ]  # fmt: skip
    if shifted:
        findings.warning(
            "unlike labels", listed(shifted),
            f"labels of {listed(shifted)} are {listed(sorted(numbers[shifted[0]]))}, those of {listed(zero)} "
            f"{listed(sorted(next(iter(zero.values()))))}: do some sites count classes from 1?",
            "count classes from 0 at all sites", sites=shifted,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class ClassesOfStudy:
    """How often each class occurs at each site.

    Args:
        looked: what was seen, by site and split.
        names: of the classes.
        maps: whether labels belong to pixels.
        apart: whether sites train by themselves in between, so that each must know all classes.
    """

    looked: Mapping[str, Mapping[str, Looked]]
    names: Sequence[str]
    maps: bool
    apart: bool

    def check(self, compensated: str | None, findings: Findings) -> None:
        """Classes that are missing or rare, at all sites together and at one, and sites that are unlike.

        Args:
            compensated: what makes up for rare classes, None for nothing.
            findings: goes in here.
        """
        counts = {name: class_counts(seen, len(self.names)) for name, seen in self.looked.items()}
        pooled: dict[str, list[int]] = {}
        for by_split in counts.values():
            for split, amounts in by_split.items():
                known = pooled.get(split, [0] * len(self.names))
                pooled[split] = [one + more for one, more in zip(known, amounts, strict=True)]
        if not pooled or len(self.names) > MOST_CLASSES:
            return
        total = [sum(column) for column in zip(*pooled.values(), strict=True)]
        self._check_everywhere(pooled, total, findings)
        if "train" in pooled and not self.maps:
            check_balance(pooled["train"], self.names, compensated, findings, "all sites: train")
            self._check_unlike({name: own["train"] for name, own in counts.items() if "train" in own}, findings)
        lacking = {
            (name, split): missing
            for name, by_split in counts.items()
            for split, amounts in by_split.items()
            if self.looked[name][split].complete and (missing := self._of(amounts, pooled[split]))
        }
        self._tell_lacking({at: missing for at, missing in lacking.items() if at[1] == "train"}, findings)
        self._tell_lacking({at: missing for at, missing in lacking.items() if at[1] != "train"}, findings)

    def _complete(self, split: str | None = None) -> bool:
        every = [seen for by_split in self.looked.values() for key, seen in by_split.items() if split in (None, key)]
        return all(seen.complete for seen in every)

    def _of(self, amounts: Sequence[int], others: Sequence[int]) -> list[str]:
        """Classes of which there are none here, and some there."""
        return [name for name, here, there in zip(self.names, amounts, others, strict=True) if here == 0 and there > 0]

    def _check_everywhere(self, pooled: Mapping[str, Sequence[int]], total: Sequence[int], findings: Findings) -> None:
        word = "pixel" if self.maps else "item"
        nowhere = [name for name, amount in zip(self.names, total, strict=True) if amount == 0]
        if nowhere and self._complete() and not any(one.check == "label values" for one in findings):
            findings.warning(
                "class nowhere", "all sites", f"class {listed(nowhere)} has not one {word} at any site",
                f"give the model {len(self.names) - len(nowhere)} outputs, or see where these labels went",
                classes=nowhere,
            )  # fmt: skip
        for split, amounts in pooled.items():
            missing = self._of(amounts, total)
            if not missing or not self._complete(split):
                continue
            findings.report(
                "error" if split == "train" else "warning", "missing class", f"all sites: {split}",
                f"class {listed(missing)} has no {word} in {split} at any site, but some elsewhere: "
                + ("it cannot be learned" if split == "train" else "its scores say nothing"),
                "divide the data with dataset.split.stratified: true, or bring such items in", classes=missing,
            )  # fmt: skip

    def _tell_lacking(self, lacking: Mapping[tuple[str, str], Sequence[str]], findings: Findings) -> None:
        """Classes that a site lacks and others have, all in splits for training, or all in others."""
        if not lacking:
            return
        training = all(split == "train" for _, split in lacking)
        sites = list(dict.fromkeys(site for site, _ in lacking))
        told = "; ".join(
            f"{split} of {site} has no {listed(names)}" for (site, split), names in list(lacking.items())[:6]
        )
        told += f"; and {len(lacking) - 6} more" if len(lacking) > 6 else ""
        if not training:
            what = "of these sites' own scores those that need the class say nothing, the pooled ones do"
        elif self.apart:
            what = "in each round the models of these sites forget the class"
        else:
            what = "they learn the class from the others, step by step"
        findings.report(
            "warning" if training and self.apart else "note", "missing class",
            f"{listed(sites)}: {'train' if training else 'scores'}", f"{told}; other sites have some: {what}",
            "use dSGD, SCAFFOLD or FedProx, or fewer federation.steps_per_round" if training and self.apart else "",
            sites=sites, classes={f"{site}: {split}": list(names) for (site, split), names in lacking.items()},
        )  # fmt: skip

    def _check_unlike(self, train: Mapping[str, Sequence[int]], findings: Findings) -> None:
        """Sites whose classes are distributed unlike those of all sites, beyond chance."""
        everywhere = np.sum(list(train.values()), 0, dtype=float)
        shares = everywhere / max(everywhere.sum(), 1)
        unlike: dict[str, float] = {}
        for name, amounts in train.items():
            items = sum(amounts)
            if items < _ENOUGH or items == everywhere.sum():
                continue
            own = np.asarray(amounts) / items
            distance = float(np.abs(own - shares).sum() / 2)
            chance = float(np.sqrt(shares * (1 - shares) / items).sum() / 2)
            if distance >= _UNLIKE and distance > _SIGMAS * chance:
                unlike[name] = distance
        if not unlike:
            return
        told = "; ".join(f"{name}: {self._shares(train[name])}" for name in unlike)
        findings.report(
            "warning" if self.apart else "note", "unlike classes", listed(unlike),
            f"classes are unlike those of all sites together ({self._shares(everywhere.tolist())}): {told}",
            "models of sites drift apart in each round: use dSGD, SCAFFOLD or FedProx, or fewer "
            "federation.steps_per_round" if self.apart else "look at the scores of each site, too",
            sites=list(unlike), distances=unlike,
        )  # fmt: skip

    def _shares(self, amounts: Sequence[float]) -> str:
        total = max(sum(amounts), 1)
        told = [f"{name} {amount / total:.0%}" for name, amount in zip(self.names, amounts, strict=True)]
        return listed(told, 4)
