"""The package's metadata, the lock, the Makefile and the marks of the tests agree with each other."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import weft

REPOSITORY = Path(__file__).resolve().parents[2]
PROMISED_EXTRAS = {
    *("imaging", "federated", "postgres", "mysql", "datajoint", "tune", "ray", "kubernetes", "slurm"),
    *("notify", "carbon", "mlflow", "ui", "all", "examples", "tables", "docs", "dev", "benchmarks"),
}
NOT_FOR_USERS = {"all", "docs", "dev", "examples", "benchmarks"}


@pytest.fixture(scope="module")
def pyproject() -> dict[str, Any]:
    return tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def locked() -> dict[str, str]:
    lines = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


def closure(requirement: Requirement) -> set[str]:
    """Names of all distributions that an installed requirement brings with it."""
    pending, seen = [requirement], set()
    found: set[str] = set()
    while pending:
        current = pending.pop()
        key = (canonicalize_name(current.name), frozenset(current.extras))
        if key in seen:
            continue
        seen.add(key)
        found.add(key[0])
        for text in importlib.metadata.requires(current.name) or []:
            needed = Requirement(text)
            extras = current.extras or {""}
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
                pending.append(needed)
    return found


def test_the_lock_pins_torch_without_a_local_build_label(locked: dict[str, str]) -> None:
    assert locked["torch"] == "2.13.0"
    assert not [name for name, version in locked.items() if "+" in version]


def test_the_lock_names_no_host_and_no_path() -> None:
    text = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8")
    assert "://" not in text
    assert " @ " not in text


def test_the_lock_covers_all_that_development_installs(locked: dict[str, str]) -> None:
    brought_by_torch_builds = re.compile(r"nvidia-|cuda-|triton")
    needed = closure(Requirement("weft[dev]")) - {"weft"}
    assert sorted(name for name in needed - set(locked) if not brought_by_torch_builds.match(name)) == []


def test_the_lock_lies_within_the_ranges_of_the_metadata(pyproject: dict[str, Any], locked: dict[str, str]) -> None:
    extras = pyproject["project"]["optional-dependencies"]
    texts = [*pyproject["project"]["dependencies"], *(text for texts in extras.values() for text in texts)]
    outside = [
        text
        for requirement, text in ((Requirement(text), text) for text in texts)
        if (version := locked.get(canonicalize_name(requirement.name))) and version not in requirement.specifier
    ]
    assert outside == []


def test_every_promised_extra_is_there_and_all_holds_those_for_users(pyproject: dict[str, Any]) -> None:
    extras = pyproject["project"]["optional-dependencies"]
    assert set(extras) == PROMISED_EXTRAS
    (everything,) = extras["all"]
    assert Requirement(everything).extras == PROMISED_EXTRAS - NOT_FOR_USERS


def test_the_version_stands_in_one_place() -> None:
    assert importlib.metadata.version("weft") == weft.__version__


def test_the_changelog_speaks_of_the_version() -> None:
    assert f"## {weft.__version__}" in (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")


def test_make_help_lists_every_target() -> None:
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][a-z-]*):(?!=)", makefile, flags=re.MULTILINE))
    command = ["make", "--no-print-directory", "-C", str(REPOSITORY), "help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True)
    listed = {match.group(1) for match in re.finditer(r"^  ([a-z-]+)  +\S", shown.stdout, flags=re.MULTILINE)}
    assert listed == targets
    assert {"demo", "test", "test-slow", "test-cluster", "lint", "install", "env", "env-dev", "bench"} <= targets
    phony = re.search(r"^\.PHONY: (.*)$", makefile, flags=re.MULTILINE)
    assert phony is not None
    assert set(phony.group(1).split()) == targets


def test_the_container_runs_weft_without_root() -> None:
    lines = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8").splitlines()
    last_stage = lines[max(number for number, line in enumerate(lines) if line.startswith("FROM")) :]
    assert [line for line in last_stage if line.startswith("USER ")] == ["USER 1000:1000"]
    assert 'ENTRYPOINT ["weft"]' in last_stage
