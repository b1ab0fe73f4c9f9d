"""`weft train --debug` tells of batches and gradients, also of those that end a run, and changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import weft
from tests.cli.lab import good
from weft.errors import NotFiniteError
from weft.monitor.debugging import describe


def experiment(folder: Path, **changes: Any) -> dict[str, Any]:
    """A regression on 24 rows, the 20th of which has a target that float16 or a square cannot hold."""
    generator = np.random.default_rng(0)
    np.save(folder / "x.npy", generator.normal(size=(24, 4)).astype(np.float32))
    np.save(folder / "y.npy", generator.normal(size=(24, 1)).astype(np.float32) * changes.pop("factor", 1))
    return {
        "dataset": {
            "arrays": {
                name: {"inputs": folder / "x.npy", "targets": folder / "y.npy"} for name in ("train", "validation")
            }
        },
        "model": {"MLP": {"in_features": 4, "out_features": 1, "hidden": [8]}},
        "training": {"task": "regression", "epochs": 2, "batch_size": 8, **changes},
        "run": {"device": "cpu", "progress": False, "tensorboard": False, "output": folder / "runs"},
    }


def test_batches_and_gradients_of_the_first_steps_are_logged(tmp_path: Path) -> None:
    run = weft.train(experiment(tmp_path), ["run.debug=true"], out=tmp_path / "run")
    log = (run.path / "log.txt").read_text(encoding="utf-8")
    assert [f"debug: step {number}\n" in log for number in (1, 3, 4)] == [True, True, False]
    assert "inputs: [8, 4] float32, mean " in log
    assert "targets: [8, 1] float32, mean " in log
    assert "layers.0.weight: " in log
    assert "layers.2.bias: " in log
    assert "NOT FINITE" not in log


def test_the_weights_are_the_same_with_it_and_without(tmp_path: Path) -> None:
    plain = weft.train(experiment(tmp_path, accumulate=2), out=tmp_path / "plain")
    watched = weft.train(experiment(tmp_path, accumulate=2), ["run.debug=true"], out=tmp_path / "watched")
    assert plain.result["model_sha256"] == watched.result["model_sha256"]
    assert "batch 2 of 2: 8 samples" in (watched.path / "log.txt").read_text(encoding="utf-8")
    assert "debug" not in (plain.path / "log.txt").read_text(encoding="utf-8")


def test_values_that_end_a_run_are_logged(tmp_path: Path) -> None:
    changes = experiment(tmp_path, optimizer={"SGD": {"lr": 1e30}}, factor=1e3, epochs=20)
    with pytest.raises(NotFiniteError):
        weft.train(changes, ["run.debug=true"], out=tmp_path / "run")
    log = (tmp_path / "run" / "log.txt").read_text(encoding="utf-8")
    assert "debug: the step before the run ended" in log


def test_the_command_says_it_on_standard_error(tmp_path: Path) -> None:
    content = experiment(tmp_path)
    file = tmp_path / "experiment.py"
    file.write_text(
        f"from pathlib import PosixPath\n\nimport weft\n\nexperiment = weft.Experiment(**{content!r})\n",
        encoding="utf-8",
    )
    outcome = good("train", file, "--debug", "--out", tmp_path / "run")
    assert "debug: step 1" in outcome.err
    assert outcome.out.splitlines() == [str(tmp_path / "run")]


def test_a_tensor_is_described_in_a_line() -> None:
    assert describe(torch.tensor([0, 1, 1, 2])) == (
        "[4] int64, mean 1, std 0.7071, min 0, max 2, 3 distinct (0: 1, 1: 2, 2: 1)"
    )
    assert describe(torch.tensor([1.0, float("nan"), 3.0])) == "[3] float32, 1 NOT FINITE, mean 2, std 1, min 1, max 3"
    assert describe(torch.arange(30)).endswith("30 distinct (" + ", ".join(f"{n}: 1" for n in range(20)) + ", …)")
    assert describe(torch.zeros(0, 3)) == "[0, 3] float32"
    assert describe(None) == "NoneType"
