"""What a computation tells whoever watches it, and where."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.interop.coinstac.computation import LASTING_LOCAL, LASTING_REMOTE, write
from tests.interop.coinstac.tables import SIZES, site_run, train, write_sites
from weft.interop.coinstac.simulator import simulate
from weft.interop.coinstac.utils.logger import error, info, success, warn

TELLING = "from weft.interop.coinstac.utils.logger import info; info('before anything')"
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="the simulator forks")


def test_with_verbose_each_epoch_is_told_on_standard_error(tmp_path: Path, capsys: Any) -> None:
    write_sites(tmp_path)
    report = train([site_run(tmp_path, name, epochs=2, verbose=name == "local1") for name in SIZES])["local1"]
    said = capsys.readouterr()
    assert said.out == ""
    lines = said.err.splitlines()
    for epoch in (1, 2):
        (training,) = [line for line in lines if line.startswith(f"epoch {epoch}/2, training of all sites: Loss ")]
        (pooled,) = [line for line in lines if line.startswith(f"epoch {epoch}/2, validation of all sites: Loss ")]
        for line, key in ((training, "train_log"), (pooled, "validation_log")):
            told = [float(part.rpartition(" ")[2]) for part in line.partition(": ")[2].split(", ")]
            assert told == pytest.approx(report[key][epoch - 1], abs=1e-4)
        assert sum(line.startswith(f"epoch {epoch}/2, validation of this site: Loss ") for line in lines) == 1
        assert any(line.startswith(f"epoch {epoch}/2, validation batch 1: Loss ") for line in lines)
    assert [line for line in lines if line.startswith("test of all sites: Loss ")]
    assert len(lines) < 30  # batches are told more and more seldom


def test_without_verbose_nothing_is_told(tmp_path: Path, capsys: Any) -> None:
    write_sites(tmp_path)
    train([site_run(tmp_path, name, epochs=1) for name in SIZES])
    assert capsys.readouterr() == ("", "")


def test_lines_of_users_are_no_answer_of_a_process(capsys: Any) -> None:
    for function in (error, info, success, warn):
        function("a line")
        function("nothing", False)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == ["error: a line", "a line", "a line", "warning: a line"]


@forks
@pytest.mark.slow
@pytest.mark.parametrize("persistent", [False, True])
def test_the_simulator_passes_on_what_is_told_and_each_thing_once(tmp_path: Path, persistent: bool) -> None:
    scripts = {"local": LASTING_LOCAL, "remote": LASTING_REMOTE} if persistent else {}
    write(tmp_path, {"verbose": True, "epochs": 2, "gpus": [0]}, **scripts)
    lines: list[str] = []
    places = tmp_path, tmp_path / "local.py", tmp_path / "remote.py"
    simulate(*places, alias=True, persistent=persistent, tell=lines.append)
    for site in SIZES:
        for epoch in (1, 2):
            begins = f"{site}: epoch {epoch}/2, validation of all sites: Loss "
            assert sum(line.startswith(begins) for line in lines) == 1, begins
        warned = f"{site}: warning: site {site}: gpus is [0], but there is no CUDA device: it computes on the CPU"
        assert lines.count(warned) == 1


@forks
@pytest.mark.slow
def test_warnings_are_passed_on_without_verbose_and_nothing_else(tmp_path: Path) -> None:
    write(tmp_path, {"epochs": 1, "gpus": [0]})
    lines: list[str] = []
    simulate(tmp_path, tmp_path / "local.py", tmp_path / "remote.py", alias=True, tell=lines.append)
    words = "gpus is [0], but there is no CUDA device: it computes on the CPU"
    assert sorted(lines) == [f"{site}: warning: site {site}: {words}" for site in SIZES]


@pytest.mark.slow
def test_what_a_script_tells_before_it_asks_for_its_call_is_no_answer(tmp_path: Path) -> None:
    """Called as COINSTAC calls it, without Weft's simulator around it."""
    write(tmp_path, {"verbose": True, "epochs": 1})
    for name in ("local", "classes"):
        text = (tmp_path / f"{name}.py").read_text().replace("coinstac_dinunet", "weft.interop.coinstac")
        (tmp_path / f"{name}.py").write_text(text.replace('print("whatever a script prints is no answer")', TELLING))
    spec = json.loads((tmp_path / "inputspec.json").read_text())[0]
    state = {f"{kind}Directory": str(tmp_path / kind) for kind in ("output", "cache", "transfer")}
    state |= {"baseDirectory": str(tmp_path / "input" / "local0" / "simulatorRun"), "clientId": "local0"}
    call = {"cache": {}, "input": {key: one["value"] for key, one in spec.items()}, "state": state}
    done = subprocess.run(
        [sys.executable, "local.py"], input=json.dumps(call), capture_output=True, text=True, cwd=tmp_path, check=True
    )
    (answer,) = done.stdout.splitlines()
    assert json.loads(answer)["output"]["phase"] == "init_runs"
    assert done.stderr.splitlines() == ["before anything"]
