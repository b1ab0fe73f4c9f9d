"""Checks for leaks: the same item, file or group in two splits, found by content, and inputs that hold the answer."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from weft.actions.checking.findings import Findings, count, listed
from weft.actions.checking.inputs import InputNames
from weft.actions.checking.raw import path_columns
from weft.actions.checking.samples import Looked
from weft.data import Data, SplitData
from weft.data.digest import KnownDigest, digest_file
from weft.data.parts import Part

GRAVE = 0.01  # share of a split's items (more than one) in another split, from which on its scores mean nothing
BY_CHANCE = 0.05  # expected coincidences, as a share of those found, from which on chance explains them
_PIECE = 1 << 20
_LOOKS_LIKE_GROUP = re.compile(
    r"(^|_)(patient|subject|participant|person|donor|animal|mouse|rat|family|case|record)s?(_?(id|no|nr|name|number|key|code))?$",
    re.IGNORECASE,
)


def check_repeats(looked: Mapping[str, Looked], findings: Findings, *, labels: bool) -> None:
    """The same content in two splits, twice in one, or with unlike labels.

    Args:
        looked: what was seen of each split.
        findings: goes in here.
        labels: whether targets are classes.
    """
    hashes = {split: item_hashes(seen) for split, seen in looked.items()}
    found = {pair: common_samples(hashes, *pair) for pair in combinations(hashes, 2)}
    for (first, second), common in found.items():
        if common:
            _report_common(looked[first], looked[second], common, findings)
    train = looked.get("train")
    if train is not None:
        _check_duplicates(train, hashes["train"], findings, labels=labels)


def item_hashes(seen: Looked) -> Any:
    """A hash for each sample; 0 for those that hold one value everywhere: empty images are no copies of each other."""
    if not seen.inputs or not seen.inputs[0].hashes:
        return np.empty(0, np.uint64)
    total = np.zeros(sum(len(part) for part in seen.inputs[0].hashes), np.uint64)
    constant = np.ones(len(total), bool)
    for place, facts in enumerate(seen.inputs):
        if facts.hashes:
            total = total * np.uint64(6364136223846793005) + np.concatenate(facts.hashes) + np.uint64(place)
            constant &= facts.constant_samples()
    total[constant] = 0
    return total


def common_samples(hashes: Mapping[str, Any], first: str, second: str) -> list[tuple[int, int]]:
    """Samples of two splits with the same content, as pairs of their numbers; each sample of the second once."""
    at = {value: sample for sample, value in reversed(list(enumerate(hashes[first].tolist()))) if value}
    shared = np.flatnonzero(np.isin(hashes[second], hashes[first])).tolist()
    return [(at[value], sample) for sample in shared if (value := int(hashes[second][sample])) in at]


def _report_common(first: Looked, second: Looked, common: Sequence[tuple[int, int]], findings: Findings) -> None:
    names = first.split.name, second.split.name
    items = len({second.owners[sample] for _, sample in common})
    share = items / max(second.items, 1)
    pairs = [f"{first.where(one)} = {second.where(other)}" for one, other in common]
    amount = f"{count(items, 'item')} of {names[1]} ({share:.1%})"
    message = f"the same inputs as in {names[0]} for {amount}: {listed(pairs, 3)}"
    evidence = {
        "items": [[first.split.cases[first.owners[a]], second.split.cases[second.owners[b]]] for a, b in common[:20]],
        "share": share,
    }
    expected = chance_of_repeats(first, second)
    if expected >= BY_CHANCE * len(common):
        findings.note(
            "same item in two splits",
            f"{names[0]}, {names[1]}",
            message + f"; with inputs of so few values about {expected:.3g} such pairs are chance",
            "",
            **evidence,
        )
        return
    findings.report(
        "error" if share >= GRAVE and items > 1 else "warning",
        "same item in two splits",
        f"{names[0]}, {names[1]}",
        message,
        "remove the copies before the data are divided, or name what belongs together in dataset.group and set "
        "dataset.split.grouped: true",
        **evidence,
    )


def chance_of_repeats(first: Looked, second: Looked | None = None) -> float:
    """Expected number of pairs with equal inputs if columns were independent, in one split or between two.

    Only vectors in memory are judged; for all others (images) no pair is expected.
    """
    arrays = first.split.arrays
    if arrays is None or not isinstance(arrays[0], Tensor) or arrays[0].ndim != 2:
        return 0.0
    inputs = arrays[0][:20_000]
    chance = 1.0
    for column in inputs.T:
        shares = column.unique(return_counts=True)[1].double() / len(inputs)
        # a pair of different items: without the chance that an item meets itself
        chance *= max(float((shares**2).sum()) - 1 / len(inputs), 0.0) * len(inputs) / max(len(inputs) - 1, 1)
        if chance < 1e-15:
            return 0.0
    pairs = len(first.split) * (len(second.split) if second is not None else (len(first.split) - 1) / 2)
    return chance * pairs


def _check_duplicates(seen: Looked, hashes: Any, findings: Findings, *, labels: bool) -> None:
    values, firsts, amounts = np.unique(hashes, return_index=True, return_counts=True)
    repeated = [(int(value), int(one)) for value, one, n in zip(values, firsts, amounts) if n > 1 and value]
    if not repeated:
        return
    extra = int(sum(n - 1 for value, n in zip(values, amounts) if n > 1 and value))
    by_chance = chance_of_repeats(seen) >= BY_CHANCE * extra
    if by_chance:
        return
    findings.report(
        "note",
        "repeated item",
        "train",
        f"{count(extra, 'item')} of {len(hashes)} repeat the inputs of another: "
        f"{seen.whose([one for _, one in repeated])}",
        "remove the copies, unless they are meant to weigh more",
        items=[seen.split.cases[seen.owners[one]] for _, one in repeated[:20]],
    )
    targets = seen.targets.joined() if seen.targets is not None else None
    if labels and targets is not None and targets.ndim == 1 and len(targets) == len(hashes):
        _check_contradictions(seen, hashes, [value for value, _ in repeated], targets, findings)


def _check_contradictions(
    seen: Looked, hashes: Any, repeated: Sequence[int], targets: Tensor, findings: Findings
) -> None:
    torn = []
    for value in repeated[:10_000]:
        samples = np.flatnonzero(hashes == np.uint64(value))
        if len(torch.unique(targets[torch.from_numpy(samples)])) > 1:
            torn.append(samples.tolist())
    if torn:
        findings.warning(
            "contradictory labels",
            "train",
            f"{count(len(torn), 'group')} of items have the same inputs but unlike labels: {seen.whose(torn[0])}",
            "see which label is right, and remove the others",
            items=[[seen.split.cases[seen.owners[sample]] for sample in samples] for samples in torn[:10]],
        )


def check_groups(data: Data, findings: Findings) -> None:
    """The same group in two splits."""
    grouped = {name: split for name, split in data.splits.items() if split.groups is not None}
    for first, second in combinations(grouped, 2):
        common = sorted(set(grouped[first].groups or ()) & set(grouped[second].groups or ()))
        if not common:
            continue
        items = sum(group in set(common) for group in grouped[second].groups or ())
        findings.error(
            "same group in two splits",
            f"{first}, {second}",
            f"{count(len(common), 'group')} ({listed(common)}) occur in both, with {items} of "
            f"{len(grouped[second])} items of "
            f"{second}",
            "set dataset.split.grouped: true, or move each group to one side",
            groups=common[:50],
        )


def check_files(parts: Mapping[str, Part], findings: Findings, seconds: float) -> None:
    """The same file, by name or content, in two splits; only files of equal size are read.

    Args:
        parts: the raw part of each split.
        findings: goes in here.
        seconds: how long to go on reading.
    """
    for first, second, message in same_files(parts, seconds, lambda one, other: one != other):
        _report_file(first, second, message, findings)


def same_files(
    parts: Mapping[str, Part],
    seconds: float,
    apart: Callable[[str, str], bool],
    *,
    known: KnownDigest = lambda path: None,
    unread: list[Path] | None = None,
) -> Iterator[tuple[tuple[str, str], tuple[str, str], str]]:
    """Inputs that are the same file, by name or content, in two parts; only files of equal size are read.

    Args:
        parts: by name.
        seconds: how long to go on reading.
        apart: whether two parts, given by name, should have none in common.
        known: the digest of a file that was made before.
        unread: files that could not be read in the time go in here.

    Yields:
        name of the part and case of both, and what is the same, in words.
    """
    owners: dict[Path, tuple[str, str]] = {}
    sizes: dict[int, list[Path]] = {}
    for name, part in parts.items():
        for column in path_columns(part):
            if column.role == "target":
                continue  # masks may well be alike
            for case, value in zip(part.cases, column.values):
                path = Path(value).resolve()
                if path in owners and apart(owners[path][0], name):
                    yield owners[path], (name, case), f"the same file, {path.name}"
                elif path not in owners and path.is_file():
                    owners[path] = name, case
                    sizes.setdefault(path.stat().st_size, []).append(path)
    end = time.monotonic() + seconds
    for paths in sizes.values():
        if len({owners[path][0] for path in paths}) < 2:
            continue
        by_content: dict[str, Path] = {}
        for path in paths:
            digest = known(path)
            if digest is None and time.monotonic() > end:
                if unread is not None:
                    unread.append(path)
                continue
            earlier = by_content.setdefault(digest or digest_file(path), path)
            if apart(owners[earlier][0], owners[path][0]) and not _is_one_value(path):
                yield owners[earlier], owners[path], f"{earlier.name} and {path.name} are equal"


def _report_file(first: tuple[str, str], second: tuple[str, str], message: str, findings: Findings) -> None:
    if any(finding.check == "same item in two splits" for finding in findings):
        return  # one is enough to look for the others, and items that were looked at have been told of
    findings.error(
        "same item in two splits",
        f"{first[0]}, {second[0]}",
        f"case {first[1]} of {first[0]} and case {second[1]} of {second[0]} have {message}",
        "remove the copies before the data are divided, or set dataset.split.grouped: true with a column dataset.group",
        items=[[first[1], second[1]]],
    )


def _is_one_value(path: Path) -> bool:
    """Whether a file's second half repeats one byte: an empty image, which is no copy of another empty image."""
    with path.open("rb") as stream:
        stream.seek(path.stat().st_size // 2)
        return len(set(stream.read(_PIECE))) <= 1


def looks_like_group(column: str) -> bool:
    """Whether a column's name is one of patients or the like."""
    return _LOOKS_LIKE_GROUP.search(column) is not None


def check_ungrouped_columns(cells: Mapping[str, Mapping[str, Sequence[str]]], findings: Findings) -> None:
    """A column that looks like one of patients or the like, which nobody named as `group`, in two splits.

    Args:
        cells: of columns that the experiment does not use, by column and split.
        findings: goes in here.
    """
    for name, by_split in cells.items():
        together = [cell for values in by_split.values() for cell in values]
        if not looks_like_group(name) or len(set(together)) in (1, len(together)):
            continue
        for first, second in combinations(by_split, 2):
            shared = sorted(set(by_split[first]) & set(by_split[second]))
            if shared:
                findings.note(
                    "possible group",
                    f"column '{name}'",
                    f"{count(len(shared), 'value')} of it ({listed(shared, 3)}) occur in {first} and in {second}",
                    f"if items of one {name} belong together, set dataset.group: {name} and "
                    "dataset.split.grouped: true",
                    values=shared[:20],
                )
                break


def check_answers(
    split: SplitData, scales: Sequence[Mapping[str, Any]] | None, names: InputNames, findings: Findings
) -> None:
    """An input column that is the target itself.

    Args:
        split: the training split.
        scales: mean and scale of each input, where they were scaled.
        names: of the inputs.
        findings: goes in here.
    """
    if split.arrays is None:
        return
    inputs, targets = split.arrays
    if not isinstance(inputs, Tensor) or inputs.ndim != 2 or not isinstance(targets, Tensor) or targets.ndim != 1:
        return
    wanted = targets.to(torch.float64)
    if len(wanted) < 2 or bool((wanted == wanted[0]).all()):
        return
    given = inputs.to(torch.float64)
    if scales:
        given = given * torch.tensor(scales[0]["scale"], dtype=torch.float64) + torch.tensor(
            scales[0]["mean"], dtype=torch.float64
        )
    tolerance = 1e-5 * float(wanted.abs().max())
    same = ((given - wanted[:, None]).abs().amax(0) <= tolerance).nonzero().flatten().tolist()
    if same:
        findings.warning(
            "input holds the answer",
            names.features(0, same),
            f"equal to the target in all {len(wanted)} training items",
            "leave it out of the inputs: it will not be known when the model is used",
            features=same[:20],
        )
