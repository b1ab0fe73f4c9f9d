"""The command as a process of its own: what it imports, its exit codes, pipes, and several at once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.lab import read_table, tabular

COMMANDS = ["train", "evaluate", "predict", "show", "components", "reproduce", "report", "schema"]

LOOK = """
import sys
from weft.cli import main
try:
    main(sys.argv[1:])
finally:
    heavy = {"torch", "numpy", "scipy", "pandas", "monai", "sklearn", "tensorboardX", "jinja2"} & set(sys.modules)
    print("imported:", sorted(heavy), file=sys.stderr)
"""


def process(*arguments: object, program: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command line (or a program around it) in a new Python."""
    start = ["-m", "weft"] if program is None else ["-c", program]
    return subprocess.run([sys.executable, *start, *map(str, arguments)], capture_output=True, text=True, check=False)


def test_help_of_every_command_imports_nothing_heavy() -> None:
    program = LOOK.replace("    main(sys.argv[1:])\n", "    for command in sys.argv[1:]:\n        help_of(command)\n")
    program = program.replace(
        "try:\n",
        "def help_of(command):\n    try:\n        main([command, '--help'])\n    except SystemExit as end:\n"
        "        assert end.code == 0, command\ntry:\n",
        1,
    )
    done = process(*COMMANDS, program=program)
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip().splitlines()[-1] == "imported: []"
    for command in COMMANDS:
        assert f"Usage: weft {command}" in done.stdout


def test_help_of_weft_lists_the_commands_and_imports_nothing_heavy() -> None:
    done = process("--help", program=LOOK)
    assert done.returncode == 0
    assert done.stderr.strip().splitlines()[-1] == "imported: []"
    for command in COMMANDS:
        assert f"  {command} " in done.stdout


def test_importing_weft_imports_no_torch() -> None:
    done = process(program="import sys, weft, weft.config, weft.errors; sys.exit('torch' in sys.modules)")
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["--version"], 0), (["train", "nowhere.yaml"], 2), (["frobnicate"], 2), (["train", "--epochs", "3"], 2), ([], 2)],
)
def test_exit_codes(arguments: list[str], code: int) -> None:
    done = process(*arguments)
    assert done.returncode == code
    assert "Traceback" not in done.stderr


def test_a_reader_that_goes_away_early_is_no_error() -> None:
    shell = f"{sys.executable} -m weft schema | head -1"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "{"
    assert done.stderr == ""


FOUR = """
import os, sys
import weft.actions  # once, for all of them
from weft.cli import main

file, folder = sys.argv[1:]
children = []
for seed in range(4):
    children.append(os.fork())
    if not children[-1]:
        sys.stdout = open(f"{folder}/{seed}.json", "w")
        main(["-q", "train", file, "--json", "--set", f"seed={seed}"])
sys.exit(any(os.waitpid(child, 0)[1] for child in children))
"""


def test_four_that_train_at_once_leave_a_row_each(tmp_path: Path) -> None:
    done = process(tabular(tmp_path), tmp_path, program=FOUR)
    assert done.returncode == 0, done.stderr
    ended = [json.loads((tmp_path / f"{seed}.json").read_text()) for seed in range(4)]
    results = {Path(result["run"]).name: result for result in ended}
    assert len(results) == 4, "each has a folder of its own"
    table = {row["run"]: row for row in read_table(tmp_path / "runs" / "experiments.csv")}
    assert table.keys() == results.keys()
    assert sorted(row["seed"] for row in table.values()) == ["0", "1", "2", "3"]
    for name, row in table.items():
        assert row["model_sha256"] == results[name]["model_sha256"]
        assert float(row["test.accuracy"]) == results[name]["scores"]["test"]["accuracy"]
