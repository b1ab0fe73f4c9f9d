"""`weft doctor` tells what is there and what is amiss, also where nearly everything is broken."""

from __future__ import annotations

import importlib.metadata
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from tests.cli.lab import good, weft
from weft.actions.doctor.installed import extra_packages, is_within, parse, requirements_of

BLOCKED = """
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ImportError(f"{{name}} is broken for this test")

sys.meta_path.insert(0, Block())
from weft.cli import main
main(["doctor", *sys.argv[1:]])
"""


def process(*command: str, limit: int | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a process of its own, perhaps with a limit of open files."""

    def lower() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))

    return subprocess.run(
        [sys.executable, *command],
        env=os.environ | environment,
        preexec_fn=lower,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def fake_torch(folder: Path, code: str) -> dict[str, str]:
    """An environment whose torch is this code."""
    (folder / "torch.py").write_text(code, encoding="utf-8")
    return {"PYTHONPATH": str(folder)}


def test_a_sound_machine_is_told_of_in_full(tmp_path: Path) -> None:
    outcome = good("doctor", "--output", tmp_path / "runs", "--json")
    told = outcome.json
    assert told["ok"]
    assert told["versions"]["weft"] == importlib.metadata.version("weft")
    assert told["torch"]["devices"][0]["works"]
    assert told["limits"]["open_files"] == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert told["limits"]["cores"] >= 1
    assert told["output"]["writable"]
    assert told["output"]["locks"]
    assert told["output"]["existing"] == str(tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert all(package["fits"] for package in told["core"])
    assert {"imaging", "federated", "tables"} <= set(told["extras"])


def test_it_works_without_torch_and_nearly_everything_else(tmp_path: Path) -> None:
    # pydantic is what typer itself needs
    blocked = {"torch", "numpy", "scipy", "rich", "yaml", "jinja2", "safetensors", "PIL", "tensorboardX", "sklearn"}
    environment = fake_torch(tmp_path, "raise ImportError('libtorch_cpu.so: cannot open shared object file')")
    done = process("-c", BLOCKED.format(blocked=blocked), **environment)
    assert done.returncode == 1
    assert "error: torch: cannot be imported: ImportError: libtorch_cpu.so" in done.stdout
    assert "hint: install it anew" in done.stdout
    assert done.stderr == ""


def test_a_torch_that_kills_the_process_is_named(tmp_path: Path) -> None:
    environment = fake_torch(tmp_path, "import os, signal\nos.kill(os.getpid(), signal.SIGILL)")
    done = process("-m", "weft", "doctor", "--json", **environment)
    told = json.loads(done.stdout)
    assert done.returncode == 1
    assert "SIGILL" in told["torch"]["error"]
    assert told["symptoms"][0]["severity"] == "error"


def test_few_open_files_are_a_warning(tmp_path: Path) -> None:
    environment = fake_torch(tmp_path, "raise ImportError('left out to be quick')")
    done = process("-m", "weft", "doctor", limit=256, **environment)
    assert "warning: open files: at most 256" in done.stdout
    assert "ulimit -n" in done.stdout


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_to_is_an_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    outcome = weft("doctor", "--output", tmp_path / "runs")
    tmp_path.chmod(0o700)
    assert outcome.code == 1
    assert "cannot be written to" in outcome.out


def test_a_file_in_the_place_of_the_folder_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("weft.actions.doctor.examining.torch_facts", lambda: {"error": "not asked"})
    (tmp_path / "runs").write_text("")
    outcome = weft("doctor", "--output", tmp_path / "runs")
    assert outcome.code == 1
    assert "cannot be written to: Not a directory" in outcome.out


def test_missing_packages_are_told_with_the_command_for_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("weft.actions.doctor.examining.torch_facts", lambda: {"error": "not asked"})
    installed = importlib.metadata.version

    def version(name: str) -> str:
        if name == "monai":
            raise importlib.metadata.PackageNotFoundError(name)
        return "1.0" if name == "numpy" else installed(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    told = weft("doctor", "--json").json
    assert told["extras"]["imaging"]["missing"] == ["monai"]
    assert told["extras"]["imaging"]["command"] == "pip install 'weft[imaging]'"
    assert not told["ok"]
    (symptom,) = [one for one in told["symptoms"] if one["where"] == "numpy"]
    assert "1.0" in symptom["message"]
    assert symptom["remedy"] == "pip install 'numpy>=1.26'"


def test_requirements_are_read_as_packaging_reads_them() -> None:
    for text in importlib.metadata.requires("weft") or []:
        mine, right = parse(text), Requirement(text)
        assert mine is not None
        assert (mine.name, set(mine.extras)) == (right.name, right.extras)
        assert SpecifierSet(mine.versions) == right.specifier
        assert right.marker is None or right.marker.evaluate({"extra": mine.extra or ""})
    assert {one.name for one in extra_packages()["imaging"]} == {"monai", "nibabel", "pydicom", "pynrrd", "edt"}
    assert requirements_of("no-such-package") == []


numbers = st.integers(0, 30)
versions = st.lists(numbers, min_size=1, max_size=4).map(lambda parts: ".".join(map(str, parts)))
comparisons = st.tuples(st.sampled_from([">=", "<=", "==", "!=", ">", "<"]), versions).map("".join)


@given(versions, st.lists(comparisons, max_size=3).map(",".join))
def test_versions_are_compared_as_packaging_compares_them(version: str, wanted: str) -> None:
    assert is_within(version, wanted) == SpecifierSet(wanted).contains(version)


@pytest.mark.parametrize(
    ("version", "wanted", "fits"),
    [("2.13.0+cpu", ">=2.6", True), ("2.5.9", "~=2.6", False), ("2.7.1", "~=2.6", True), ("3.0", "~=2.6", False)],
)
def test_builds_and_compatible_releases_are_understood(version: str, wanted: str, fits: bool) -> None:
    assert is_within(version, wanted) is fits


def test_what_is_printed_fits_what_is_told_as_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = {"version": "2.6.0", "cuda": None, "threads": 1, "devices": [{"name": "cpu", "works": True}]}
    monkeypatch.setattr("weft.actions.doctor.examining.torch_facts", lambda: facts)
    printed = good("doctor", "--output", tmp_path).out
    told: dict[str, Any] = good("doctor", "--output", tmp_path, "--json").json
    assert f"torch          {told['torch']['version']}" in printed
    for extra, packages in told["extras"].items():
        line = next(line for line in printed.splitlines() if line.split()[:2] == ["extra", extra])
        assert packages["command"] in line if packages["missing"] else "installed" in line
