"""Several processes, kills and other launchers: scorch's files gain what every run of Weft has."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.faults.nursery import Ended, Nursery
from tests.interop.scorch.files import NORM, more, same, weights, write
from tests.interop.scorch.test_training import digits
from tests.processes.children import start_program

# As the README has it, but for the program's name.
README = [
    "-bind-to", "none", "-map-by", "slot", "-x", "NCCL_DEBUG=INFO", "-x", "LD_LIBRARY_PATH", "-x", "PATH",
    "-mca", "pml", "ob1", "-mca", "btl", "^openib",
]  # fmt: skip
NOISE = {"return [img], [target]": "return [img + 0.1 * torch.randn(4)], [target]",
         "class DataSet()": "DataSetIndex.shuffle = lambda self: numpy.random.shuffle(self.rows['train'])\n\n\n"
         "class DataSet()"}  # fmt: skip
DROPOUT = {
    "self.last(torch.tanh": "self.last(torch.nn.functional.dropout(torch.tanh",
    "(input[0])))]": "(input[0])), 0.2, self.training))]",
}
SOCKET = more(
    "self.trainable_modules = torch.nn.ModuleList([model.first, model.last])",
    "self.optimizer = torch.optim.Adam(model.parameters(), lr=0.02)",
    "self.scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(self.optimizer, patience=0)",
)


def flags(folder: Path, name: str, *further: object) -> list[str]:
    """`scorch train` with both files in a folder, run directory and checkpoints named there."""
    files = ["--model", folder / "model.py", "--dataset", folder / "dataset.py", "-dp", folder]
    return [
        "scorch", "train", *map(str, (*files, "-cp", folder / f"{name}_", "--out", folder / name, *further)),
        "--no-progress",
    ]  # fmt: skip


def good(ended: Ended) -> Ended:
    """A command that worked."""
    assert ended.code == 0, ended.text
    return ended


def scores(run: Path) -> dict[str, dict[str, float]]:
    """The scores in result.json."""
    content: dict[str, Any] = json.loads((run / "result.json").read_text(encoding="utf-8"))
    return content["scores"]  # type: ignore[no-any-return]


@pytest.mark.slow
def test_the_scores_on_two_processes_are_those_on_one(nursery: Nursery, tmp_path: Path) -> None:
    """Accuracy is a count, and equal; the loss differs by rounding."""
    digits(tmp_path)
    for processes in (1, 2):
        good(nursery.weft(*flags(tmp_path, f"on-{processes}", "-e", 6, "-p", processes, "--test")))
    one, two = (scores(tmp_path / f"on-{processes}") for processes in (1, 2))
    assert one.keys() == two.keys() == {"validation", "test"}
    for split, values in one.items():
        assert values["main"] == two[split]["main"]
        assert values["metric_2"] == pytest.approx(two[split]["metric_2"], rel=1e-4)
    assert one["validation"]["main"] > 0.9
    alone, together = (weights(tmp_path, f"on-{processes}") for processes in (1, 2))
    assert all((alone[name] - together[name]).abs().max() < 1e-3 for name in alone)


@pytest.mark.slow
@pytest.mark.parametrize(("at", "count"), [("opened", 2), ("written", 3), ("half", 4)])
def test_a_run_that_is_killed_and_resumed_has_the_same_weights(
    at: str, count: int, nursery: Nursery, tmp_path: Path
) -> None:
    """With random items, a shuffled index, dropout, the Socket's own optimizer and a plateau; killed by SIGKILL while a
    checkpoint is written.
    """
    write(tmp_path, SOCKET | DROPOUT, NOISE)
    good(nursery.weft(*flags(tmp_path, "left-alone", "-e", 5)))
    trap = {"at": at, "count": count, "file": "last-"}
    killed = nursery.weft(*flags(tmp_path, "killed", "-e", 5), trap=trap)
    assert killed.code == -9, killed.text
    good(nursery.weft(*flags(tmp_path, "killed", "-e", 5, "--resume")))
    require_the_same(tmp_path, "left-alone", "killed")


def require_the_same(folder: Path, one: str, other: str) -> None:
    """Two runs have the same weights, in scorch's checkpoint and in Weft's file."""
    assert same(weights(folder, one), weights(folder, other))
    files = [(folder / name / "model.safetensors").read_bytes() for name in (one, other)]
    assert files[0] == files[1]


# Put at the end of a model file: the second process kills itself in its tenth criterion, once, where this is armed.
KILLER = """

import os, pathlib, signal

FOLDER, criterion = pathlib.Path(HERE), Socket.criterion


def killing(self, pred, target):
    self.calls = getattr(self, "calls", 0) + 1
    if self.calls == 10 and os.environ.get("RANK") == "1" and (FOLDER / "armed").exists():
        (FOLDER / "armed").unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    return criterion(self, pred, target)


Socket.criterion = killing
"""


@pytest.mark.slow
def test_two_processes_of_which_one_is_killed_are_started_again_to_the_same_weights(
    nursery: Nursery, tmp_path: Path
) -> None:
    model, _ = write(tmp_path, SOCKET | DROPOUT, NOISE)
    text = model.read_text(encoding="utf-8") + KILLER.replace("HERE", repr(str(tmp_path)))
    model.write_text(text, encoding="utf-8")
    further = ("-e", 5, "-p", 2, "--restarts", 1)
    good(nursery.weft(*flags(tmp_path, "left-alone", *further)))
    (tmp_path / "armed").touch()
    ended = good(nursery.weft(*flags(tmp_path, "killed", *further)))
    assert not (tmp_path / "armed").exists()
    assert "starting all again" in ended.err
    require_the_same(tmp_path, "left-alone", "killed")


@pytest.mark.slow
def test_batch_normalisation_among_trainable_modules_sees_the_whole_batch(nursery: Nursery, tmp_path: Path) -> None:
    """For several processes other modules stand in their places; they are trained all the same."""
    model = NORM | more(
        "self.trainable_modules = torch.nn.ModuleList([model.first, model.norm, model.last])",
        "self.optimizer = torch.optim.SGD(model.parameters(), lr=0.1)",
    )
    write(tmp_path, model)
    for processes in (1, 2):
        good(nursery.weft(*flags(tmp_path, f"on-{processes}", "-e", 2, "-p", processes)))
    alone, together = (weights(tmp_path, f"on-{processes}") for processes in (1, 2))
    assert alone["norm.running_mean"].any()
    assert alone["norm.num_batches_tracked"] == together["norm.num_batches_tracked"] == 6
    assert all((alone[name] - together[name]).abs().max() < 1e-4 for name in alone)


def program(folder: Path) -> Path:
    """An executable named scorch-train, as the package installs one."""
    path = folder / "scorch-train"
    path.write_text(f"#!{sys.executable}\nfrom weft.cli.scorch import main\n\nmain()\n", encoding="utf-8")
    path.chmod(0o755)
    return path


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("mpirun") is None, reason="needs Open MPI (mpirun)")
def test_the_mpirun_line_of_the_readme_works(nursery: Nursery, tmp_path: Path) -> None:
    write(tmp_path)
    words = flags(tmp_path, "mpi", "-e", 2, "-v", 0)[2:]
    line = ["mpirun", "-np", "2", "-H", "localhost:2", *README, str(program(tmp_path)), *words]
    variables = {
        "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "OMP_NUM_THREADS": "1",
        "LD_LIBRARY_PATH": os.environ.get("LD_LIBRARY_PATH", ""),
    }  # fmt: skip
    ended = good(start_program(nursery, *line, **variables).wait())
    assert ended.out.count("Training epoch  1") == 1  # the first process speaks for all
    good(nursery.weft(*flags(tmp_path, "alone", "-e", 2)))
    assert scores(tmp_path / "mpi")["validation"]["main"] == scores(tmp_path / "alone")["validation"]["main"]


@pytest.mark.slow
def test_torchrun_starts_processes_that_train_together(nursery: Nursery, tmp_path: Path) -> None:
    write(tmp_path)
    words = flags(tmp_path, "torchrun", "-e", 2, "-v", 0)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "weft"]
    ended = good(start_program(nursery, *launcher, *words, OMP_NUM_THREADS="1").wait())
    assert ended.out.count("Validating epoch 2") == 1
    good(nursery.weft(*flags(tmp_path, "alone", "-e", 2)))
    assert scores(tmp_path / "torchrun")["validation"]["main"] == scores(tmp_path / "alone")["validation"]["main"]


@pytest.mark.slow
def test_strictly_two_processes_have_the_batches_and_scores_of_the_original(nursery: Nursery, tmp_path: Path) -> None:
    """-b counts for each process, and the first one's share of validation stands for all."""
    log = f"file=open({str(tmp_path / 'seen')!r} + str(self.training) + os.environ['RANK'], 'a')"
    seen = f"import os; print(len(input[0]), {log})\n        return [self.last"
    write(tmp_path, {"return [self.last": seen})
    good(nursery.weft(*flags(tmp_path, "strict", "-e", 1, "-b", 3, "-p", 2, "--strict-scorch")))
    for rank in (0, 1):
        counts = list(map(int, (tmp_path / f"seenTrue{rank}").read_text(encoding="utf-8").split()))
        assert counts == [3, 3, 3, 3]  # 24 items, 3 in each of 2 processes
    scored = sum(
        int(line) for rank in (0, 1) for line in (tmp_path / f"seenFalse{rank}").read_text(encoding="utf-8").split()
    )
    whole = 12  # the first of two shards
    assert scored >= 2 * whole  # at the end of the epoch, and with the best weights
    kept = torch.load(tmp_path / "strict_checkpoint.pth.tar", weights_only=True)["metrics"]["main"]
    assert (kept * whole) == pytest.approx(round(kept * whole))
