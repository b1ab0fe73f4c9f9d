"""The run directory: its layout, the history of a run, where it came from, and the table of all runs beside it."""

from weft.runs.files import sweep, write_atomically

__all__ = ["sweep", "write_atomically"]
