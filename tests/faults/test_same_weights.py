"""What must not change a run: loader workers, what watches it, where and how it is run; and doing it again."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.faults.nursery import Nursery
from tests.faults.runs import history_of, outcome, result_of, write_experiment

MONAI = importlib.util.find_spec("monai") is not None


def trained(nursery: Nursery, file: Path, name: str, *settings: str, trap: Mapping[str, Any] | None = None) -> Path:
    """Train a file with `--set` settings in a folder beside it."""
    run = file.parent / name
    options = [text for setting in settings for text in ("--set", setting)]
    ended = nursery.weft("train", file, "--out", run, *options, trap=trap)
    assert ended.code == 0, ended.text
    return run


@pytest.fixture(scope="module")
def reference(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was left alone; its experiment lies beside it."""
    return trained(nursery, write_experiment(tmp_path_factory.mktemp("reference")), "run")


@pytest.mark.parametrize(
    "workers", [2, pytest.param(1, marks=pytest.mark.slow), pytest.param(4, marks=pytest.mark.slow)]
)
def test_loader_workers_do_not_change_weights(workers: int, reference: Path, nursery: Nursery, tmp_path: Path) -> None:
    run = trained(nursery, write_experiment(tmp_path), "run", f"run.num_workers={workers}")
    assert outcome(run) == outcome(reference)


@pytest.mark.slow
@pytest.mark.skipif(not MONAI, reason="needs MONAI")
def test_loader_workers_do_not_change_weights_with_transforms_of_monai(nursery: Nursery, tmp_path: Path) -> None:
    keys = {"keys": ["inputs"]}
    transforms = [
        {"RandGaussianNoised": {**keys, "prob": 0.7, "std": 0.3}},
        {"RandScaleIntensityd": {**keys, "factors": 0.3, "prob": 0.5}},
        {"RandShiftIntensityd": {**keys, "offsets": 0.2, "prob": 0.5}},
    ]
    file = write_experiment(tmp_path, {"dataset.transforms": {"train": transforms}, "training.epochs": 2})
    outcomes = [outcome(trained(nursery, file, f"run-{n}", f"run.num_workers={n}")) for n in (0, 1, 2, 4)]
    assert all(other == outcomes[0] for other in outcomes[1:])
    plain = write_experiment(tmp_path / "plain", {"dataset.transforms": {}, "training.epochs": 2})
    assert outcome(trained(nursery, plain, "run"))["weights"] != outcomes[0]["weights"], "the transforms did nothing"


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(["run.observers=[]", "run.log_every=1000"], id="no observers"),
        pytest.param(["run.progress=true", "run.tensorboard=true", "run.predictions=true"], id="all observers"),
        pytest.param(
            ["run.checkpoint_every={minutes: 1.0e-6}", "run.log_every=3"],
            id="a checkpoint in every step",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ["run.checkpoint_every={epochs: 2}", "run.device=auto"], id="device and checkpoints", marks=pytest.mark.slow
        ),
    ],
)
def test_how_a_run_is_watched_and_saved_does_not_change_it(
    settings: list[str], reference: Path, nursery: Nursery, tmp_path: Path
) -> None:
    if "run.device=auto" in settings:
        import torch

        if torch.cuda.is_available() or torch.backends.mps.is_available():
            pytest.skip("device auto is another device than the CPU here")
    run = trained(nursery, write_experiment(tmp_path), "run", *settings)
    assert result_of(run)["model_sha256"] == result_of(reference)["model_sha256"]
    assert history_of(run) == history_of(reference)
    assert result_of(run)["scores"] == result_of(reference)["scores"]


@pytest.mark.parametrize("workers", [pytest.param(0, marks=pytest.mark.slow), 2])
def test_the_cache_does_not_change_weights_also_when_a_run_is_resumed(
    workers: int, nursery: Nursery, tmp_path: Path
) -> None:
    file = write_experiment(tmp_path, {"dataset.class.train": {"Noisy": {"items": 46, "augment": False}}})
    plain, run = trained(nursery, file, "plain"), tmp_path / "run"
    options = ["--set", "run.cache=memory", "--set", f"run.num_workers={workers}"]
    assert nursery.weft("train", file, "--out", run, *options, trap={"at": "step", "count": 13}).code < 0
    assert nursery.weft("train", "--resume", run).code == 0
    assert outcome(run) == outcome(plain)


@pytest.mark.parametrize("where", ["the dataset", "a base transform"])
def test_what_is_random_is_not_cached(where: str, nursery: Nursery, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"run.cache": "memory"}
    if where == "a base transform":
        changes["dataset.class.train"] = {"Noisy": {"items": 46, "augment": False}}
        changes["dataset.transforms"] = {"base": [{"Shaken": {"amount": 0.1}}]}
    refused = nursery.weft("train", write_experiment(tmp_path, changes), "--out", tmp_path / "run")
    assert refused.code == 1, refused.text
    assert "random before dataset.transforms.train, so it must not be kept (use run.cache: none" in refused.err


@pytest.mark.parametrize(
    "moment", ["step", *(pytest.param(moment, marks=pytest.mark.slow) for moment in ("validation", "epoch"))]
)
def test_an_observer_that_raises_is_left_out_with_a_warning_and_changes_nothing(
    moment: str, reference: Path, nursery: Nursery, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    file = write_experiment(tmp_path)
    ended = nursery.weft("train", file, "--out", run, trap={"at": moment, "count": 2, "do": "raise"})
    assert ended.code == 0, ended.text
    assert outcome(run) == outcome(reference)
    warnings = [line for line in ended.err.splitlines() if line.startswith("WARNING")]
    assert len(warnings) == 1
    assert f"Trap failed in on_{moment} and is left out" in warnings[0]
    assert "the observer's own mistake" in warnings[0]


# --- reproduce --------------------------------------------------------------------------------------------------------


def test_reproduce_says_identical_also_of_a_run_that_was_killed_and_resumed(nursery: Nursery, tmp_path: Path) -> None:
    file, run = write_experiment(tmp_path), tmp_path / "run"
    nursery.weft("train", file, "--out", run, "--set", "run.num_workers=2", trap={"at": "validation", "count": 7})
    assert nursery.weft("train", "--resume", run, "--set", "run.num_workers=1").code == 0
    again = nursery.weft("reproduce", run)
    assert again.code == 0, again.text
    assert again.out.startswith("identical: ")
    as_json = nursery.weft("reproduce", run, "--json", "--out", tmp_path / "third")
    assert as_json.code == 0, as_json.text
    assert json.loads(as_json.out)["identical"] is True
    assert outcome(tmp_path / "third") == outcome(run)


@pytest.mark.slow
def test_reproduce_says_what_differs_when_the_copy_of_a_patch_was_changed(
    reference: Path, nursery: Nursery, tmp_path: Path
) -> None:
    run = trained(nursery, write_experiment(tmp_path), "run")
    patch = run / "code" / "patches" / "patch.py"
    patch.write_text(patch.read_text().replace("0.3 * torch.randn", "0.31 * torch.randn"))
    again = nursery.weft("reproduce", run)
    assert again.code == 1, again.text
    assert again.out.startswith("different: ")
    assert "differs: fingerprint" in again.out
    assert "nothing that was recorded explains it" not in again.out


def test_reproduce_says_what_differs_when_the_data_were_changed(nursery: Nursery, tmp_path: Path) -> None:
    file, table = tabular_experiment(tmp_path)
    run = trained(nursery, file, "run")
    same = nursery.weft("reproduce", run)
    assert same.code == 0, same.text
    lines = table.read_text().splitlines()
    table.write_text("\n".join([lines[0], "9.5," + lines[1].split(",", 1)[1], *lines[2:]]) + "\n")
    again = nursery.weft("reproduce", run)
    assert again.code == 1, again.text
    assert "different: " in again.out
    assert "differs: data" in again.out


def test_a_run_whose_data_were_changed_is_not_resumed(nursery: Nursery, tmp_path: Path) -> None:
    file, table = tabular_experiment(tmp_path)
    run = tmp_path / "run"
    assert nursery.weft("train", file, "--out", run, trap={"at": "step", "count": 5}).code < 0
    whole = table.read_text()
    table.write_text(whole.replace("0.", "1.", 1))
    refused = nursery.weft("train", "--resume", run)
    assert refused.code == 1
    assert "its data" in refused.err
    assert "changed since it began" in refused.err
    table.write_text(whole)
    assert nursery.weft("train", "--resume", run).code == 0


def test_reproduce_refuses_a_run_that_did_not_finish(nursery: Nursery, tmp_path: Path) -> None:
    file, run = write_experiment(tmp_path), tmp_path / "run"
    nursery.weft("train", file, "--out", run, trap={"at": "step", "count": 5})
    refused = nursery.weft("reproduce", run)
    assert refused.code == 2, refused.text
    assert f"weft train --resume {run}" in refused.err


def tabular_experiment(folder: Path) -> tuple[Path, Path]:
    """An experiment on a table of 40 rows."""
    import random

    draw = random.Random(3)
    rows = [[draw.random(), draw.random(), draw.choice(("red", "blue"))] for _ in range(40)]
    table = folder / "table.csv"
    table.write_text("\n".join(["x,y,colour", *(",".join(map(str, row)) for row in rows)]) + "\n")
    dataset = {
        "table": {"file": "table.csv"},
        "inputs": ["x", "y"],
        "targets": ["colour"],
        "split": {"ratio": [0.7, 0.3]},
    }
    model = {"MLP": {"in_features": 2, "hidden": [8], "out_features": 2, "dropout": 0.1}}
    return write_experiment(folder, {"dataset": dataset, "model": model, "training.metrics": ["accuracy"]}), table
