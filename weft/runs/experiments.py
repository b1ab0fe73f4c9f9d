"""experiments.csv, beside the runs: a row per run with its configuration and final scores, to sort, filter and plot."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from weft.errors import RunDirectoryError
from weft.runs.files import write_atomically
from weft.runs.jsonfiles import plain
from weft.runs.lock import locked
from weft.runs.secrets import MASK, is_secret_name, mask

TABLE_NAME = "experiments.csv"
_FROM_RESULT = ("status", "fingerprint", "epochs", "steps", "seconds", "best_epoch", "model_sha256")
_LONGEST_CELL = 10_000  # characters; CSV readers give up at 128 Ki, spreadsheets at 32 Ki
_FIRST_COLUMNS = ("run", *_FROM_RESULT)


def append_experiment_row(run_path: Path, configuration: Mapping[str, Any], result: Mapping[str, Any]) -> Path:
    """Add a run to the experiments.csv beside it; the row of the same run (resumed, trained again) is replaced.

    Safe when many runs end at once: writers wait for each other, and the table is written whole or not at all. Columns
    grow with what the runs have.

    Args:
        run_path: the run directory; its name is the row's key.
        configuration: the experiment as nested dicts; columns are dotted keys. Secrets are masked.
        result: as in result.json; its scores become columns `validation.accuracy` and so on.

    Returns:
        the table's path.

    Raises:
        RunDirectoryError: the table cannot be written, or is not one of ours. The run itself is not affected.
    """
    run_path = Path(run_path).absolute()
    table = run_path.parent / TABLE_NAME
    row = {"run": run_path.name, **_row(configuration, result)}
    with locked(table.with_name(f".{TABLE_NAME}.lock")):
        rows = [other for other in _read(table) if other.get("run") != row["run"]]
        _write(table, [*rows, row])
    return table


def flatten(value: object, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield (dotted key, value) of nested dicts; lists stay one value, as JSON."""
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from flatten(item, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(value, Mapping | list | tuple):
        yield prefix, json.dumps(value, ensure_ascii=False)
    else:
        yield prefix, value


def _row(configuration: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, str]:
    values: dict[str, object] = {name: result.get(name) for name in _FROM_RESULT}
    values |= dict(flatten(plain(result.get("scores") or {})))
    values |= {key: _masked(key, value) for key, value in flatten(plain(configuration))}
    return {key: _cell(value) for key, value in values.items()}


def _masked(key: str, value: object) -> object:
    if not isinstance(value, str):
        return value
    return MASK if is_secret_name(key) else mask(value)


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    text = repr(value) if isinstance(value, float) else str(value)
    return text if len(text) <= _LONGEST_CELL else text[:_LONGEST_CELL] + "…"


def _read(table: Path) -> list[dict[str, str]]:
    if not table.exists():
        return []
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:  # spreadsheets save with a byte-order mark
            reader = csv.DictReader(file, strict=True)
            rows = [{key: value or "" for key, value in row.items() if key is not None} for row in reader]
            columns = list(reader.fieldnames or [])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise RunDirectoryError(f"cannot read {table}: {error}", "move it away; a new one will be begun") from error
    if columns and "run" not in columns:
        raise RunDirectoryError(
            f"{table} has no column 'run', but {', '.join(columns[:5])}",
            "it was made or changed by another program: move it away; a new one will be begun",
        )
    return rows


def _write(table: Path, rows: list[dict[str, str]]) -> None:
    columns = list(dict.fromkeys([*_FIRST_COLUMNS, *(key for row in rows for key in row)]))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(table, text.getvalue().encode("utf-8"))
