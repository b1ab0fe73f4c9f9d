"""What a check of a study came to, beside its findings, in words."""

from __future__ import annotations

from typing import Any

from weft.actions.checking.estimates import size
from weft.actions.checking.findings import CheckReport

SPLITS = ("train", "validation", "test")


def rows_of_sites(report: CheckReport) -> list[list[str]]:
    """A row for each site: name, items of each split, shapes of inputs, batches of an epoch, bytes sent in all."""
    return [_row(name, site, report) for name, site in report.study["sites"].items()]


def _row(name: str, site: dict[str, Any], report: CheckReport) -> list[str]:
    seen = {split: report.looked_at.get(f"{name}: {split}") for split in SPLITS}
    items = [
        "–" if one is None else f"{one['items']:,}" if one["looked_at"] == one["items"]
        else f"{one['items']:,} ({one['looked_at']:,} looked at)" for one in seen.values()
    ]  # fmt: skip
    shapes = dict.fromkeys(
        "×".join(map(str, shape)) or "1"
        for one in seen.values() if one is not None for facts in one["inputs"] for shape in facts["shapes"]
    )  # fmt: skip
    sent = size(site["bytes"]["sent"]) if "bytes" in site else "–"
    return [name, *items, ", ".join(shapes), str(site["batches"] or "–"), sent]


def words_of_study(report: CheckReport) -> list[str]:
    """The strategy's bytes, and what sites have in common, in sentences."""
    study = report.study
    lines = []
    if "bytes" in study:
        lines.append(_traffic(study["strategy"], study["bytes"], study["sites"]))
    if study["normalised"]:
        items = study["normalised"]
        lines.append(
            f"standardize: one mean and scale of each feature for all sites, from sums over {sum(items.values()):,} "
            f"training items of {len(items)} sites"
        )
    if "pretraining" in study:
        first = study["pretraining"]
        lines.append(f"pretraining: at {first['site']}, on {first['items']:,} items")
    return lines


def _traffic(strategy: str, moved: dict[str, Any], sites: dict[str, Any]) -> str:
    parts = [f"{size(moved['step']['sent'])} in a step"]
    if "warmup_step" in moved:
        parts.append(f"{size(moved['warmup_step']['sent'])} in each of the first {moved['warmup_steps']}")
    if "round" in moved:
        parts.append(f"{size(moved['round']['sent'])} at the end of each of {moved['rounds']} rounds")
    parts.append(f"{size(moved['epoch']['sent'])} in an epoch")
    total = sum(site["bytes"]["sent"] for site in sites.values() if "bytes" in site)
    return (
        f"bytes: with {strategy} each site sends {', '.join(parts)}, {size(moved['study']['sent'])} in "
        f"{moved['steps']:,} steps; all sites {size(total)}"
    )
