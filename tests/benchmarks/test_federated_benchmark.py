"""The benchmark of studies runs and measures what it says; how fast anything is, is not tested."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "federated.py"


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    file = tmp_path_factory.mktemp("benchmark") / "figures.json"
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--quick", "--json", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(file.read_text())
    return found | {"printed": done.stdout}


@pytest.mark.slow
def test_a_study_trains_as_a_bare_loop_over_gloo_does(figures: dict[str, Any]) -> None:
    rows = {(row["parameters"], row["contender"]): row for row in figures["time"]}
    assert {parameters for parameters, _ in rows} == {"61 k", "2.5 M"}
    for parameters in ("61 k", "2.5 M"):
        assert rows[parameters, "gloo"]["difference"] <= 1e-5
        assert rows[parameters, "Weft"]["milliseconds"] > 0
        assert rows[parameters, "loop by hand, five models in turns"]["milliseconds"] > 0


@pytest.mark.slow
def test_peers_that_are_not_installed_are_skipped_visibly(figures: dict[str, Any]) -> None:
    skipped = [row for row in figures["time"] if row["contender"].startswith("coinstac-dinunet")]
    assert len(skipped) == 4
    assert all("pip install coinstac-dinunet" in row["skipped"] for row in skipped)
    assert "| 61 k | coinstac-dinunet, rows in memory | skipped:" in figures["printed"]


@pytest.mark.slow
def test_encoded_messages_are_little_longer_than_their_numbers(figures: dict[str, Any]) -> None:
    large = [row for row in figures["bytes"] if row["least"] >= 200_000]
    assert len(large) == 2
    for row in large:
        assert row["least"] < row["sent"] <= 1.02 * row["least"]
        assert row["least"] < row["received"] <= 1.02 * row["least"]


@pytest.mark.slow
def test_low_rank_strategies_move_less_on_the_study_of_volumes(figures: dict[str, Any]) -> None:
    moved = figures["strategies"]
    if "skipped" in moved:
        pytest.skip(moved["skipped"])
    assert moved["PowerSGD"] <= moved["dSGD"] / 10
    assert moved["rankDAD"] <= moved["dSGD"] / 3


@pytest.mark.slow
def test_studies_of_more_sites_are_measured_too(figures: dict[str, Any]) -> None:
    assert [row["sites"] for row in figures["growth"]] == [2, 4]
