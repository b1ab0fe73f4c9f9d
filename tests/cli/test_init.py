"""`weft init` writes a project that is complete, clean, sound, and trains at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.lab import good, weft
from weft.actions.checking import check
from weft.actions.projects import TEMPLATES

pytest.importorskip("sklearn")
REPOSITORY = Path(__file__).parents[2]
FILES = {
    *("experiment.yaml", "make_data.py", "README.md", "Makefile", "pyproject.toml", "requirements.txt", ".gitignore"),
    *("notebook.ipynb", "tests/test_project.py", ".github/workflows/ci.yml"),
}


def run(*command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command in a project, with the tools of this interpreter."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=280, check=False
    )


@pytest.fixture(scope="module", params=TEMPLATES)
def project(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new project of each template, its name one that needs quoting."""
    folder = tmp_path_factory.mktemp("projects") / f'my "{request.param}": 1'
    assert good("init", folder, "--template", request.param).last_line == str(folder)
    return folder


def test_a_new_project_is_complete(project: Path) -> None:
    held = {str(path.relative_to(project)) for path in project.rglob("*") if path.is_file()}
    assert held >= FILES
    assert [name for name in held if name.startswith("patches/")]
    assert [name for name in held if name.startswith("data/")]
    assert [name for name in held if "jinja" in name or "__pycache__" in name] == []
    assert sorted(path.name for path in project.parent.iterdir()) == [project.name]
    text = "".join((project / name).read_text(encoding="utf-8") for name in sorted(FILES))
    assert "<<" not in text


def test_the_code_of_a_new_project_is_clean(project: Path) -> None:
    assert run("ruff", "check", "--no-cache", ".", folder=project).stdout == "All checks passed!\n"
    formatted = run("ruff", "format", "--no-cache", "--check", ".", folder=project)
    assert formatted.returncode == 0, formatted.stdout


def test_a_new_project_has_nothing_that_a_check_would_find(project: Path) -> None:
    report = check(project / "experiment.yaml")
    assert report.findings == []
    assert report.name == project.name


def test_the_make_targets_of_a_new_project_exist(project: Path) -> None:
    listed = run("make", folder=project).stdout
    for target in ("data", "check", "train", "test", "lint", "clean"):
        assert f"  {target} " in listed
        assert run("make", "--dry-run", target, folder=project).returncode == 0
    workflow = (project / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    assert "make check" in workflow


@pytest.mark.slow
def test_the_data_of_a_new_project_are_the_same_each_time(project: Path) -> None:
    table = next((project / "data").glob("*.csv"))
    files = sorted(path for path in (project / "data").rglob("*") if path.is_file())
    before = [path.read_bytes() for path in files]
    assert run(sys.executable, "make_data.py", folder=project).returncode == 0
    assert [path.read_bytes() for path in files] == before
    assert table in files


@pytest.mark.slow
def test_the_notebook_of_a_new_project_trains(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    good("init", folder)
    cells = json.loads((folder / "notebook.ipynb").read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    script = "\n".join([*code, "print(len(history), run.scores['test']['accuracy'], report.ok)"])
    done = run(sys.executable, "-c", script, folder=folder)
    assert done.returncode == 0, done.stderr
    epochs, accuracy, ok = done.stdout.split()[-3:]
    assert (epochs, ok) == ("2", "True")
    assert 0.5 < float(accuracy) <= 1


@pytest.mark.slow
def test_the_tests_of_a_new_project_pass(project: Path) -> None:
    done = run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", folder=project)
    assert done.returncode == 0, done.stdout
    assert "3 passed" in done.stdout or "4 passed" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("template", "score", "least"), [("classification", "accuracy", 0.9), ("segmentation", "dice", 0.8)]
)
def test_from_nothing_to_a_trained_network_in_one_command(
    tmp_path: Path, template: str, score: str, least: float
) -> None:
    outcome = good("--quiet", "init", tmp_path / "demo", "--template", template, "--train")
    path = Path(outcome.last_line)
    assert path.parent == tmp_path / "demo" / "runs"
    assert (path / "report.html").stat().st_size > 10_000
    result = json.loads((path / "result.json").read_text(encoding="utf-8"))
    assert result["scores"]["test"][score] > least


def test_a_project_is_trained_at_once(tmp_path: Path) -> None:
    outcome = good("--quiet", "init", tmp_path / "demo", "--train", "--json")
    assert outcome.json["scores"]["test"]["accuracy"] > 0.85
    assert outcome.json["project"] == str(tmp_path / "demo")
    assert (Path(outcome.json["run"]) / "report.html").exists()


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    outcome = weft("init", tmp_path)
    assert outcome.code == 2
    assert "mine.txt" in outcome.err
    assert "hint:" in outcome.err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    assert weft("init", tmp_path / "mine.txt").code == 2


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    good("init", tmp_path / "empty")
    assert (tmp_path / "empty" / "experiment.yaml").exists()


def test_an_unknown_template_is_refused(tmp_path: Path) -> None:
    outcome = weft("init", tmp_path / "demo", "--template", "audio")
    assert outcome.code == 2
    assert "tabular" in outcome.err
    assert not (tmp_path / "demo").exists()


def test_the_package_holds_the_templates() -> None:
    templates = REPOSITORY / "weft" / "actions" / "templates"
    assert {path.name for path in templates.iterdir()} == {"common", *TEMPLATES}
    shown = run(
        "git", "check-ignore", *(str(path) for path in templates.rglob("*") if path.is_file()), folder=REPOSITORY
    )
    assert shown.stdout == ""  # what git ignores the wheel leaves out
