"""What the remote writes about a computation: per fold and over all folds, where COINSTAC's users look for it."""

from __future__ import annotations

import csv
import io
import json
import math
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from weft.interop.coinstac.config.keys import Key
from weft.report.charts import Axes, Series, line_chart
from weft.report.page import style_sheet
from weft.runs import write_atomically

Lines = Sequence[Sequence[float]]


def write_fold(folder: Path, log_header: str, report: Mapping[str, Any], cache: Mapping[str, Any]) -> None:
    """Logs, plots and test scores of a fold.

    Args:
        folder: of the fold, made here.
        log_header: names of the columns; `|` stands between plots.
        report: as `SiteRun.report` gives it.
        cache: the remote's, of plain values.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for key in (Key.TRAIN_LOG, Key.VALIDATION_LOG):
        lines = report.get(key.value) or []
        write_table(folder / f"{key}.csv", log_header, lines)
        plot(folder, key.value, log_header, lines)
    if "test_metrics" in report:  # no site has test items otherwise
        write_table(folder / f"{Key.TEST_METRICS}.csv", log_header, [report["test_metrics"]])
    content = {**cache, **{key: value for key, value in report.items() if key != "test_sums"}}
    write_atomically(folder / "logs.json", json.dumps(content, indent=1).encode())


def clear(folder: Path) -> None:
    """Remove the folds that an earlier computation of the same name wrote."""
    for fold in folder.glob("fold_*"):
        shutil.rmtree(fold)
    (folder / f"{Key.GLOBAL_TEST_METRICS}.csv").unlink(missing_ok=True)


def write_table(file: Path, log_header: str, lines: Lines) -> None:
    """Scores as a table."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(columns_of(log_header))
    table.writerows(lines)
    write_atomically(file, text.getvalue().encode())


def columns_of(log_header: str) -> list[str]:
    """The names of the columns."""
    return [name.strip() for part in log_header.split("|") for name in part.split(",")]


def plot(folder: Path, name: str, log_header: str, lines: Lines) -> None:
    """Curves over epochs, a file for each part of the header between `|`."""
    start = 0
    for number, part in enumerate(log_header.split("|")):
        names = [word.strip() for word in part.split(",")]
        curves = [
            Series(label, [(float(epoch + 1), _number(line, start + place)) for epoch, line in enumerate(lines)], place)
            for place, label in enumerate(names)
        ]
        start += len(names)
        drawn = line_chart(name.replace("_", " "), curves, Axes("epoch", whole_x=True))
        if drawn:
            write_atomically(folder / f"{name}_{number}.svg", _alone(drawn).encode())


def write_results(output: Path, transfer: Path, task: str, engine: str) -> str:
    """Put everything that was written about a computation into one archive for all sites.

    Returns:
        its name, without `.zip`.
    """
    name = f"{task}_{engine}_{time.strftime('%Y-%m-%d_%H-%M-%S')}"
    transfer.mkdir(parents=True, exist_ok=True)
    shutil.make_archive(str(transfer / name), "zip", output / task)
    return name


def _alone(figure: str) -> str:
    """A figure of a page as a file of its own."""
    head, _, rest = figure.partition(">")
    head = head.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    return f"{head}><style><![CDATA[{style_sheet()}svg {{ background: var(--card); }}]]></style>{rest}"


def _number(line: Sequence[float], place: int) -> float:
    return float(line[place]) if place < len(line) and line[place] is not None else math.nan
