"""What a site sends and receives, and what it trains on, counted."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from weft.engine.collectives import Answer, Collective
from weft.federated.sizes import encoded_bytes

# "<kind> messages", "<kind> sent", "<kind> received"; "trained steps", "trained items"; bytes of the largest exchange
Counts = dict[str, int]
LARGEST = "largest exchange"


def counted(
    steps: Generator[Collective, Answer, Any], counts: Counts, kind: str = ""
) -> Generator[Collective, Answer, Any]:
    """The same generator; messages and bytes of what it asks and is told are added up.

    Args:
        steps: what a site does.
        counts: where they are added, by the first word of what is asked; replaced counts of an earlier part go on.
        kind: counts all under one word.
    """
    try:
        collective = next(steps)
        while True:
            word = kind or collective.tag.split()[0]
            _add(counts, f"{word} messages", 1)
            sent = encoded_bytes(collective.tensors, collective.encoding)
            _add(counts, f"{word} sent", sent)
            answer = yield collective
            received = encoded_bytes(answer, collective.encoding)
            _add(counts, f"{word} received", received)
            counts[LARGEST] = max(counts.get(LARGEST, 0), sent + received)
            collective = steps.send(answer)
    except StopIteration as end:
        return end.value
    finally:
        steps.close()


def summary(counts: Counts) -> dict[str, Any]:
    """Messages and bytes by kind, and bytes in all, for JSON."""
    parts = ("messages", "sent", "received")
    kinds = dict.fromkeys(kind for key in counts for kind, _, part in [key.rpartition(" ")] if part in parts)
    by_kind = {kind: {part: counts.get(f"{kind} {part}", 0) for part in parts} for kind in kinds}
    total = {part: sum(entry[part] for entry in by_kind.values()) for part in ("sent", "received")}
    return {**total, "by_kind": by_kind}


def count_step(counts: Counts, items: int) -> None:
    """Count a step in which a site had items to train on."""
    _add(counts, "trained steps", 1)
    _add(counts, "trained items", items)


def trained(counts: Counts) -> dict[str, int]:
    """In how many steps the site had items, and how many items it trained on in all, each as often as it came."""
    return {part: counts.get(f"trained {part}", 0) for part in ("steps", "items")}


def _add(counts: Counts, key: str, number: int) -> None:
    counts[key] = counts.get(key, 0) + number
