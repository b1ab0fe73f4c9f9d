"""`weft federate simulate`: what it prints, how it is stopped and goes on, and how it ends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.federated.lab import REPOSITORY, outcome, study
from tests.report.pages import Page

pytest.importorskip("sklearn")


def _weft(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "weft", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, timeout=200, check=False)


def _file(folder: Path, **changes: object) -> Path:
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump(study(**changes), sort_keys=False))
    return file


def test_the_command_prints_the_study_and_a_comparison(tmp_path: Path) -> None:
    done = _weft("federate", "simulate", _file(tmp_path), "--out", tmp_path / "study", "--compare")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1] == str(tmp_path / "study")
    assert lines[0] == "train:"
    assert lines[1].split() == ["study", "pooled", "alone"]
    assert "site south:" in done.stderr
    assert "bytes sent" in done.stderr
    tested = _weft("federate", "evaluate", tmp_path / "study", "--split", "test", "--out", tmp_path / "tested")
    assert tested.returncode == 0, tested.stderr
    assert tested.stdout.splitlines()[0].split() == ["test"]
    assert tested.stdout.splitlines()[-1] == str(tmp_path / "tested")


def test_what_of_a_scenario_never_came_is_told_with_its_line_and_in_the_report(tmp_path: Path) -> None:
    faults = tmp_path / "faults.yaml"
    faults.write_text(
        "events:\n  - {site: west, event: truncated, step: 1}\n  - {site: north, event: leaves, step: 2, exchange: 8}\n"
    )
    command = ["federate", "simulate", _file(tmp_path, training__epochs=1), "--out", tmp_path / "study"]
    done = _weft(*command, "--scenario", faults)
    assert done.returncode == 0, done.stderr
    why = "north: 'leaves' at step 2, exchange 8 (faults.yaml:3) never happened: the 2 exchanges of that step: control"
    assert f"scenario: 1 of 2 events came; {why}" in done.stderr
    page = Page((tmp_path / "study" / "report.html").read_text(encoding="utf-8"))
    assert "of which 1 of 2 events came" in page.text
    (rows,) = [table[1:] for table in page.tables if table[0][1].strip() == "Came"]
    assert [[cell.strip() for cell in row[1:3]] for row in rows] == [
        ["yes", "faults.yaml:2"],
        ["never", "faults.yaml:3"],
    ]
    assert "missed" not in page.text.lower().split("what the scenario had planned")[0]
    faults.write_text("events:\n  - {site: north, event: leaves, step: 200}\n")
    refused = _weft(*command[:-1], tmp_path / "other", "--scenario", faults)
    assert refused.returncode == 2
    assert "faults.yaml:2:40: events.0.step: the study takes 8 steps: 200 is after its end" in refused.stderr


@pytest.mark.slow
def test_a_stopped_study_tells_how_to_go_on_and_does(tmp_path: Path) -> None:
    file = _file(tmp_path, training__epochs=40)
    command = [sys.executable, "-m", "weft", "federate", "simulate", str(file), "--out"]
    undisturbed = _weft(*command[3:], tmp_path / "undisturbed")
    assert undisturbed.returncode == 0, undisturbed.stderr
    with subprocess.Popen(
        [*command, str(tmp_path / "study")], cwd=REPOSITORY, stderr=subprocess.PIPE, text=True
    ) as run:
        history = tmp_path / "study" / "history.csv"
        while run.poll() is None and not (history.exists() and len(history.read_text().splitlines()) > 2):
            time.sleep(0.02)
        run.send_signal(signal.SIGTERM)
        _, told = run.communicate(timeout=100)
    assert run.returncode == 75, told
    assert f"weft federate simulate --resume {tmp_path / 'study'}" in told
    assert json.loads((tmp_path / "study" / "result.json").read_text())["status"] == "stopped"
    refused = _weft("train", "--resume", tmp_path / "study")
    assert refused.returncode == 2
    assert "weft federate simulate --resume" in refused.stderr
    done = _weft("federate", "simulate", "--resume", tmp_path / "study")
    assert done.returncode == 0, done.stderr
    assert outcome(tmp_path / "study") == outcome(tmp_path / "undisturbed")


def test_weft_train_names_the_command_for_studies(tmp_path: Path) -> None:
    file = _file(tmp_path)
    done = _weft("train", file)
    assert done.returncode == 2
    assert f"weft federate simulate {file}" in done.stderr
