"""The run directory: its layout, the history of a run, where it came from, and the table of all runs beside it."""

from weft.runs.directory import RunDirectory, is_run, new_run_path
from weft.runs.files import sweep, write_atomically
from weft.runs.jsonfiles import read_json, write_json
from weft.runs.tables import TIMING_COLUMNS, History, Row, StepLog, read_rows

__all__ = [
    "TIMING_COLUMNS",
    "History",
    "Row",
    "RunDirectory",
    "StepLog",
    "is_run",
    "new_run_path",
    "read_json",
    "read_rows",
    "sweep",
    "write_atomically",
    "write_json",
]
