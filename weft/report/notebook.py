"""What a run shows in a notebook: its curves as images that need no style sheet around them, and a short summary."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape, unescape
from pathlib import Path

from weft.report.curves import curves
from weft.report.page import style_sheet
from weft.report.reading import read_run
from weft.report.sections import final_scores
from weft.report.summary import summary
from weft.report.words import label, score

_FONT = 'style="font-family:ui-sans-serif,system-ui,sans-serif"'


@dataclass(frozen=True, slots=True)
class Drawings:
    """Figures of a run, which a notebook shows.

    Args:
        svgs: the contents of their files.
    """

    svgs: list[str]

    def _repr_html_(self) -> str:
        images = "".join(f'<div style="flex:1 1 22rem;max-width:31rem">{_image(svg)}</div>' for svg in self.svgs)
        return f'<div style="display:flex;flex-wrap:wrap;gap:1rem 2rem">{images}</div>'

    def save(self, folder: str | Path) -> list[Path]:
        """Write each figure into a .svg file, named by its title; returns the files.

        Args:
            folder: made where it is not there.
        """
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        files = []
        for svg in self.svgs:
            file = target / (re.sub(r"[^a-z0-9]+", "-", _title(svg).lower()).strip("-") + ".svg")
            file.write_text(svg, encoding="utf-8")
            files.append(file)
        return files


def drawings(run_path: Path) -> Drawings:
    """The curves of a run: losses, scores, learning rate, throughput.

    Args:
        run_path: its directory.

    Raises:
        RunDirectoryError: there is no run.
    """
    files = read_run(run_path)
    best = files.result.get("best_epoch")
    found = curves(files.history, files.steps, best if isinstance(best, int) else None)
    return Drawings([_alone(svg) for svg in found])


def overview(run_path: Path) -> str:
    """A run as a piece of HTML: name, a few sentences, final scores, where the report lies.

    Args:
        run_path: its directory.

    Raises:
        RunDirectoryError: there is no run.
    """
    files = read_run(run_path)
    told = "".join(f"<p style='margin:0.2em 0'>{escape(sentence)}</p>" for sentence in summary(files))
    scores = final_scores(files)
    names = list(dict.fromkeys(name for values in scores.values() for name in values))
    head = ["score", *(label(split) for split in scores)]
    rows = [[label(name), *(score(values.get(name)) for values in scores.values())] for name in names]
    table = _table(head, rows) if rows else ""
    report = files.directory.report
    link = f"<p><a href='{escape(report.as_uri())}'>{escape(str(report))}</a></p>" if report.exists() else ""
    return f"<div {_FONT}><p><b>{escape(files.name)}</b></p>{told}{table}{link}</div>"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th scope='col'>{escape(cell)}</th>" for cell in head)
    body = "".join(
        f"<tr><th scope='row'>{escape(row[0])}</th>" + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:]) + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def _alone(svg: str) -> str:
    """A figure with the style and the title that the report's page would give it."""
    box = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)
    assert box is not None
    width, height = map(float, box.groups())
    caption = f'<text class="name" x="4" y="-8" style="font-weight:600">{escape(_title(svg))}</text>'
    opened = svg.replace(
        f'viewBox="0 0 {width:g} {height:g}"',
        f'xmlns="http://www.w3.org/2000/svg" viewBox="0 -26 {width:g} {height + 26:g}" '
        f'width="{width:g}" height="{height + 26:g}"',
        1,
    )
    return opened.replace("</desc>", f"</desc><style>{_style()}</style>{caption}", 1)


def _style() -> str:
    """Of the report's style sheet the colours, light and dark, and what is said of drawings."""
    whole = style_sheet()
    colours = whole[: whole.index("*, *::before")]
    rules = [line for line in whole.splitlines() if line.startswith("svg ")]
    return colours + "\n".join(rules)


def _title(svg: str) -> str:
    return unescape(svg.split("<title>", 1)[1].split("</title>", 1)[0])


def _image(svg: str) -> str:
    """As an image, so that neither the notebook's styles nor ours reach the other."""
    described = re.search(r"<desc>(.*?)</desc>", svg, re.S)
    words = f"{escape(_title(svg))}. {described[1] if described else ''}"
    coded = base64.b64encode(svg.encode("utf-8")).decode()
    return f'<img alt="{words}" style="width:100%" src="data:image/svg+xml;base64,{coded}">'
