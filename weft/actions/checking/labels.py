"""Checks of the targets: labels that are no labels, classes that are missing or rare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from weft.actions.checking.findings import Findings, count, listed, number
from weft.actions.checking.raw import check_label_values
from weft.actions.checking.samples import Looked
from weft.data import Data

_IMBALANCE = 10.0  # the largest class by the smallest, from which on it is worth a warning
MOST_CLASSES = 1000


def check_finite_targets(looked: Mapping[str, Looked], findings: Findings) -> None:
    """Targets are finite."""
    for split, seen in looked.items():
        if seen.targets is None or not seen.targets.broken:
            continue
        samples = list(seen.targets.broken)
        findings.error(
            "not finite",
            f"{split}, targets",
            f"the targets of {count(len(samples), 'sample')} are not finite, the first is "
            f"{seen.targets.broken[samples[0]]}: {seen.whose(samples)}",
            "fill such values in, or leave these items out",
            samples=[seen.split.cases[seen.owners[sample]] for sample in samples[:20]],
        )


def check_loaded_labels(
    looked: Mapping[str, Looked], findings: Findings, *, ignored: int | None, whole_is_fine: bool
) -> None:
    """Labels that are known only once items are loaded: those of datasets, and of pixels.

    Args:
        looked: what was seen of each split.
        findings: goes in here.
        ignored: a label that the loss leaves out.
        whole_is_fine: whether whole numbers of a floating type are as they should be (a loss that takes floats, or
            a library that loads everything as such).
    """
    values: set[float] = set()
    for split, seen in looked.items():
        if seen.targets is None or seen.split.arrays is not None:
            continue  # labels in memory were looked at as they were written
        values.update(seen.targets.counts)
        fractions = seen.targets.fractions
        if fractions:
            samples = list(fractions)
            findings.error(
                "float labels",
                f"{split}, targets",
                f"{count(len(samples), 'sample')} of {len(seen.owners)} have labels that are no whole numbers, e.g. "
                f"{number(fractions[samples[0]])}: {seen.whose(samples)}",
                "do not scale or interpolate labels (resample them with mode nearest); to predict numbers use task: "
                "regression",
                samples=[seen.split.cases[seen.owners[sample]] for sample in samples[:20]],
            )
        elif any("float" in kind for kind in seen.targets.dtypes) and not whole_is_fine:
            findings.warning(
                "float labels",
                f"{split}, targets",
                f"labels are {listed(sorted(seen.targets.dtypes))}, though all are whole",
                "store labels as whole numbers, so that a wrong one cannot hide",
            )
    if values and not any(finding.check in ("float labels", "label values") for finding in findings):
        check_label_values("targets", sorted(values), findings, ignored=ignored)


def check_label_range(looked: Mapping[str, Looked], outputs: int, findings: Findings, *, ignored: int | None) -> bool:
    """Whether labels lie between 0 and the number of outputs of the model; reports those that do not.

    Args:
        looked: what was seen of each split.
        outputs: logits per item or pixel.
        findings: goes in here.
        ignored: a label that the loss leaves out.
    """
    good = True
    for split, seen in looked.items():
        if seen.targets is None:
            continue
        wrong = sorted(value for value in seen.targets.counts if not 0 <= value < outputs and value != ignored)
        if not wrong:
            continue
        good = False
        holders = sum(seen.targets.holders[value] for value in wrong)
        findings.error(
            "label out of range",
            split,
            f"label {listed(f'{value:g}' for value in wrong)} occurs in {count(holders, 'sample')}, but the model has "
            f"{count(outputs, 'output')} (labels 0 to {outputs - 1}); the first: "
            f"{seen.where(seen.targets.example[wrong[0]])}",
            f"correct these labels, or give the model {int(max(wrong)) + 1} outputs"
            if wrong[0] >= 0 and max(wrong) < 100
            else "correct these labels: they count from 0",
            labels=wrong[:20],
            outputs=outputs,
        )
    return good


def class_counts(looked: Mapping[str, Looked], classes: int) -> dict[str, list[int]]:
    """Per split how many samples have each class (for maps: hold at least a pixel of it)."""
    return {
        split: [seen.targets.holders.get(label, 0) for label in range(classes)]
        for split, seen in looked.items()
        if seen.targets is not None and seen.targets.counts
    }


def check_classes(
    looked: Mapping[str, Looked], names: Sequence[str], findings: Findings, *, maps: bool, compensated: str | None
) -> None:
    """Classes that are missing from a split, and classes that are rare.

    Args:
        looked: what was seen of each split.
        names: of the classes.
        findings: goes in here.
        maps: whether labels belong to pixels.
        compensated: what makes up for rare classes (a sampler, weights of the loss), None for nothing.
    """
    counts = class_counts(looked, len(names))
    if not counts or len(names) > MOST_CLASSES:
        return
    total = [sum(column) for column in zip(*counts.values())]
    complete = all(looked[split].complete for split in counts)
    nowhere = [name for name, amount in zip(names, total) if amount == 0]
    if (
        nowhere
        and complete
        and not findings.has("error", "label values")
        and not findings.has("warning", "label values")
    ):
        findings.warning(
            "class nowhere",
            "all splits",
            f"class {listed(nowhere)} has not one {'pixel' if maps else 'item'}",
            f"give the model {len(names) - len(nowhere)} outputs, or see where these labels went",
            classes=nowhere,
        )
    for split, amounts in counts.items():
        _check_missing(split, looked[split], amounts, total, names, maps, findings)
    if "train" in counts and not maps:
        check_balance(counts["train"], names, compensated, findings)


def _check_missing(
    split: str,
    seen: Looked,
    amounts: Sequence[int],
    total: Sequence[int],
    names: Sequence[str],
    maps: bool,
    findings: Findings,
) -> None:
    missing = [name for name, amount, anywhere in zip(names, amounts, total) if amount == 0 and anywhere > 0]
    if not missing or not seen.complete:
        return
    elsewhere = max(anywhere for name, amount, anywhere in zip(names, amounts, total) if amount == 0)
    message = f"class {listed(missing)} has no {'pixel' if maps else 'item'} in {split}, but {elsewhere} elsewhere"
    if split == "train":
        findings.error(
            "missing class",
            split,
            message + ": it cannot be learned",
            "divide the data with dataset.split.stratified: true, or bring such items into training",
            classes=missing,
        )
    else:
        findings.warning(
            "missing class",
            split,
            message + ": its scores say nothing",
            "divide the data with dataset.split.stratified: true, or use fewer or larger parts",
            classes=missing,
        )


def check_fold_classes(data: Data, fold: int, findings: Findings) -> None:
    """Classes of which a fold has no item to train on, though the data have some."""
    assert data.classes is not None
    present = {}
    for name, split in data.splits.items():
        targets = split.arrays[1] if split.arrays is not None else None
        if not isinstance(targets, Tensor) or targets.ndim != 1 or targets.is_floating_point():
            return
        present[name] = set(targets.tolist())
    missing = set.union(*present.values()) - present["train"]
    if missing:
        findings.error(
            "missing class",
            f"train, fold {fold}",
            f"class {listed(data.classes[label] for label in sorted(missing))} has no item in train: it "
            "cannot be learned",
            "divide the data with dataset.split.stratified: true, or use fewer folds",
            classes=[data.classes[label] for label in sorted(missing)],
        )


def check_balance(
    amounts: Sequence[int], names: Sequence[str], compensated: str | None, findings: Findings, where: str = "train"
) -> None:
    """Classes that are rare among the training items.

    Args:
        amounts: items of each class.
        names: of the classes.
        compensated: what makes up for it, None for nothing.
        findings: goes in here.
        where: the items are.
    """
    present = {name: amount for name, amount in zip(names, amounts) if amount}
    if len(present) < 2:
        return
    rarest, commonest = min(present, key=present.__getitem__), max(present, key=present.__getitem__)
    ratio = present[commonest] / present[rarest]
    if ratio < _IMBALANCE:
        return
    share = present[commonest] / sum(present.values())
    remedy = (
        ""
        if compensated
        else "weigh the loss (CrossEntropyLoss: {weight: …}), sample with BalancedSampler, and watch "
        "balanced_accuracy, f1 "
        "or average_precision rather than accuracy"
    )
    findings.report(
        "note" if compensated else "warning",
        "class imbalance",
        where,
        f"class '{commonest}' has {present[commonest]:,} items, class '{rarest}' {present[rarest]:,} "
        f"({ratio:.0f} times "
        f"fewer); saying '{commonest}' always is right in {share:.0%}" + (f"; {compensated}" if compensated else ""),
        remedy,
        counts=dict(list(present.items())[:50]),
        ratio=ratio,
    )
