"""How long training waits for a checkpoint of a network of 51 million parameters: at once, and beside the training."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.cases import SEED, Case, prepare
from weft.config import Component, load_experiment, resolve
from weft.data import open_data
from weft.engine import CheckpointFolder, Observer, build_run, drive_alone, training
from weft.engine.background import BackgroundCheckpoints
from weft.engine.determinism import reproducible
from weft.engine.events import Step

KINDS = ("none", "at once", "beside")
SAVES = 2  # of a run, in the steps that are counted


def wide(width: int) -> nn.Module:
    """Four square layers."""
    layers: list[nn.Module] = []
    for _ in range(4):
        layers += [nn.Linear(width, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, 2))


def case_of(quick: bool) -> Case:
    """Batches of 16, three times as many steps between two saves as are needed to write."""
    width, every = (64, 2) if quick else (3584, 12)

    def vectors(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        inputs = torch.randn(count, width, generator=generator)
        return inputs, (inputs[:, 0] > 0).long()

    items = 16 * every * (SAVES + 1)
    return Case("saving", "multilayer perceptron", lambda: wide(width), vectors, 16, items, 16, 1)


class Clock(Observer):
    """Notes when each step ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step(self, step: Step) -> None:
        self.ends.append(time.perf_counter())


class Timed:
    """A store whose `save_last` is timed: so long the training stands still."""

    def __init__(self, store: Any) -> None:
        self.store, self.seconds = store, list[float]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    def save_last(self, *arguments: Any, **options: Any) -> Any:
        start = time.perf_counter()
        saved = self.store.save_last(*arguments, **options)
        self.seconds.append(time.perf_counter() - start)
        return saved


def train(case: Case, kind: str, folder: Path) -> tuple[float, list[float]]:
    """Seconds from the first to the last step, and those that the training stood still for each save in between."""
    steps = case.steps // (SAVES + 1)
    every = {"epochs": 1} if kind == "none" else {"steps": steps}
    experiment = resolve(
        load_experiment(
            {
                "seed": SEED,
                "dataset": {"arrays": prepare(case, folder).files},
                "model": Component.of(case.model),
                "training": {
                    "task": case.task, "epochs": 1, "batch_size": case.batch_size,
                    "optimizer": {"Adam": {"lr": 1e-4}}, "metrics": ["accuracy"],
                },
                "run": {"device": "cpu", "num_workers": 0, "checkpoint_every": every},
            }
        )
    )  # fmt: skip
    data = open_data(
        experiment.dataset, experiment.namespace(), seed=SEED, fold=None, base=experiment.base, target_kind="class"
    )
    clock, checkpoints = Clock(), CheckpointFolder(folder / "checkpoints")
    store = Timed(BackgroundCheckpoints(checkpoints) if kind == "beside" else checkpoints)
    run = build_run(experiment, data, checkpoints=store, observers=[clock])
    run.splits.pop("train", None)
    try:
        drive_alone(training(run))
    finally:
        run.close()
    return clock.ends[-1] - clock.ends[0], store.seconds[:SAVES] if kind != "none" else []


def measure(rounds: int, quick: bool) -> dict[str, Any]:
    """Train in turns without saves and with saves of both kinds; prints a table and returns its figures."""
    case = case_of(quick)
    totals: dict[str, list[float]] = {kind: [] for kind in KINDS}
    stalls: dict[str, list[float]] = {kind: [] for kind in KINDS}
    with reproducible(threads=1, deterministic=True, device=torch.device("cpu")):
        for number in range(-1, rounds):  # the first round is thrown away
            for kind in KINDS if number % 2 else reversed(KINDS):
                with tempfile.TemporaryDirectory(prefix="weft-benchmark-") as folder:
                    total, stall = train(case, kind, Path(folder))
                if number >= 0:
                    totals[kind].append(total)
                    stalls[kind] += stall
    parameters = sum(parameter.numel() for parameter in case.model().parameters())
    step = statistics.median(totals["none"]) / (case.steps - 1)
    size = parameters * 12 / 2**20  # each with two averages of Adam's
    print(f"\nsaving {parameters / 1e6:.1f} M parameters with Adam ({size:.0f} MiB), steps of {step:.2f} s\n")
    print("| checkpoint | training stands still, s | longer in all per save, s |\n|---|---:|---:|")
    figures: dict[str, Any] = {"parameters": parameters, "seconds_per_step": step}
    for kind in KINDS[1:]:
        longer = statistics.median(
            (own - other) / SAVES for own, other in zip(totals[kind], totals["none"], strict=True)
        )
        figures[kind] = {"stall": statistics.median(stalls[kind]), "longer": longer}
        print(f"| {kind} | {figures[kind]['stall']:.2f} (most {max(stalls[kind]):.2f}) | {longer:.2f} |", flush=True)
    return figures
