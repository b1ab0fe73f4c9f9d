"""Studies on unequal shares of the breast cancer table, and what is compared of them."""

from __future__ import annotations

import csv
import json
import math
import os
import signal
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

from tests.engine.studies import DoubleNet, share
from tests.experiments import changed
from weft.actions.opening import load, open_experiment_data
from weft.data import make_loader
from weft.engine import Observer
from weft.engine.checkpoints import CheckpointFolder
from weft.federated.site import site_experiment
from weft.federated.study import simulate
from weft.runs import TIMING_COLUMNS

SIZES = {"north": 37, "south": 90, "west": 61}
REPOSITORY = Path(__file__).parents[2]


def study(sites: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """A study; a key `a__b` stands for the entry `b` of section `a`."""
    shares, start = {}, 0
    for name, size in SIZES.items():
        shares[name] = {"arrays": {"tests.engine.studies.share": {"start": start, "stop": start + size}}}
        start += size
    written: dict[str, Any] = {
        "name": "tumours",
        "seed": 5,
        "dataset": {"split": {"ratio": [0.7, 0.2, 0.1], "stratified": True}},
        "model": {"tests.engine.studies.DoubleNet": {}},
        "training": {
            "task": "classification",
            "epochs": 3,
            "batch_size": 8,
            "optimizer": {"SGD": {"lr": 0.05, "momentum": 0.9}},
            "metrics": ["accuracy", "auroc"],
        },
        "federation": {"sites": shares if sites is None else sites},
        "run": {"device": "cpu", "num_workers": 0, "threads": 1, "progress": False, "log_every": 1},
    }
    return changed(written, **changes)


def distance_to_union(done: Path, written: dict[str, Any], *, epochs: int, batches: int | None = None) -> float:
    """The largest distance of a weight of any site from a plain loop, whose steps are on the batches of all sites.

    Args:
        done: directory of the study.
        written: the study.
        epochs: how many.
        batches: of an epoch of each site; None for each site's own.
    """
    experiment = load(written)
    torch.manual_seed(experiment.seed)
    model = DoubleNet()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    loaders = []
    for name in SIZES:
        site = site_experiment(experiment, name)
        statistics = json.loads((done / "sites" / name / "statistics.json").read_text())
        split = open_experiment_data(site, statistics).splits["train"]
        loaders.append(make_loader(split, batch_size=8, seed=site.seed, shuffle=True, batches=batches))
    for epoch in range(epochs):
        for each in zip_longest(*(loader.epoch(epoch) for loader in loaders)):
            there = [batch for batch in each if batch is not None]
            inputs, targets = (torch.cat([getattr(batch, key) for batch in there]) for key in ("inputs", "targets"))
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(inputs), targets).backward()
            optimizer.step()
    found = [state_of(done, name)["model"] for name in SIZES]
    return max(float((one[key] - value).abs().max()) for one in found for key, value in model.state_dict().items())


def state_of(done: Path, site: str) -> dict[str, Any]:
    """What a site of a study has saved last."""
    state = CheckpointFolder(done / "sites" / site / "checkpoints").load_last()
    assert state is not None
    return state


def rows_of(file: Path) -> list[dict[str, str]]:
    """The rows of a table, without timing columns."""
    with file.open(newline="") as handle:
        return [{key: cell for key, cell in row.items() if key not in TIMING_COLUMNS} for row in csv.DictReader(handle)]


def outcome(path: Path) -> dict[str, Any]:
    """All that must be the same to the bit in a study that was disturbed and one that was not."""
    result = json.loads((path / "result.json").read_text())
    kept = {key: result[key] for key in ("scores", "sites", "epochs", "steps", "best_epoch", "model_sha256", "bounds")}
    files = [path / "history.csv", *sorted(path.glob("sites/*/history.csv")), *sorted(path.glob("sites/*/steps.csv"))]
    return kept | {"tables": {file.relative_to(path).as_posix(): rows_of(file) for file in files}}


class Kill(Observer):
    """Kills its process when a site has saved its state for the nth time.

    Args:
        site: whose.
        saves: n.
        fold: only in that fold's study.
    """

    def __init__(self, site: str, saves: int, fold: int | None = None) -> None:
        self.site, self.saves, self.fold = site, saves, fold

    def on_checkpoint(self, path: Path, kind: str) -> None:
        site = path.parent.parent
        there = self.fold is None or site.parent.parent.name == f"fold-{self.fold}"
        if kind == "last" and site.name == self.site and there:
            self.saves -= 1
            if self.saves == 0:
                os.kill(os.getpid(), signal.SIGKILL)


class NotFiniteOnce(torch.nn.Module):
    """Cross entropy that is not finite for batches of so many items.

    Args:
        items: of the batch.
        scored: infinite where items are scored, in place of not a number in training.
    """

    def __init__(self, items: int, scored: bool = False) -> None:
        super().__init__()
        self.items, self.scored = items, scored

    def forward(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        loss = torch.nn.functional.cross_entropy(outputs, targets)
        strikes = len(targets) == self.items and outputs.requires_grad != self.scored
        return loss * (math.inf if self.scored else math.nan) if strikes else loss


def simulate_and_die(
    written: dict[str, Any],
    out: Path,
    site: str,
    saves: int,
    fold: int | None = None,
    scenario: dict[str, Any] | None = None,
) -> None:
    """Run a study in a forked process that is killed, and see that it was."""
    child = os.fork()
    if child == 0:
        try:
            kill = {"site": site, "saves": saves, "fold": fold}
            written["run"].setdefault("observers", []).append({"tests.federated.lab.Kill": kill})
            simulate(written, out=out, scenario=scenario)
        finally:
            os._exit(3)  # it was not killed
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), f"it ended with {os.waitstatus_to_exitcode(status)}"


class Rows(Dataset[Any]):
    """Rows of a site, as a class of the user's own.

    Args:
        start, stop: which, of the breast cancer table.
    """

    def __init__(self, start: int, stop: int) -> None:
        self.inputs, self.targets = share(start, stop)

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, row: int) -> tuple[Any, int]:
        return self.inputs[row], int(self.targets[row])


class GradientNotFiniteOnce(torch.nn.Module):
    """Cross entropy that is finite, but has gradients that are not for batches of so many items in training.

    Args:
        items: of the batch.
    """

    def __init__(self, items: int) -> None:
        super().__init__()
        self.items = items

    def forward(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        loss = torch.nn.functional.cross_entropy(outputs, targets)
        strikes = len(targets) == self.items and outputs.requires_grad
        return loss + (outputs.sum() * 0).abs().sqrt() if strikes else loss
