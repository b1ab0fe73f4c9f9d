"""How much memory each of two processes takes that train a network of 51 million parameters with Adam: each with the
whole of it, and each with a part (run.sharding: fsdp).
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.cases import SEED, prepare
from benchmarks.saving import Clock, case_of
from weft.config import Component, load_experiment, resolve
from weft.data import open_data
from weft.engine import CheckpointFolder, CheckpointMemory, Membership, build_run, training
from weft.engine.memory import PeakMemory
from weft.engine.processes import drive_among_processes, find_place

KINDS = ("none", "fsdp")


def measure(start: Callable[[str], list[dict[str, Any]]]) -> dict[str, Any]:
    """Print a table and return its figures.

    Args:
        start: has two processes call `member` with what is sharded, and returns what they say.
    """
    figures: dict[str, Any] = {}
    for kind in KINDS:
        told = start(kind)
        if not figures:
            size = told[0]["parameters"] * 16 / 2**20  # a gradient and two averages with each
            print(f"\n{told[0]['parameters'] / 1e6:.1f} M parameters with Adam ({size:.0f} MiB), two processes, MiB\n")
            print("| run.sharding | peak of each process: training | with a save | s/step |\n|---|---|---|---:|")
        peaks = {name: [one[name] for one in told] for name in ("training", "saving")}
        texts = [", ".join(f"{peak:.0f}" for peak in found) for found in peaks.values()]
        print(f"| {kind} | {texts[0]} | {texts[1]} | {told[0]['step']:.2f} |", flush=True)
        figures[kind] = {**peaks, "step": told[0]["step"]}
    return figures


def member(kind: str, quick: bool) -> None:
    """Train, and print the peak of this process's memory until the first epoch ends, and with what follows it."""
    case, place = case_of(quick), find_place()
    assert place is not None
    with tempfile.TemporaryDirectory(prefix="weft-benchmark-") as folder:
        memory, clock = PeakMemory(torch.device("cpu")), _Peaks()
        experiment = resolve(
            load_experiment(
                {
                    "seed": SEED,
                    "dataset": {"arrays": prepare(case, Path(folder)).files},
                    "model": Component.of(case.model),
                    "training": {
                        "task": case.task, "epochs": 1, "steps": 12, "batch_size": case.batch_size,
                        "optimizer": {"Adam": {"lr": 1e-4}}, "metrics": ["accuracy"],
                    },
                    "run": {"device": "cpu", "num_workers": 0, "sharding": kind},
                }
            )
        )  # fmt: skip
        data = open_data(
            experiment.dataset, experiment.namespace(), seed=SEED, fold=None, base=experiment.base, target_kind="class"
        )
        memory.restart()
        run = build_run(
            experiment, data, observers=[clock], membership=Membership.of(place),
            checkpoints=CheckpointFolder(Path(folder) / "checkpoints") if place.first else CheckpointMemory(),
        )  # fmt: skip
        clock.memory = memory
        run.splits.pop("train", None)
        drive_among_processes(training(run), place, lambda: run.state.position)
        parameters = sum(parameter.numel() for parameter in run.state.model.parameters())
    gaps = [after - before for before, after in zip(clock.ends, clock.ends[1:], strict=False)]
    told = {"training": clock.peak / 2**20, "saving": memory.peak / 2**20}
    print(json.dumps({**told, "step": statistics.median(gaps), "parameters": parameters}))


class _Peaks(Clock):
    """Notes the peak of memory with each step."""

    memory: PeakMemory
    peak = 0

    def on_step(self, step: Any) -> None:
        self.ends.append(time.perf_counter())
        self.peak = self.memory.peak
