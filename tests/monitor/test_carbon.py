"""The estimate of emissions: in the result and the report, over all sessions, never in the way."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import weft
from tests.monitor.helpers import small_experiment
from weft.errors import ConfigError, UsageError

pytest.importorskip("codecarbon")


def test_result_and_report_hold_an_estimate_that_is_called_one(tmp_path: Path) -> None:
    run = weft.train(small_experiment(tmp_path, carbon={"country": "DEU"}), out=tmp_path / "run")
    carbon = run.result["carbon"]
    assert carbon["kg_co2eq"] > 0
    assert carbon["energy_kwh"] > 0
    assert carbon["country"] == "DEU"
    assert "estimate" in carbon["method"]
    assert json.loads((run.path / "carbon.json").read_text()) == carbon
    report = run.path.joinpath("report.html").read_text()
    assert "Emissions (estimate)" in report
    assert "CO2-equivalents" in report


@pytest.mark.slow
def test_a_country_with_dirtier_electricity_emits_more(tmp_path: Path) -> None:
    intensity = {}
    for country in ("POL", "NOR"):
        run = weft.train(small_experiment(tmp_path, carbon={"country": country}), out=tmp_path / country)
        carbon = run.result["carbon"]
        intensity[country] = carbon["kg_co2eq"] / carbon["energy_kwh"]
    assert intensity["POL"] > 5 * intensity["NOR"]


def test_a_country_that_is_none_is_told_before_training(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="XYZ"):
        weft.train(small_experiment(tmp_path, carbon={"country": "XYZ"}), out=tmp_path / "run")
    with pytest.raises(ConfigError, match=r"run\.carbon\.country"):
        weft.load_experiment(small_experiment(tmp_path, carbon={"country": "Germany"}))
    assert not (tmp_path / "run").exists()


def test_without_the_package_the_error_names_the_command(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "sys.modules |= dict.fromkeys(('codecarbon', 'apprise', 'mlflow'))\n"
        "from weft.monitor import Carbon, MLflow, Notifications\n"
        "for make in (lambda: Carbon('DEU'), MLflow, lambda: Notifications(['json://a'])):\n"
        "    try:\n"
        "        make()\n"
        "    except Exception as error:\n"
        "        print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    for extra in ("carbon", "mlflow", "notify"):
        assert f"pip install 'weft[{extra}]'" in done.stdout
    assert done.stdout.count("UsageError") == 3
