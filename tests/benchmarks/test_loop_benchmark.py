"""The benchmark runs and compares like with like; how fast anything is, is not tested."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from benchmarks.cases import CASES
from benchmarks.contenders import PEERS, contenders
from benchmarks.pairs import spread

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "loop.py"
pytestmark = pytest.mark.skipif(find_spec("tqdm") is None, reason="the loop by hand shows its progress with tqdm")


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    file = tmp_path_factory.mktemp("benchmark") / "rows.json"
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--quick", "--pairs", "1", "--json", str(file)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found: list[dict[str, Any]] = json.loads(file.read_text())
    return found


@pytest.mark.slow
def test_every_contender_has_a_row_in_every_case(rows: list[dict[str, Any]]) -> None:
    named = {(row["case"], row["contender"]) for row in rows}
    assert named >= {(key, one.name) for key, case in CASES.items() for one in contenders(case)}
    without_model = {name for case, name in named if case == "null"}
    assert without_model >= {"Weft, in memory", "loop by hand", *(one.name for one in PEERS)}


@pytest.mark.slow
def test_a_peer_is_left_out_visibly_and_only_where_it_is_not_installed(rows: list[dict[str, Any]]) -> None:
    missing = {one.name for one in PEERS if one.package is not None and find_spec(one.package) is None}
    assert {row["contender"] for row in rows if "skipped" in row} == missing


@pytest.mark.slow
def test_everybody_ends_with_the_weights_of_the_loop_by_hand(rows: list[dict[str, Any]]) -> None:
    compared = [row for row in rows if row["case"] in CASES and "skipped" not in row]
    assert len(compared) >= 7
    assert [row for row in compared if row["same_weights"] is not True] == []


def test_the_interval_holds_the_median_and_is_the_same_every_time() -> None:
    values = [1.0, 1.1, 0.9, 1.3, 1.0, 1.2, 0.8, 1.05, 0.95]
    found = spread(values)
    assert found.low <= found.median == 1.0 <= found.high
    assert spread(values) == found
    assert spread([2.0]) == type(found)(2.0, 2.0, 2.0)


@pytest.mark.slow
def test_the_benchmark_for_accelerators_runs_also_without_one() -> None:
    script = SCRIPT.with_name("accelerator.py")
    done = subprocess.run(
        [sys.executable, str(script), "--device", "cpu", "--quick", "--cases", "b"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| b | Weft | loop by hand, AMP |" in done.stdout
