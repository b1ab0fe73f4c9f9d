"""Data for the tests of scores."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from weft.metrics import KNOWN, ScoreBook, build_scores


def names_of(kind: str) -> list[Any]:
    """Every score of a kind, with arguments that fit three classes."""
    names: list[Any] = [name for name, info in KNOWN.items() if kind in info.kinds and name != "top_k_accuracy"]
    return [*names, ("top_k_accuracy", {"k": 2})] if kind == "multiclass" else names


def data_of(kind: str, count: int, seed: int, classes: int = 3) -> tuple[Tensor, Tensor]:
    """Outputs and targets of a kind; the outputs lean towards the targets."""
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    if kind == "binary":
        targets = torch.randint(0, 2, (count,), generator=generator)
        return noise(count) + targets - 0.5, targets
    if kind == "multiclass":
        targets = torch.randint(0, classes, (count,), generator=generator)
        return noise(count, classes) + torch.nn.functional.one_hot(targets, classes), targets
    if kind == "multilabel":
        targets = torch.randint(0, 2, (count, classes), generator=generator)
        return noise(count, classes) + targets - 0.5, targets
    if kind == "regression":
        targets = 1000 + noise(count, 2)
        return targets + 0.5 * noise(count, 2), targets
    targets = torch.randint(0, classes, (count, 1, 6, 5, 7), generator=generator)
    return noise(count, classes, 6, 5, 7) + 2 * torch.nn.functional.one_hot(targets[:, 0], classes).movedim(
        -1, 1
    ), targets


def book_of(kind: str, *, gather: bool = True, classes: int = 3, metrics: list[Any] | None = None) -> ScoreBook:
    """A book with every score of the kind."""
    chosen = names_of(kind) if metrics is None else metrics
    return build_scores(chosen, kind=kind, classes=2 if kind in ("binary", "regression") else classes, gather=gather)
