"""The README's files and commands, run in an empty folder, in their order."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
BLOCK = re.compile(r'^```(?P<language>\w+)(?: title="(?P<title>[^"]+)")?\n(?P<text>.*?)^```$', re.M | re.S)
LINK = re.compile(r"\]\((?!http)([^)#]+)\)")


def run_commands(text: str, folder: Path) -> str:
    """Run the commands of a block as a shell would, ending with the first that fails."""
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    script = ["bash", "-eo", "pipefail", "-c", text]
    done = subprocess.run(script, cwd=folder, env=environment, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.slow
def test_the_readmes_journeys_work_as_written(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    blocks = list(BLOCK.finditer((REPOSITORY / "README.md").read_text(encoding="utf-8")))
    printed = []
    for block in blocks:
        if block["title"]:
            (tmp_path / block["title"]).write_text(block["text"], encoding="utf-8")
        elif block["language"] == "bash":
            printed.append(run_commands(block["text"], tmp_path))
    assert (tmp_path / "runs" / "wine" / "report.html").stat().st_size > 10_000
    assert (tmp_path / "runs" / "wine" / "predictions" / "test.csv").exists()
    assert any(text.startswith("identical") or "\nidentical" in text for text in printed)
    assert (tmp_path / "runs" / "folds" / "summary.json").exists()
    own = next(text for text in printed if text.startswith(str(tmp_path)) or "runs/own" in text)
    assert float(own.splitlines()[0].split()[-1]) > 0.9


def test_every_file_the_readme_links_to_exists() -> None:
    links = LINK.findall((REPOSITORY / "README.md").read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if not (REPOSITORY / link).exists()] == []
