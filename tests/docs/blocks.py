"""The blocks of a page: files are written, commands and Python are run, in their order, in one folder.

- A block with a title is a file.
- `bash` is run as a shell would, ending with the first command that fails.
- `python` without a title is run in one process for the page, as the cells of a notebook are.
- `yaml` without a title is an example of a whole experiment; its keys and values must be valid.
- `text` and blocks without a language are no code.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
BLOCK = re.compile(r'^```(?P<language>\w*)(?: title="(?P<title>[^"]+)")?\n(?P<text>.*?)^```$', re.M | re.S)
LINK = re.compile(r"\]\((?!http)([^)#]+)[^)]*\)")
LANGUAGES = {"", "text", "bash", "python", "yaml"}


@dataclass
class Page:
    """A page that was run.

    Args:
        folder: where.
        printed: standard output of each bash block.
    """

    folder: Path
    printed: list[str] = field(default_factory=list)


def run_page(source: Path, folder: Path) -> Page:
    """Do what a page says."""
    page = Page(folder)
    cells: list[str] = []
    for block in BLOCK.finditer(source.read_text(encoding="utf-8")):
        assert block["language"] in LANGUAGES, block["language"]
        if block["title"]:
            (folder / block["title"]).write_text(block["text"], encoding="utf-8")
        elif block["language"] == "bash":
            page.printed.append(run_command(["bash", "-eo", "pipefail", "-c", block["text"]], folder))
        elif block["language"] == "python":
            cells.append(block["text"])
        elif block["language"] == "yaml":
            import yaml

            from weft.config import load_experiment

            load_experiment(yaml.safe_load(block["text"]), check=False)
    if cells:
        page.printed.append(run_command([sys.executable, "-c", "\n".join(cells)], folder))
    return page


def run_command(command: list[str], folder: Path) -> str:
    """Run a command to its end; returns its standard output."""
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, f"{command[-1]}\n{done.stdout}\n{done.stderr}"
    return done.stdout
