"""Names of what a line of a log holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from weft.interop.coinstac.arguments import DEFAULTS
from weft.interop.coinstac.trainer import COINNTrainer


def monitored(cache: Mapping[str, Any]) -> str:
    """The name of the score that decides about the best epoch."""
    name = str(cache["monitor_metric"])
    return "loss" if name.lower() == "loss" else name


def header_of(trainer: COINNTrainer) -> str:
    """`log_header` with a name for each number of a log line; `|` stands between the plots. What it lacks is named
    after the scores, and so is everything where nobody gave one and the default does not fit.
    """
    given = trainer.cache.get("log_header") or ""
    text = ",".join(map(str, given)) if isinstance(given, list) else str(given)
    averages, metrics = len(trainer.new_averages().get()), trainer.new_metrics()
    length = averages + len(metrics.get())
    own = ["Loss", *(f"Average {place}" for place in range(2, averages + 1)), *metrics.score_names]
    own += [f"Score {place}" for place in range(len(own) + 1, length + 1)]
    parts = [[name.strip() for name in part.split(",") if name.strip()] for part in text.split("|")]
    count = sum(map(len, parts))
    if not count or (count != length and text == DEFAULTS["log_header"]):
        parts = [own[:averages], own[averages:length]]
    elif count < length:
        parts[-1] += own[count:length]
    while sum(map(len, parts)) > length:
        parts[-1].pop()
        parts = [part for part in parts if part]
    return "|".join(",".join(part) for part in parts if part)


def labels_of(trainer: COINNTrainer) -> list[str]:
    """A name for each number of a log line, each another one."""
    names = header_of(trainer).replace("|", ",").split(",")
    taken = {"loss", monitored(trainer.cache)}
    labels: list[str] = []
    for name in names:
        place = sum(1 for other in names[: len(labels)] if other == name)
        label = f"{name} {place + 1}" if place else name
        labels.append(f"{label} (log)" if label in taken else label)
    return labels
