"""Every page of the documentation does what it says; the reference is complete; the whole builds without a warning."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from tests.docs.blocks import REPOSITORY, run_page
from weft.cli.app import app
from weft.config import json_schema

DOCS = REPOSITORY / "docs"
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
NEEDS = {
    "how-to/transforms.md": ("monai", "nibabel"),
    "how-to/observers.md": ("apprise", "codecarbon", "mlflow"),
    "how-to/notebook.md": ("pandas",),
}


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", PAGES)
def test_a_page_works_as_written(name: str, tmp_path: Path) -> None:
    for package in ("sklearn", *NEEDS.get(name, ())):
        pytest.importorskip(package)
    page = run_page(DOCS / name, tmp_path)
    for result in (tmp_path / "runs").glob("*/result.json"):
        assert json.loads(result.read_text())["status"] == "finished", result
    if name == "tutorial.md":
        assert page.printed[-1].startswith("identical") or "\nidentical" in page.printed[-1]
        assert (tmp_path / "runs" / "wine" / "report.html").exists()
    if name == "how-to/resume.md":
        assert "identical" in page.printed[-1]


def reference(page: str) -> str:
    pytest.importorskip("mkdocs")
    command = [sys.executable, str(DOCS / "hooks" / "reference.py"), page]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=REPOSITORY).stdout


def test_the_reference_of_the_file_names_every_key_with_its_meaning() -> None:
    text = reference("experiment")
    schema = json_schema()
    keys = {key for part in (schema, *schema["$defs"].values()) for key in part.get("properties", {})}
    assert len(keys) > 60
    assert sorted(key for key in keys if f"| `{key}` |" not in text) == []
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert [row for row in rows if row.rstrip(" |").count("|") < 4] == []  # without a meaning


def test_the_reference_of_the_command_line_names_every_command_and_option() -> None:
    text = reference("commands")
    group = typer.main.get_command(app)
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        assert f"## `weft {name}`" in text
        part = text.split(f"## `weft {name}`")[1].split("\n## ")[0]
        for parameter in command.params:
            for option in parameter.opts:
                assert not option.startswith("--") or option == "--help" or f"`{option}`" in part, (name, option)


def test_the_reference_of_python_has_signatures_and_errors() -> None:
    text = reference("python")
    assert "train(source: Source, overrides: Sequence[str] = ()" in text
    for name in ("`weft.open`", "`weft.actions.TrainedRun`", "`weft.tasks.Task`", "`weft.engine.Observer`"):
        assert f"### {name}" in text
    assert "**Raises**" in text


@pytest.mark.slow
def test_the_documentation_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("material")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 0, done.stdout + done.stderr
    page = (tmp_path / "site" / "reference" / "experiment" / "index.html").read_text(encoding="utf-8")
    assert "checkpoint_every" in page
    assert not (tmp_path / "site" / "hooks").exists()
    everything = "".join(file.read_text(encoding="utf-8") for file in (tmp_path / "site").rglob("*.html"))
    assert "fonts.googleapis" not in everything
