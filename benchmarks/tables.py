"""The command line of `benchmarks/loop.py`, and its tables."""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks import null_model, startup
from benchmarks.cases import CASES, NULL, Case, prepare
from benchmarks.common import Outcome
from benchmarks.contenders import PEERS, REFERENCES, Contender, contenders
from benchmarks.pairs import Pairs, Spread, run_once, run_pairs

ENOUGH_PAIRS = 9  # an interval over fewer is wide enough to hold any goal
HEADER = (
    "| case | contender | CPU ms/step | ratio | 90 % interval | wall ratio | weights of the loop by hand | goal |\n"
    "|---|---|---:|---:|---|---:|---|---|"
)
NULL_HEADER = "| null model | own time per step, µs | 90 % interval | per epoch, ms | goal |\n|---|---:|---|---:|---|"


def main(description: str) -> int:
    """Run what the command line asks for; 1 when weights differ where they must not."""
    arguments = parse(description)
    if arguments.startup:
        print("\n".join(startup.report(arguments.pairs)))
        return 0
    torch.set_num_threads(1)
    print(surroundings(), flush=True)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="weft-benchmark-") as folder:
        print(HEADER, flush=True)
        for key in arguments.cases:
            if key in CASES:
                case = CASES[key].smaller() if arguments.quick else CASES[key]
                rows += compare(case, arguments.pairs, Path(folder) / key, arguments.only)
        if "null" in arguments.cases:
            print(f"\n{NULL_HEADER}", flush=True)
            rows += own_times(
                NULL.smaller() if arguments.quick else NULL, arguments.pairs, Path(folder) / "null", arguments.only
            )
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(rows, indent=1))
    return int(any(row["same_weights"] is False for row in rows))


def parse(description: str) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    every = [*CASES, "null"]
    parser.add_argument("--cases", nargs="+", choices=every, default=every, help="which problems (default: all)")
    parser.add_argument("--only", metavar="TEXT", help="contenders with this in their name")
    parser.add_argument("--pairs", type=int, default=9, help="interleaved pairs for each ratio (default: 9)")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that all runs, its ratios mean nothing")
    parser.add_argument("--startup", action="store_true", help="only what starting costs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows to this file")
    return parser.parse_args()


def surroundings() -> str:
    """Where the figures come from, in a line."""
    machine = f"{platform.system()} {platform.machine()}, {processor()}, {os.cpu_count()} cores"
    software = f"Python {platform.python_version()}, torch {torch.__version__}"
    threads, load = torch.get_num_threads(), os.getloadavg()[0]
    return f"{machine}, load {load:.1f} at the start; {software}, device cpu, {threads} thread{'s' * (threads > 1)}\n"


def processor() -> str:
    """The processor's name."""
    file = Path("/proc/cpuinfo")
    names = [line for line in file.read_text().splitlines() if line.startswith("model name")] if file.exists() else []
    return names[0].partition(":")[2].strip() if names else platform.processor()


def compare(case: Case, count: int, folder: Path, only: str | None) -> list[dict[str, Any]]:
    """All contenders of a case, a row each."""
    prepared = prepare(case, folder / "data")
    length = -(-case.train_items // case.batch_size)
    print(f"| {case.key} | {case.title}: {case.epochs} epochs of {length} steps | | | | | | |")
    rows = []
    for contender in contenders(case):
        if only and only.lower() not in contender.name.lower():
            continue
        if not contender.is_installed:
            print(f"| {case.key} | {contender.name} | skipped: {contender.package} is not installed | | | | | |")
            rows.append(skipped_row(case, contender))
            continue
        train, reference = contender.load(), REFERENCES[contender.reference].load()
        pairs = run_pairs(train, reference, prepared, folder, count)
        twin = pairs.reference[0]
        if contender.twin is not None:
            by_hand = replace(REFERENCES[contender.reference], options=contender.twin).load()
            twin = run_once(by_hand, prepared, folder / "run")
        row, line = ratio_row(case, contender, pairs, twin)
        print(line, flush=True)
        rows.append(row)
    return rows


def skipped_row(case: Case, contender: Contender) -> dict[str, Any]:
    """The row of a contender that is not here."""
    return {"case": case.key, "contender": contender.name, "skipped": contender.package, "same_weights": None}


def ratio_row(case: Case, contender: Contender, pairs: Pairs, twin: Outcome) -> tuple[dict[str, Any], str]:
    """The figures of a contender, and the line that shows them; its weights must be those of `twin`."""
    cpu, wall = pairs.cpu, pairs.wall
    own, reference = (sorted(run.cpu for run in runs)[len(runs) // 2] for runs in (pairs.own, pairs.reference))
    row = {
        "case": case.key,
        "contender": contender.name,
        "reference": contender.reference,
        "milliseconds_per_step": 1e3 * own / case.steps,
        "reference_milliseconds_per_step": 1e3 * reference / case.steps,
        "ratio": cpu.median,
        "interval": [cpu.low, cpu.high],
        "wall_ratio": wall.median,
        "same_weights": all(run.same_weights(twin) for run in pairs.own),
        "goal": contender.goal,
    }
    weights = "the same" if row["same_weights"] else "DIFFERENT"
    if contender.twin is not None:
        weights += f", told {' and '.join(contender.twin)}"
    line = (
        f"| {case.key} | {contender.name} | {row['milliseconds_per_step']:.3f} "
        f"(by hand {row['reference_milliseconds_per_step']:.3f}) | {cpu.median:.2f} | {cpu.low:.2f}–{cpu.high:.2f} | "
        f"{wall.median:.2f} | {weights} | {verdict(cpu, contender.goal, len(pairs.own))} |"
    )
    return row, line


def verdict(found: Spread, goal: float | None, pairs: int) -> str:
    """Whether a goal is reached: the interval over enough pairs contains it or lies below it."""
    if goal is None:
        return ""
    if pairs < ENOUGH_PAIRS:
        return f"≤ {goal:g}: too few pairs to tell"
    return f"≤ {goal:g}: {'yes' if found.low <= goal else 'no'}"


def own_times(case: Case, count: int, folder: Path, only: str | None) -> list[dict[str, Any]]:
    """The own time of everybody with the null model, a row each."""
    everybody = [Contender("Weft, in memory", "by_weft", goal=100.0), *REFERENCES.values(), *PEERS]
    rows = []
    for contender in everybody:
        if only and only.lower() not in contender.name.lower():
            continue
        if not contender.is_installed:
            print(f"| {contender.name} | skipped: {contender.package} is not installed | | | |")
            rows.append(skipped_row(case, contender))
            continue
        own = null_model.measure(contender.load(), case, folder / contender.module, count)
        interval, goal = f"{own.step.low:.0f}–{own.step.high:.0f}", verdict(own.step, contender.goal, count)
        line = f"| {contender.name} | {own.step.median:.0f} | {interval} | {own.epoch.median:.1f} | {goal} |"
        print(line, flush=True)
        figures = {"microseconds_per_step": own.step.median, "milliseconds_per_epoch": own.epoch.median}
        rows.append({"case": "null", "contender": contender.name, **figures, "same_weights": None})
    return rows
