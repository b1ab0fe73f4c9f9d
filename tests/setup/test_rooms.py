"""What holds for every module of the package: its length, and what importing it brings along."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
LONGEST_FILE = 400

IMPORT_ALL = """
import importlib, importlib.util, pkgutil, sys

blocked = set(sys.argv[1].split())

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"blocked for this test: {name}", name=name)

sys.meta_path.insert(0, Block())
for room in sys.argv[2:]:
    module = importlib.import_module(room)
    for found in pkgutil.walk_packages(getattr(module, "__path__", []), room + "."):
        if not found.name.endswith("__main__"):
            importlib.import_module(found.name)
"""


def import_without(blocked: str, *rooms: str) -> subprocess.CompletedProcess[str]:
    """Import every module of the rooms in a fresh interpreter in which the blocked packages do not exist."""
    command = [sys.executable, "-c", IMPORT_ALL, blocked, *rooms]
    return subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)


def test_no_file_of_the_package_is_longer_than_a_reader_takes_in() -> None:
    lengths = {
        str(path.relative_to(REPOSITORY)): len(path.read_text(encoding="utf-8").splitlines())
        for path in (REPOSITORY / "weft").rglob("*.py")
    }
    assert {path: length for path, length in lengths.items() if length >= LONGEST_FILE} == {}


def test_configuration_errors_and_command_line_import_without_torch() -> None:
    done = import_without("torch monai", "weft.errors", "weft.config", "weft.cli")
    assert done.returncode == 0, done.stderr


def test_every_module_imports_without_the_optional_packages() -> None:
    optional = (
        "monai pandas pyarrow nibabel pydicom nrrd edt sklearn torchmetrics lightning ignite accelerate sqlalchemy "
        "apprise codecarbon mlflow mkdocs IPython"
    )
    done = import_without(optional, "weft")
    assert done.returncode == 0, done.stderr


def test_the_command_line_answers_help_without_importing_torch() -> None:
    program = "import sys; sys.argv = ['weft', '--help']\nfrom weft.cli import main\ntry:\n    main()\nfinally:\n"
    program += "    print('torch' in sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip().splitlines()[-1] == "False"
    assert "train" in done.stdout
