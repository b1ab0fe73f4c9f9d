"""Starting a project: a complete small one from a template, that trains at once."""

from __future__ import annotations

import importlib.util
import json
import runpy
import shutil
import tempfile
from pathlib import Path
from typing import Literal, get_args

import weft
from weft.errors import UsageError
from weft.runs.files import explained

Template = Literal["tabular", "classification", "segmentation"]
TEMPLATES: tuple[Template, ...] = get_args(Template)
_FOLDER = Path(__file__).parent / "templates"
_ENDING = ".jinja"


def start_project(path: Path | str, template: str) -> Path:
    """Write a complete small project: experiment, data, patches, notebook, Makefile, CI, tests, README.

    Args:
        path: its folder, which must not exist or be empty; its name is the project's.
        template: "tabular", "classification" or "segmentation".

    Returns:
        the folder.

    Raises:
        UsageError: there is no such template, the folder holds something, or scikit-learn (for the data) is missing.
        RunDirectoryError: it cannot be written; nothing is left behind.
    """
    chosen = next((name for name in TEMPLATES if name == template), None)
    if chosen is None:
        raise UsageError(f"there is no template '{template}'", f"templates: {', '.join(TEMPLATES)}")
    folder = Path(path).expanduser().absolute()
    _refuse_occupied(folder)
    if importlib.util.find_spec("sklearn") is None:
        raise UsageError(
            "the data of the templates come with scikit-learn, which is not installed", "pip install 'weft[examples]'"
        )
    with explained(folder, kept="nothing was written"):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
            built = Path(temporary) / folder.name
            _write(built, chosen, folder.name)
            runpy.run_path(str(built / "make_data.py"), run_name="__main__")
            shutil.rmtree(built / "__pycache__", ignore_errors=True)
            built.replace(folder)  # an empty folder may be there
    return folder


def _refuse_occupied(folder: Path) -> None:
    if folder.is_file():
        raise UsageError(f"{folder} is a file", "choose another name")
    held = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
    if held:
        shown = ", ".join(held[:5]) + (", …" if len(held) > 5 else "")
        raise UsageError(f"{folder} is not empty: it holds {shown}", "choose a new name; nothing was changed there")


def _write(folder: Path, template: Template, name: str) -> None:
    """Render the files that all templates share, and the template's own."""
    from jinja2 import Environment, StrictUndefined

    # Delimiters that mean nothing in YAML, Make, Python and JSON.
    environment = Environment(  # no HTML is made here, so nothing is escaped
        variable_start_string="<<",
        variable_end_string=">>",
        block_start_string="<%",
        block_end_string="%>",
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    about = (_FOLDER / template / "about.md").read_text(encoding="utf-8")
    summary, _, own_data = about.partition("\n\n")
    values = {
        "name": name,
        "title": json.dumps(name)[1:-1],  # also inside a string of the notebook
        "template": template,
        "summary": summary,
        "own_data": own_data.strip(),
        "version": weft.__version__,
    }
    for source in (_FOLDER / "common", _FOLDER / template):
        for file in sorted(source.rglob(f"*{_ENDING}")):
            target = folder / file.relative_to(source).with_name(file.name.removesuffix(_ENDING))
            target.parent.mkdir(parents=True, exist_ok=True)
            text = environment.from_string(file.read_text(encoding="utf-8")).render(values)
            target.write_text(text, encoding="utf-8")
