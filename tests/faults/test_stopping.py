"""Runs that are asked to stop, and runs that must: signals, losses that are no numbers, two processes, folds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.faults.nursery import Ended, Nursery, wait_until
from tests.faults.runs import outcome, result_of, write_experiment
from weft.data.order import permutation
from weft.engine.checkpoint_files import read_checkpoint


def checkpoints_of(run: Path) -> dict[str, dict[str, Any]]:
    """Every checkpoint by name; each must be sound."""
    states = {file.name: read_checkpoint(file) for file in sorted((run / "checkpoints").glob("*"))}
    damaged = {name: state for name, state in states.items() if isinstance(state, str)}
    assert not damaged
    return {name: state for name, state in states.items() if isinstance(state, dict)}


def step_of(run: Path) -> int:
    """The step of the newest saved state."""
    return max(state["position"]["step"] for name, state in checkpoints_of(run).items() if name.startswith("last-"))


# --- signals ----------------------------------------------------------------------------------------------------------

MOMENTS = {
    "inside an epoch": ("step", 4, 4),
    "after the last step of an epoch": ("step", 8, 8),
    "inside validation": ("validation", 6, 16),
    "in final scoring": ("validation", 15, 24),
}
QUICK = [("SIGTERM", "inside an epoch"), ("SIGINT", "inside validation"), ("SIGTERM", "in final scoring")]


@pytest.mark.parametrize(
    ("name", "moment"),
    [
        pytest.param(name, moment, marks=() if (name, moment) in QUICK else pytest.mark.slow)
        for name in ("SIGTERM", "SIGINT")
        for moment in MOMENTS
    ],
)
def test_a_signal_stops_the_run_with_its_state_saved_and_resuming_ends_as_undisturbed(
    name: str, moment: str, nursery: Nursery, tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    at, count, saved = MOMENTS[moment]
    file, run = write_experiment(tmp_path), tmp_path / "run"
    workers = "run.num_workers=2" if name == "SIGINT" else "run.num_workers=0"
    stopped = nursery.weft("train", file, "--out", run, "--set", workers, trap={"at": at, "count": count, "do": name})
    assert stopped.code == 75, stopped.text
    assert not stopped.left_behind
    command = f"weft train --resume {run}"
    assert f"stopped by {name}" in stopped.err
    assert f"resume with: {command}" in stopped.err
    assert "Traceback" not in stopped.err
    assert step_of(run) == saved
    result = result_of(run)
    assert (result["status"], result["resume"]) == ("stopped", command)
    resumed = nursery.weft("train", "--resume", run)
    assert resumed.code == 0, resumed.text
    assert outcome(run) == undisturbed


def test_a_second_interrupt_ends_the_run_at_once_and_the_last_checkpoint_is_kept(
    nursery: Nursery, tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    file, run = write_experiment(tmp_path), tmp_path / "run"
    trap = {"at": "step", "count": 5, "do": "SIGINT twice"}
    ended = nursery.weft("train", file, "--out", run, "--set", "run.num_workers=2", trap=trap)
    assert ended.code == 130, ended.text
    assert not ended.left_behind
    assert f"weft train --resume {run}" in ended.err
    assert result_of(run)["status"] == "stopped"
    assert step_of(run) == 3
    assert nursery.weft("train", "--resume", run).code == 0
    assert outcome(run) == undisturbed


def test_interrupts_while_a_checkpoint_is_written_leave_the_one_before(
    nursery: Nursery, tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    file, run = write_experiment(tmp_path), tmp_path / "run"
    trap = {"at": "half", "file": "last-000000006", "do": "SIGINT twice"}
    assert nursery.weft("train", file, "--out", run, trap=trap).code == 130
    assert step_of(run) == 3
    assert not list((run / "checkpoints").glob(".*"))
    assert nursery.weft("train", "--resume", run).code == 0
    assert outcome(run) == undisturbed


def test_a_stopped_run_can_be_stopped_again(nursery: Nursery, tmp_path: Path, undisturbed: dict[str, Any]) -> None:
    file, run = write_experiment(tmp_path), tmp_path / "run"
    trap = {"at": "validation", "count": 1, "do": "SIGTERM"}
    assert nursery.weft("train", file, "--out", run, trap=trap).code == 75
    for _ in range(2):  # still inside the same validation: no progress, but nothing is lost either
        assert nursery.weft("train", "--resume", run, trap=trap).code == 75
    assert step_of(run) == 8
    assert nursery.weft("train", "--resume", run).code == 0
    assert outcome(run) == undisturbed


# --- not a number -----------------------------------------------------------------------------------------------------


def assert_finite(run: Path) -> None:
    for name, state in checkpoints_of(run).items():
        for weight in state["model"].values():
            assert torch.isfinite(weight).all(), name


def test_a_loss_that_is_not_a_number_stops_the_run_and_names_step_rows_and_checkpoint(
    nursery: Nursery, tmp_path: Path
) -> None:
    order = permutation(46, 7, 0).tolist()
    row = order[6 * 6 + 2]  # in the seventh batch of the first epoch
    changes = {"dataset.class": {"train": {"Noisy": {"items": 46, "broken": row}}}, "training.metrics": None}
    file, run = write_experiment(tmp_path, changes), tmp_path / "run"
    failed = nursery.weft("train", file, "--out", run)
    assert failed.code == 1, failed.text
    assert "the loss is nan in epoch 1, step 7" in failed.err
    for other in order[36:42]:
        assert f"case-46-{other}" in failed.err
    (newest,) = (run / "checkpoints").glob("last-000000006-*")
    assert str(newest) in failed.err
    assert "hint: " in failed.err
    result = result_of(run)
    assert result["status"] == "failed"
    assert "step 7" in result["error"]
    assert_finite(run)
    again = nursery.weft("train", "--resume", run)
    assert again.code == 1
    assert "the loss is nan in epoch 1, step 7" in again.err


@pytest.mark.parametrize("every", ["steps", pytest.param("epochs", marks=pytest.mark.slow)])
def test_weights_that_are_not_finite_are_never_kept(every: str, nursery: Nursery, tmp_path: Path) -> None:
    """The loss is still finite when the optimizer has ruined the weights; validation would see NaN."""
    order = {"training.optimizer": {"SGD": {"lr": 1e38}}, "training.scheduler": None}
    changes = {**order, "run.checkpoint_every": {every: 1}, "training.batch_size": 23, "dataset.load_limit": 23}
    changes |= {"model": {"Net": {"steep": 1e4}}}
    file, run = write_experiment(tmp_path, changes), tmp_path / "run"
    failed = nursery.weft("train", file, "--out", run)
    assert failed.code == 1, failed.text
    assert "not finite after step 1" in failed.err
    assert result_of(run)["status"] == "failed"
    assert_finite(run)


def test_a_broken_item_can_be_skipped_without_ending_the_run(nursery: Nursery, tmp_path: Path) -> None:
    dataset = {"class": {"Fails": {"items": 40, "bad": 5}}, "split": {"ratio": [0.8, 0.2]}, "on_bad_item": "skip"}
    file, run = write_experiment(tmp_path, {"dataset": dataset}), tmp_path / "run"
    with (tmp_path / "patch.py").open("a") as patch:
        patch.write(
            "\n\nclass Fails(Noisy):\n"
            "    def __init__(self, items: int, bad: int) -> None:\n"
            "        super().__init__(items)\n"
            "        self.bad = bad\n\n"
            "    def __getitem__(self, row: int):\n"
            "        if row == self.bad:\n"
            "            raise OSError('the file is damaged')\n"
            "        return super().__getitem__(row)\n"
        )
    ended = nursery.weft("train", file, "--out", run, "--set", "run.num_workers=2")
    assert ended.code == 0, ended.text
    assert any("case-40-5" in text for text in result_of(run)["skipped_items"])


# --- two processes ----------------------------------------------------------------------------------------------------


def test_a_second_process_is_refused_with_the_number_of_the_first(
    nursery: Nursery, tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    file, run, log = write_experiment(tmp_path), tmp_path / "run", tmp_path / "log"
    trap = {"at": "step", "count": 5, "do": "hold", "release": str(tmp_path / "release"), "log": str(log)}
    first = nursery.start("train", file, "--out", run, "--set", "run.num_workers=1", trap=trap)
    wait_until(log.exists)
    second = nursery.weft("train", "--resume", run)
    assert second.code == 1, second.text
    assert f"process {first.pid} on " in second.err
    anew = nursery.weft("train", file, "--out", run)
    assert anew.code == 1, anew.text
    assert "already holds a run" in anew.err
    (tmp_path / "release").touch()
    ended = first.wait()
    assert ended.code == 0, ended.text
    assert outcome(run) == undisturbed


def test_the_workers_of_a_killed_run_do_not_keep_it_from_being_resumed(
    nursery: Nursery, tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    file, run = write_experiment(tmp_path), tmp_path / "run"
    nursery.weft("train", file, "--out", run, "--set", "run.num_workers=4", trap={"at": "step", "count": 5})
    resumed = nursery.weft("train", "--resume", run)  # at once: the workers of the first may still be alive
    assert resumed.code == 0, resumed.text
    assert outcome(run) == undisturbed


# --- folds ------------------------------------------------------------------------------------------------------------

FOLDS = {
    "dataset": {"class": {"Noisy": {"items": 36}}, "split": {"folds": 3, "stratified": True}},
    "training.epochs": 2,
}


def fold_outcome(run: Path) -> dict[str, Any]:
    summary = json.loads((run / "summary.json").read_text())
    summary.pop("base")
    return {
        "summary": summary,
        "folds": [outcome(run / f"fold-{number}") for number in (1, 2, 3)],
        "pooled": [file.read_text() for file in sorted((run / "scores").glob("*"))],
    }


@pytest.fixture(scope="module")
def undisturbed_folds(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("folds")
    ended = nursery.weft("train", write_experiment(folder, FOLDS), "--out", folder / "run")
    assert ended.code == 0, ended.text
    return fold_outcome(folder / "run")


def resumed_after(check: Callable[[Ended, Path], None], nursery: Nursery, folder: Path, **trap: Any) -> Path:
    file, run = write_experiment(folder, FOLDS), folder / "run"
    check(nursery.weft("train", file, "--out", run, trap={"at": "step", "count": 7, "run": "fold-2", **trap}), run)
    resumed = nursery.weft("train", "--resume", run)
    assert resumed.code == 0, resumed.text
    assert resumed.out.strip().splitlines()[-1] == str(run)
    assert result_of(run)["status"] == "finished"
    return run


@pytest.mark.slow
def test_folds_killed_in_the_second_one_and_resumed_have_the_same_summary(
    nursery: Nursery, tmp_path: Path, undisturbed_folds: dict[str, Any]
) -> None:
    def check(killed: Ended, run: Path) -> None:
        assert killed.code < 0
        assert not (run / "fold-3").exists()

    assert fold_outcome(resumed_after(check, nursery, tmp_path)) == undisturbed_folds


def test_folds_stopped_by_a_signal_say_how_to_resume_all_of_them(
    nursery: Nursery, tmp_path: Path, undisturbed_folds: dict[str, Any]
) -> None:
    def check(stopped: Ended, run: Path) -> None:
        assert stopped.code == 75, stopped.text
        assert f"resume with: weft train --resume {run}\n" in stopped.err
        assert result_of(run)["status"] == "stopped"
        assert result_of(run)["resume"] == f"weft train --resume {run}"

    assert fold_outcome(resumed_after(check, nursery, tmp_path, do="SIGTERM")) == undisturbed_folds


@pytest.mark.slow
def test_a_signal_between_folds_stops_before_the_next_one_begins(
    nursery: Nursery, tmp_path: Path, undisturbed_folds: dict[str, Any]
) -> None:
    """While the report of the first one is made, when its training has ended for good."""

    def check(stopped: Ended, run: Path) -> None:
        assert stopped.code == 75, stopped.text
        assert "stopped: stopped by SIGTERM outside of training, with 1 fold finished" in stopped.err
        assert f"resume with: weft train --resume {run}\n" in stopped.err
        assert result_of(run)["status"] == "stopped"
        assert result_of(run / "fold-1")["status"] == "finished"
        assert not (run / "fold-2").exists()

    moments: list[dict[str, Any]] = [{"at": "end", "count": 1}, {"at": "half", "count": 1, "file": "report.html"}]
    for number, moment in enumerate(moments):
        folder = tmp_path / str(number)
        run = resumed_after(check, nursery, folder, do="SIGTERM", **{"run": "fold-1", **moment})
        assert fold_outcome(run) == undisturbed_folds
