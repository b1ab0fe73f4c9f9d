"""Jobs of several processes that train one experiment: by `weft train --processes`, or by other launchers."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.faults.nursery import REPOSITORY, Child, Nursery
from tests.faults.runs import history_of, result_of, write_experiment

# The same on any number of processes: no dropout, and no optimizer that makes much of little differences.
WITHOUT_DROPOUT: dict[str, Any] = {
    "model": {"Net": {"dropout": 0.0}},
    "training.optimizer": {"SGD": {"lr": 0.05, "momentum": 0.9}},
}
SABOTEUR = Path(__file__).with_name("saboteur.py")


def write_job(folder: Path, changes: dict[str, Any] | None = None) -> Path:
    """An experiment whose processes can be sabotaged."""
    file = write_experiment(folder, {"run.observers": None, "patches": ["patch.py", "saboteur.py"], **(changes or {})})
    shutil.copy(SABOTEUR, folder / "saboteur.py")
    return file


def start(
    nursery: Nursery, *arguments: str | Path, sabotage: Sequence[Mapping[str, Any]] = (), log: Path | None = None
) -> Child:
    """Start `weft ARGUMENTS` as a child; `log` gets the time of the sabotage."""
    variables = {
        "WEFT_TEST_SABOTAGE": json.dumps(list(sabotage)), "WEFT_TEST_LOG": str(log or os.devnull),
        "PYTHONPATH": str(REPOSITORY),
    }  # fmt: skip
    return nursery.start(json.dumps(variables), *arguments, call="tests.processes.children:weft")


def weft(variables: str, *arguments: str) -> None:
    """Be the command line, in a child of the nursery."""
    from weft.cli import main

    os.environ.update(json.loads(variables))
    sys.argv = ["weft", *arguments]
    try:
        main(list(arguments))
    except SystemExit as end:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(int(end.code or 0))


def program(variables: str, *arguments: str) -> None:
    """Become another program, in a child of the nursery."""
    os.environ.update(json.loads(variables))
    os.execvp(arguments[0], arguments)


def start_program(nursery: Nursery, *arguments: str | Path, **variables: str) -> Child:
    """Start another program as a child."""
    given = {"PYTHONPATH": str(REPOSITORY), **variables}
    return nursery.start(json.dumps(given), *arguments, call="tests.processes.children:program")


def require_alike(run: Path, alone: Path) -> None:
    """What the design's table promises of another number of processes: counts exactly, the rest to rounding."""
    weights, expected = (load_file(folder / "model.safetensors") for folder in (run, alone))
    for name, tensor in expected.items():
        assert torch.allclose(weights[name].double(), tensor.double(), rtol=0, atol=1e-5), name
    result, same = result_of(run), result_of(alone)
    assert result["steps"] == same["steps"]
    for split, scores in same["scores"].items():
        assert result["scores"][split]["accuracy"] == scores["accuracy"]
    history, expected_history = history_of(run), history_of(alone)
    assert len(history) == len(expected_history)
    for row, alike in zip(history, expected_history, strict=True):
        for name, cell in row.items():
            assert float(cell) == pytest.approx(float(alike[name]), abs=1e-5), (name, row["epoch"])


def left_behind(run: Path) -> list[int]:
    """Processes whose command line names the run."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                line = (entry / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if str(run) in line and int(entry.name) != os.getpid():
                found.append(int(entry.name))
    return found


def step_of(run: Path, rank: int) -> int:
    """The step that a process has done, as far as it has said."""
    try:
        return int(json.loads((run / ".heartbeats" / f"{rank}.json").read_text())["step"])
    except (OSError, ValueError):
        return 0
