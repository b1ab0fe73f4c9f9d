from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy
import pytest

from weft.errors import RunDirectoryError, UsageError
from weft.runs import RunDirectory, is_run, new_run_path

REPOSITORY = Path(__file__).parents[2]


def make_run(path: Path) -> RunDirectory:
    run = RunDirectory.create(path)
    run.experiment_file.write_text("name: x\n")
    return run


def test_a_run_begins_in_a_new_or_an_empty_folder(tmp_path: Path) -> None:
    with RunDirectory.create(tmp_path / "deep" / "new") as run:
        assert run.checkpoints.is_dir()
    (tmp_path / "empty").mkdir()
    RunDirectory.create(tmp_path / "empty").unlock()


def test_a_folder_with_other_things_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("dear")
    with pytest.raises(RunDirectoryError, match=r"holds thesis\.tex") as caught:
        RunDirectory.create(tmp_path)
    assert "--out" in caught.value.hint
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_project_folder_with_an_experiment_file_is_not_taken_for_a_run(tmp_path: Path) -> None:
    (tmp_path / "experiment.yaml").write_text("name: x\n")
    assert not is_run(tmp_path)
    with pytest.raises(RunDirectoryError, match="is not a run"):
        RunDirectory.open(tmp_path)


def test_a_run_is_not_overwritten_by_a_new_one(tmp_path: Path) -> None:
    make_run(tmp_path / "run").unlock()
    with pytest.raises(RunDirectoryError, match="already holds a run") as caught:
        RunDirectory.create(tmp_path / "run")
    assert "--resume" in caught.value.hint


def test_a_run_killed_before_it_wrote_anything_can_begin_again(tmp_path: Path) -> None:
    RunDirectory.create(tmp_path / "run").unlock()
    (tmp_path / "run" / ".experiment.yaml.123.tmp").touch()
    (tmp_path / "run" / "log.txt").touch()
    with pytest.raises(RunDirectoryError, match="no run has begun"):
        RunDirectory.open(tmp_path / "run")
    RunDirectory.create(tmp_path / "run").unlock()


def test_opening_explains_what_is_there_instead(tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs" / "good-1")
    with pytest.raises(RunDirectoryError, match="does not exist") as caught:
        RunDirectory.open(tmp_path / "runs" / "god-1")
    assert str(run.path) in caught.value.hint
    with pytest.raises(RunDirectoryError, match="is not a run") as caught:
        RunDirectory.open(tmp_path / "runs")
    assert str(run.path) in caught.value.hint
    with pytest.raises(RunDirectoryError, match="is a file") as caught:
        RunDirectory.open(run.experiment_file)
    assert str(run.path) in caught.value.hint


def test_what_a_run_lacks_is_listed(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    assert "experiment.yaml" not in run.missing()
    assert {"history.csv", "model.safetensors", "result.json", "data.json"} <= set(run.missing())


def test_json_is_valid_for_everyone_and_numbers_come_back(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    assert run.result() is None
    value = {
        "nan": float("nan"),
        "inf": float("inf"),
        "array": numpy.arange(3),
        "number": numpy.float64(0.1),
        "path": Path("a"),
        "set": {"b", "a"},
    }
    run.write_json("scores/test.json", value)
    assert run.read_json("scores/test.json") == {
        "nan": None,
        "inf": "Infinity",
        "array": [0, 1, 2],
        "number": 0.1,
        "path": "a",
        "set": ["a", "b"],
    }
    run.write_result({"status": "finished"})
    assert run.result() == {"status": "finished"}
    with pytest.raises(UsageError, match="cannot be written as JSON"):
        run.write_json("x.json", {"a": object()})
    run.result_file.write_text("{")
    with pytest.raises(RunDirectoryError, match="not valid JSON"):
        run.result()


def test_folds_are_listed_in_order(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    for number in (10, 2, 1):
        run.fold(number).mkdir()
    assert [path.name for path in run.folds()] == ["fold-1", "fold-2", "fold-10"]


def _new_path(root: Path) -> Path:
    return new_run_path(root, "Breast cancer (Übung)")


def test_names_are_readable_and_unique_under_concurrent_starts(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(4, mp_context=context) as pool:
        paths = list(pool.map(_new_path, [tmp_path / "runs"] * 40))
    assert len(set(paths)) == 40
    assert all(path.is_dir() and path.name.startswith("breast-cancer-ubung-20") for path in paths)


def test_a_name_without_letters_still_gives_a_folder(tmp_path: Path) -> None:
    assert new_run_path(tmp_path, "../..").name.startswith("run-20")


HOLD = """
import sys, time
from weft.runs import RunDirectory
run = RunDirectory.{how}
print("locked", flush=True)
time.sleep(600)
"""


def hold(path: Path, how: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLD.format(how=how), str(path)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY)
    assert child.stdout is not None
    assert child.stdout.readline() == "locked\n"
    return child


def end(child: subprocess.Popen[str]) -> None:
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert child.stdout is not None
    child.stdout.close()


def test_a_second_writer_is_told_who_the_first_is(tmp_path: Path) -> None:
    make_run(tmp_path / "run").unlock()
    child = hold(tmp_path / "run", "open(sys.argv[1], writing=True)")
    try:
        with pytest.raises(RunDirectoryError, match=f"process {child.pid} on {socket.gethostname()}"):
            RunDirectory.open(tmp_path / "run", writing=True)
        RunDirectory.open(tmp_path / "run")  # looking is allowed
    finally:
        end(child)
    with RunDirectory.open(tmp_path / "run", writing=True):  # a kill gives the lock back
        pass


def test_two_runs_cannot_begin_in_one_folder(tmp_path: Path) -> None:
    child = hold(tmp_path / "run", "create(sys.argv[1])")
    try:
        with pytest.raises(RunDirectoryError, match="is in use"):
            RunDirectory.create(tmp_path / "run")
    finally:
        end(child)


def test_a_forked_child_does_not_keep_the_lock_of_its_killed_parent(tmp_path: Path) -> None:
    make_run(tmp_path / "run").unlock()
    read, write = os.pipe()
    parent = os.fork()
    if parent == 0:  # the run: it forks a loader worker and is then killed
        RunDirectory.open(tmp_path / "run", writing=True)
        worker = os.fork()
        os.write(write, b"%d\n" % os.getpid() if worker == 0 else b"")
        signal.pause()
    worker = int(os.read(read, 100))
    try:
        with pytest.raises(RunDirectoryError, match="is in use"):
            RunDirectory.open(tmp_path / "run", writing=True)
        os.kill(parent, signal.SIGKILL)
        os.waitpid(parent, 0)
        with RunDirectory.open(tmp_path / "run", writing=True) as run:
            assert run.path == tmp_path / "run"
    finally:
        os.kill(worker, signal.SIGKILL)
        os.close(read)
        os.close(write)


def test_opening_for_writing_sweeps_what_a_killed_process_left(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    run.unlock()
    stray = run.checkpoints / ".last.pt.999999999.tmp"
    stray.touch()
    RunDirectory.open(run.path)
    assert stray.exists()
    with RunDirectory.open(run.path, writing=True):
        assert not stray.exists()


def test_locking_twice_in_one_run_is_harmless(tmp_path: Path) -> None:
    with make_run(tmp_path / "run") as run:
        run.lock()
        run.write_json("note.json", {"still": "ours"})
    with RunDirectory.open(run.path, writing=True) as again:  # given back once, free at once
        assert again.read_json("note.json") == {"still": "ours"}
