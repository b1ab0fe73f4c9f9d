"""Ctrl-C while a command looks, compares or writes: one message, exit code 130, and no half-written files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.actions.check_projects import KINDS, clean_project
from tests.cli.lab import good
from tests.faults.nursery import wait_until
from tests.report.samples import case_run

# Runs a command that is interrupted when it begins ("open") or has written ("os.rename") a file whose path contains a
# text.
PROGRAM = """
import os, signal, sys
wanted, text = sys.argv[1:3]

def watch(event, arguments):
    if event == wanted and text in str(arguments[0]):
        if event == "os.rename" or arguments[2] & (os.O_WRONLY | os.O_RDWR):
            signal.raise_signal(signal.SIGINT)

sys.argv = ["weft", *sys.argv[3:]]
from weft.cli import main
sys.addaudithook(watch)
main()
"""

WAITING = """
    def __getitem__(self, row):
        from pathlib import Path
        from time import sleep
        Path(__file__).with_name("here").touch()
        sleep(250)
"""


def interrupted_at(moment: str, text: str, *command: object) -> str:
    """Run a command that is interrupted when it writes; returns what it said on standard error."""
    arguments = [sys.executable, "-c", PROGRAM, moment, text, *map(str, command)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=120)
    assert done.returncode == 130, done.stderr
    assert done.stdout == ""
    return done.stderr


def assert_one_message(told: str) -> None:
    assert told.splitlines() == ["interrupted: nothing half-written is left; give the command again"]


def held(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize(("moment", "text"), [("open", "README"), ("open", ".csv"), ("os.rename", "demo")])
def test_a_project_appears_whole_or_not_at_all(tmp_path: Path, moment: str, text: str) -> None:
    pytest.importorskip("sklearn")
    assert_one_message(interrupted_at(moment, text, "init", tmp_path / "demo"))
    assert list(tmp_path.iterdir()) == []


def test_the_report_before_stays_when_a_new_one_is_interrupted(tmp_path: Path) -> None:
    run = case_run(tmp_path / "run").path
    good("report", run)
    before = held(tmp_path)
    assert_one_message(interrupted_at("os.rename", "report.html", "report", run, "--by", "target"))
    assert held(tmp_path) == before


def test_a_page_of_a_comparison_that_is_interrupted_leaves_nothing(tmp_path: Path) -> None:
    runs = [case_run(tmp_path / name, seed=seed).path for seed, name in enumerate("ab")]
    before = held(tmp_path)
    page = tmp_path / "page.html"
    assert_one_message(interrupted_at("os.rename", "page.html", "compare", *runs, "--html", page))
    assert held(tmp_path) == before


@pytest.mark.parametrize("command", ["check", "test-model"])
def test_a_check_is_interrupted_while_it_waits_for_data(tmp_path: Path, command: str) -> None:
    file = clean_project(tmp_path, list(KINDS).index("own dataset"))
    own = tmp_path / "own.py"
    text = own.read_text(encoding="utf-8")
    own.write_text(text.replace("\n    def __getitem__(self, row):", f"{WAITING}\n    def slowly(self, row):"))
    before = held(tmp_path)
    arguments = [sys.executable, "-m", "weft", command, str(file)]
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    with subprocess.Popen(arguments, stdout=-1, stderr=-1, text=True, env=environment) as child:
        wait_until((tmp_path / "here").exists, 120)
        child.send_signal(signal.SIGINT)
        out, told = child.communicate(timeout=120)
    assert child.returncode == 130, told
    assert out == ""
    assert_one_message(told)
    (tmp_path / "here").unlink()
    assert held(tmp_path) == before
