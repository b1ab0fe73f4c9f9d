"""What the remote writes about a computation: per fold and over all folds, where COINSTAC's users look for it."""

from __future__ import annotations

import csv
import io
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from weft.interop.coinstac.config.keys import Key
from weft.interop.coinstac.plots import plot
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
    write_logs(folder, log_header, report)
    content = {**cache, **{key: value for key, value in report.items() if key != "test_sums"}}
    if "test_metrics" in report:  # no site has test items otherwise
        lines = content[Key.TEST_METRICS.value] = [report["test_metrics"]]  # a table, as the original keeps it
        write_table(folder / f"{Key.TEST_METRICS}.csv", log_header, lines)
    write_atomically(folder / "logs.json", json.dumps(content, indent=1).encode())


def write_logs(folder: Path, log_header: str, report: Mapping[str, Any]) -> None:
    """Logs of training and validation, and their plots; see `write_fold`."""
    folder.mkdir(parents=True, exist_ok=True)
    for key in (Key.TRAIN_LOG, Key.VALIDATION_LOG):
        lines = report.get(key.value) or []
        write_table(folder / f"{key}.csv", log_header, lines)
        plot(folder, key.value, log_header, lines)


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


def write_results(output: Path, transfer: Path, task: str, engine: str) -> str:
    """Put everything that was written about a computation into one archive for all sites.

    Returns:
        its name, without `.zip`.
    """
    name = f"{task}_{engine}_{time.strftime('%Y-%m-%d_%H-%M-%S')}"
    transfer.mkdir(parents=True, exist_ok=True)
    shutil.make_archive(str(transfer / name), "zip", output / task)
    return name
