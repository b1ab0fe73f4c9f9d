"""Scores in files: `scores/<split>.json` for programs and the report, `scores/<split>.csv` with a row per case."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from weft.engine.run import SplitScores
from weft.engine.weights import save_weights
from weft.metrics import ScoreBook
from weft.runs import write_atomically, write_json
from weft.runs.files import explained


def write_scores(folder: Path, name: str, split: SplitScores, weights_sha256: str | None) -> None:
    """Write the scores of a split and of its cases."""
    with explained(folder, kept="everything written before"):
        folder.mkdir(parents=True, exist_ok=True)
    content = {"split": name, "scores": split.scores, "details": split.details, "weights_sha256": weights_sha256}
    write_json(folder / f"{name}.json", content)
    if split.rows:
        write_table(folder / f"{name}.csv", split.rows)


def write_states(folder: Path, name: str, book: ScoreBook) -> None:
    """Write what the scores of a split are made of, so that several runs (folds) can be pooled exactly."""
    tensors = {f"sum.{number}": state for number, state in enumerate(book.pooled_states())}
    tensors |= {f"gathered.{number}": part for number, part in enumerate(book.pooled_gatherable() or [])}
    save_weights(tensors, folder / f"{name}.safetensors")


def write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows as CSV, whole or not at all; columns in order of appearance."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: "" if value is None else value for key, value in row.items()} for row in rows)
    write_atomically(path, text.getvalue().encode())
