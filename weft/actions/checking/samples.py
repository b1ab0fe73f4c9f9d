"""Looking at samples: all of them where they lie in memory, else as many as time allows, spread over the split."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from weft.actions.checking.facts import InputFacts, TargetFacts
from weft.actions.checking.findings import Findings, count
from weft.data import SplitData
from weft.data.fetch import BatchKey, Fetcher
from weft.errors import DataError

_AT_ONCE = 16_000_000  # numbers of data in memory that are looked at in one go


@dataclass(slots=True)
class Looked:
    """What was seen of a split.

    Args:
        split: the split.
        inputs: facts about each input of the model.
        targets: facts about the targets; None without targets, or where they are no tensors.
        owners: for each sample the place in the split of its item (an item may give several samples).
        items: how many items were looked at.
        bad: items that could not be loaded, with the reason.
        seconds_per_item: time that loading took; 0 for data in memory.
    """

    split: SplitData
    inputs: list[InputFacts] = field(default_factory=list)
    targets: TargetFacts | None = None
    owners: list[int] = field(default_factory=list)
    items: int = 0
    bad: dict[int, str] = field(default_factory=dict)
    seconds_per_item: float = 0.0

    @property
    def complete(self) -> bool:
        """Whether every item was looked at."""
        return self.items == len(self.split)

    def where(self, sample: int) -> str:
        """Where a sample comes from."""
        return self.split.where(self.owners[sample])

    def whose(self, samples: Sequence[int]) -> str:
        """Where several samples come from, the first few of them."""
        most = 3
        places = list(dict.fromkeys(self.where(sample) for sample in samples[: 10 * most]))
        left = len(samples) - most
        return ", ".join(places[:most]) + (f" and {left} more" if left > 0 and len(places) >= most else "")

    def describe(self) -> dict[str, Any]:
        """For JSON."""
        described: dict[str, Any] = {
            "items": len(self.split),
            "looked_at": self.items,
            "inputs": [facts.describe() for facts in self.inputs],
        }
        if self.targets is not None and self.targets.counts:
            described["labels"] = {f"{value:g}": amount for value, amount in sorted(self.targets.counts.items())[:100]}
        return described

    def _add(self, inputs: Any, targets: Any, owners: Sequence[int], labels: bool) -> None:
        first = len(self.owners)
        parts = inputs if isinstance(inputs, tuple) else (inputs,)
        self.inputs = self.inputs or [InputFacts() for _ in parts]
        for facts, part in zip(self.inputs, parts):
            if isinstance(part, Tensor):
                facts.add(part, first)
        if isinstance(targets, Tensor):
            self.targets = self.targets or TargetFacts()
            self.targets.add(targets, first, labels=labels)
        self.owners.extend(owners)


def look(split: SplitData, seconds: float, findings: Findings, *, labels: bool) -> Looked:
    """Look at the samples of a split; items that cannot be loaded become findings.

    Args:
        split: the split.
        seconds: how long to go on.
        findings: goes in here.
        labels: whether targets are classes.
    """
    looked = Looked(split)
    if split.arrays is not None:
        _look_at_arrays(looked, split.arrays, seconds, labels)
    else:
        _look_at_items(looked, seconds, labels)
    if looked.bad:
        _report_bad(looked, findings)
    return looked


def _look_at_arrays(looked: Looked, arrays: tuple[Any, Any], seconds: float, labels: bool) -> None:
    inputs, targets = arrays
    parts = inputs if isinstance(inputs, tuple) else (inputs,)
    step = max(_AT_ONCE // max(sum(part[0].numel() for part in parts), 1), 1)
    end = time.monotonic() + seconds
    for start in range(0, len(looked.split), step):
        stop = min(start + step, len(looked.split))
        rows = slice(start, stop)
        part = tuple(value[rows] for value in parts)
        looked._add(part, targets[rows] if isinstance(targets, Tensor) else None, range(start, stop), labels)
        looked.items = stop
        if time.monotonic() > end:
            break


def _look_at_items(looked: Looked, seconds: float, labels: bool) -> None:
    split = looked.split
    fetcher = Fetcher(split.dataset, 0, keys=split.keys, where=split.where, skip_bad=True)
    begin, loading = time.monotonic(), 0.0
    for row in spread(len(split)):
        if looked.items and time.monotonic() - begin > seconds:
            break
        looked.items += 1
        started = time.monotonic()
        try:
            batch = fetcher.fetch(BatchKey(0, [row]))
        except DataError as error:
            looked.bad[row] = error.message
            continue
        loading += time.monotonic() - started
        if row in fetcher.skipped or not batch.size:
            looked.bad[row] = fetcher.skipped.get(row, "it gave no sample")
            continue
        looked._add(batch.inputs, batch.targets, batch.index.tolist(), labels)
    looked.seconds_per_item = loading / max(looked.items - len(looked.bad), 1)


def spread(length: int) -> Iterator[int]:
    """Every number below `length` once, the first few of them spread over the whole range (van der Corput's order)."""
    bits = max(length - 1, 1).bit_length()
    for place in range(1 << bits):
        row = int(f"{place:0{bits}b}"[::-1], 2)
        if row < length:
            yield row


def _report_bad(looked: Looked, findings: Findings) -> None:
    row, reason = next(iter(looked.bad.items()))
    split = looked.split
    skips = split.skip_bad and bool(looked.owners)
    reason = reason if reason.startswith("item cannot") else f"{split.where(row)}: {reason}"
    findings.report(
        "warning" if skips else "error",
        "bad items",
        split.name,
        f"{count(len(looked.bad), 'item')} of {looked.items} cannot be loaded, the first: {reason}",
        "they will be left out; repair them if you can"
        if skips
        else "repair or remove them, or set dataset.on_bad_item: skip",
        items=[split.cases[row] for row in looked.bad][:20],
    )
