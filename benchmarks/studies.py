"""The study that `benchmarks/federated.py` measures, its messages, and how it grows."""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from weft.config import Component, Experiment, load_experiment, resolve
from weft.data import open_data
from weft.engine import Membership, Observer, Start, Step, build_run, training
from weft.engine.collectives import Collective, combine
from weft.engine.drivers import typed_result
from weft.federated.messages import answer_to, ask_of, encode
from weft.federated.site import build_strategy, site_experiment
from weft.federated.study import simulate

FEATURES, BATCH_SIZE, SEED = 66, 16, 1
SIZES = {"61 k": [FEATURES, 256, 128, 64, 32, 2], "2.5 M": [FEATURES, 1152, 1152, 960, 2]}
TINY = [FEATURES, 8, 2]
Table = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]


def parameters_of(sizes: list[int]) -> int:
    """Number of parameters of a perceptron."""
    return sum((before + 1) * after for before, after in pairwise(sizes))


def make_tables(sites: int, rows: int) -> list[Table]:
    """Rows of numbers of two classes that a few of them tell, for each site."""
    tables = []
    for site in range(sites):
        generator = np.random.default_rng(site)
        inputs = generator.normal(size=(rows, FEATURES)).astype(np.float32)
        tables.append((inputs, (inputs[:, :8].sum(1) > 0).astype(np.int64)))
    return tables


def make_study(
    tables: list[Table],
    validated: int,
    sizes: list[int],
    epochs: int,
    folder: Path,
    *,
    fused: bool = False,
    threads: int = 1,
) -> Experiment:
    """A study on tables.

    Args:
        tables: of each site.
        validated: so many rows, the last ones of each table, are for validation.
        sizes: of the perceptron's layers.
        epochs: how many.
        folder: the tables are written here.
        fused: whether torch's fused optimizer takes the steps.
        threads: of an operation.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sites: dict[str, Any] = {}
    for number, table in enumerate(tables):
        files: dict[str, dict[str, str]] = {"train": {}, "validation": {}}
        for name, array in zip(("inputs", "targets"), table, strict=True):
            cut = len(array) - validated
            for split, part in (("train", array[:cut]), ("validation", array[cut:])):
                path = folder / f"{number}-{split}-{name}.npy"
                np.save(path, part)
                files[split][name] = str(path)
        sites[f"site{number:04}"] = {"arrays": files}
    return load_experiment(
        {
            "name": "speed",
            "seed": SEED,
            "dataset": {},
            "model": {"MLP": {"in_features": FEATURES, "hidden": sizes[1:-1], "out_features": sizes[-1]}},
            "training": {
                "task": "classification", "epochs": epochs, "batch_size": BATCH_SIZE,
                "optimizer": {"Adam": {"lr": 1e-3}}, "metrics": ["accuracy"], "fused": fused,
            },
            "federation": {"sites": sites},
            "run": {
                "device": "cpu", "num_workers": 0, "threads": threads, "progress": False,
                "observers": [Component.of(StepClock)],
            },
        }
    )  # fmt: skip


class StepClock(Observer):
    """Notes when the first site has taken its steps; a list for each epoch."""

    epochs: ClassVar[list[list[float]]] = []

    def __init__(self) -> None:
        self.first = False

    def on_start(self, start: Start) -> None:
        self.first = start.name.endswith("site0000")

    def on_step(self, step: Step) -> None:
        if self.first:
            if step.batch == 1 or not StepClock.epochs:
                StepClock.epochs.append([])
            StepClock.epochs[-1].append(time.perf_counter())


@dataclass
class Trained:
    """What a study gave.

    Args:
        path: its directory.
        result: as it wrote it.
        steps: seconds of each step but the first of an epoch.
        seconds: of all.
    """

    path: Path
    result: dict[str, Any]
    steps: list[float]
    seconds: float


def run_study(study: Experiment, folder: Path) -> Trained:
    """Simulate a study, timed."""
    StepClock.epochs = []
    started = time.perf_counter()
    done = simulate(study, out=folder)
    seconds = time.perf_counter() - started
    steps = [after - before for epoch in StepClock.epochs for before, after in pairwise(epoch)]
    return Trained(done.path, done.result, steps, seconds)


# --- what travels -----------------------------------------------------------------------------------------------------


@dataclass
class Traffic:
    """Bytes of encoded messages of a site among five.

    Args:
        steps: how many were taken.
        sent, received: by the first word of what was asked, of all steps.
    """

    steps: int = 0
    sent: dict[str, int] = field(default_factory=dict)
    received: dict[str, int] = field(default_factory=dict)

    def add(self, collective: Collective, asked: int, answered: int) -> None:
        """Count one exchange."""
        word = collective.tag.split()[0]
        self.sent[word] = self.sent.get(word, 0) + asked
        self.received[word] = self.received.get(word, 0) + answered


def encoded_traffic(study: Experiment) -> Traffic:
    """Train one site of a study whose messages are encoded as they would be sent; the other sites say the same.

    Only what is asked for steps is counted, not what ends an epoch or the run.
    """
    assert study.federation is not None
    experiment, sites = resolve(site_experiment(study, min(study.federation.sites))), len(study.federation.sites)
    data = open_data(
        experiment.dataset, experiment.namespace(), seed=SEED, fold=None, base=experiment.base, target_kind="class"
    )
    membership = Membership(sites, gather=False)
    run = build_run(experiment, data, strategy=build_strategy(study), membership=membership)
    run.observers.observers.clear()
    steps, traffic, number = training(run), Traffic(), 0
    try:
        collective = next(steps)
        while True:
            position = run.state.position
            ask = ask_of(
                collective, study="0" * 64, sender=experiment.name.split()[-1], epoch=position.epoch,
                step=position.step, number=number,
            )  # fmt: skip
            answer = combine([collective] * sites)
            traffic.add(collective, len(encode(ask)), len(encode(answer_to(ask, answer))))
            number += 1
            collective = steps.send(answer)
    except StopIteration as end:
        traffic.steps = typed_result(end.value, "the site").steps
    finally:
        run.close()
    return traffic


# --- growth -----------------------------------------------------------------------------------------------------------


def grow(sites: int, rows: int) -> dict[str, float]:
    """Time and memory of a small study in this process, which should do nothing else."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="weft-benchmark-") as folder:
        first = make_study(make_tables(2, rows), 2, SIZES["61 k"], 1, Path(folder) / "warm")
        run_study(first, Path(folder) / "first")  # everything is imported, and memory pools are filled
        study = make_study(make_tables(sites, rows), 2, SIZES["61 k"], 2, Path(folder) / "tables")
        before = _peak()
        done = run_study(study, Path(folder) / "study")
        return {
            "sites": sites,
            "seconds": done.seconds,
            "step_seconds": float(np.median(done.steps)),
            "memory": _peak() - before,
        }


def _peak() -> float:
    """The most memory that the process has had so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 2**20
