from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tests.runs.small_disk import run_on_disk
from weft.errors import RunDirectoryError
from weft.runs import sweep, write_atomically

REPOSITORY = Path(__file__).parents[2]


def test_a_file_is_written_from_bytes_or_by_a_function(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a", b"one")
    write_atomically(tmp_path / "a", lambda file: file.write(b"two") and None)
    assert (tmp_path / "a").read_bytes() == b"two"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


def test_an_error_while_writing_keeps_the_old_file_and_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")

    def fail(file: object) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_atomically(tmp_path / "a", fail)
    assert (tmp_path / "a").read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


def test_a_missing_folder_is_named_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match="none/file") as caught:
        write_atomically(tmp_path / "none" / "file", b"")
    assert "create it" in caught.value.hint


@pytest.mark.parametrize("attempt", range(6))
def test_a_kill_while_writing_leaves_the_old_or_the_new_file_whole(tmp_path: Path, attempt: int) -> None:
    code = """
        import sys, pathlib
        from weft.runs import write_atomically
        path, size = pathlib.Path(sys.argv[1]), 400_000
        number = 0
        while True:
            write_atomically(path, bytes([number % 256]) * size)
            number += 1
            print(number, flush=True)
    """
    target = tmp_path / "checkpoint"
    command = [sys.executable, "-c", textwrap.dedent(code), str(target)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=REPOSITORY)
    assert child.stdout is not None
    for _ in range(3 + attempt * 5):
        child.stdout.readline()
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()
    content = target.read_bytes()
    assert len(content) == 400_000
    assert len(set(content)) == 1
    sweep(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["checkpoint"]


def test_the_sweep_spares_what_a_live_process_is_writing(tmp_path: Path) -> None:
    parent = os.getppid()
    fresh, old = tmp_path / f".a.{parent}.tmp", tmp_path / f".b.{parent}.tmp"
    dead, other = tmp_path / ".c.999999999.tmp", tmp_path / "d.tmp"
    for file in (fresh, old, dead, other):
        file.touch()
    day_ago = time.time() - 86_400
    os.utime(old, (day_ago, day_ago))
    assert sweep(tmp_path) == [old, dead]
    assert sorted(tmp_path.iterdir()) == sorted([fresh, other])
    assert sweep(tmp_path / "no such folder") == []


def test_a_full_disk_keeps_the_old_file_and_names_the_remedy(tmp_path: Path) -> None:
    code = """
import sys, pathlib
from weft.errors import RunDirectoryError
from weft.runs import write_atomically
folder = pathlib.Path(sys.argv[1])
write_atomically(folder / "best.pt", b"x" * 30_000)
try:
    write_atomically(folder / "best.pt", b"y" * 60_000)
except RunDirectoryError as error:
    print(error)
assert (folder / "best.pt").read_bytes() == b"x" * 30_000
assert [entry.name for entry in folder.iterdir()] == ["best.pt"]
"""
    done = run_on_disk(tmp_path, "size=64k", code)
    assert done.returncode == 0, done.stderr
    assert "best.pt: No space left on device; kept: best.pt as it was before" in done.stdout
    assert "free some space" in done.stdout


def test_a_read_only_disk_is_named_when_a_run_is_created(tmp_path: Path) -> None:
    code = """
import sys, pathlib
from weft.errors import RunDirectoryError
from weft.runs import RunDirectory, new_run_path, write_atomically
folder = pathlib.Path(sys.argv[1])
for attempt in (lambda: RunDirectory.create(folder / "run"), lambda: new_run_path(folder, "x"),
                lambda: RunDirectory.create(folder), lambda: write_atomically(folder / "a", b"")):
    try:
        attempt()
    except RunDirectoryError as error:
        print(error)
"""
    done = run_on_disk(tmp_path, "ro", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Read-only file system") == 4
    assert done.stdout.count("choose a folder that can be written to") == 4


def test_rows_that_fit_are_kept_when_the_disk_fills_up(tmp_path: Path) -> None:
    code = """
import sys, pathlib
from weft.errors import RunDirectoryError
from weft.runs import History, read_rows
path = pathlib.Path(sys.argv[1]) / "history.csv"
history, written = History(path), 0
try:
    for epoch in range(100_000):
        history.append({"epoch": epoch, "loss": 1 / (epoch + 1)})
        written += 1
except RunDirectoryError as error:
    print(error)
assert path.read_bytes().endswith(b"\\n")
rows = list(read_rows(path))
assert len(rows) == written == len(history.rows), (len(rows), written)
assert rows[-1] == {"epoch": written - 1, "loss": 1 / written}
"""
    done = run_on_disk(tmp_path, "size=16k", code)
    assert done.returncode == 0, done.stderr
    assert "kept: the rows written before" in done.stdout
