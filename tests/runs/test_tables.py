from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from weft.errors import UsageError
from weft.runs import TIMING_COLUMNS, History, StepLog, read_rows

REPOSITORY = Path(__file__).parents[2]
NAMES = st.text(st.characters(blacklist_categories=["Cs", "Cc"]), min_size=1, max_size=8)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.dictionaries(NAMES, st.floats(allow_nan=False) | st.integers(-(2**70), 2**70), min_size=1), max_size=6
    )
)
def test_any_numbers_read_back_to_the_same_bits_while_columns_grow(
    tmp_path: Path, rows: list[dict[str, float]]
) -> None:
    path = tmp_path / "history.csv"
    path.unlink(missing_ok=True)
    history = History(path)
    for row in rows:
        history.append(row)
    history.close()
    assert [repr(row) for row in map(_sorted, read_rows(path))] == [repr(_sorted(row)) for row in rows]
    again = History(path)
    assert [repr(_sorted(row)) for row in again.rows] == [repr(_sorted(row)) for row in rows]


def _sorted(row: dict[str, float]) -> dict[str, float]:
    return dict(sorted(row.items()))


def test_nan_infinity_text_and_numpy_numbers_round_trip(tmp_path: Path) -> None:
    history = History(tmp_path / "history.csv")
    history.append({"a": math.nan, "b": -math.inf, "c": 'say "a, b"', "d": numpy.float32(0.1), "e": numpy.int64(3)})
    row = next(read_rows(history.path))
    assert math.isnan(row.pop("a"))
    assert row == {"b": -math.inf, "c": 'say "a, b"', "d": float(numpy.float32(0.1)), "e": 3}
    assert type(row["e"]) is int


def test_an_empty_cell_means_no_value(tmp_path: Path) -> None:
    history = History(tmp_path / "history.csv")
    history.append({"epoch": 0, "validation_loss": None})
    history.append({"epoch": 1, "validation_loss": 0.5})
    assert list(read_rows(history.path)) == history.rows == [{"epoch": 0}, {"epoch": 1, "validation_loss": 0.5}]


def test_text_is_kept_as_written_when_a_column_is_added(tmp_path: Path) -> None:
    log = StepLog(tmp_path / "steps.csv")
    log.append({"step": 1, "note": "007"})
    log.append({"step": 2, "loss": 0.5})
    assert log.path.read_text() == "step,note,loss\n1,007,\n2,,0.5\n"


@pytest.mark.parametrize("torn", ["2,0.", "2", "2,0.25,", "\0\0\0\0\n", "2,0.5,7\n", '2,"0.5\n', "3,4\n5,6,7\n8,9\n"])
def test_a_damaged_end_is_cut_off_and_named(tmp_path: Path, torn: str, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "history.csv"
    path.write_text("epoch,loss\n0,1.0\n1,0.5\n" + torn)
    good = [{"epoch": 0, "loss": 1.0}, {"epoch": 1, "loss": 0.5}, {"epoch": 3, "loss": 4}][: 3 if torn[0] == "3" else 2]
    assert list(read_rows(path)) == good
    before = path.read_bytes()
    assert path.read_bytes() == before, "looking must not change the file"
    history = History(path)
    assert history.rows == good
    assert "cut off a damaged end" in caplog.text
    history.append({"epoch": 9, "loss": 0.1})
    assert list(read_rows(path)) == [*good, {"epoch": 9, "loss": 0.1}]


def test_a_torn_header_begins_a_new_table(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    path.write_text("epoch,lo")
    history = History(path)
    history.append({"epoch": 0})
    assert path.read_text() == "epoch\n0\n"


def test_restoring_makes_file_and_rows_those_of_the_checkpoint(tmp_path: Path) -> None:
    history = History(tmp_path / "history.csv")
    for epoch in range(5):
        history.append({"epoch": epoch, "loss": 1 / (epoch + 3)})
    kept = [dict(row) for row in history.rows[:3]]
    fresh = History(history.path)
    fresh.restore(kept)
    assert fresh.rows == kept == list(read_rows(history.path))
    fresh.append({"epoch": 3, "loss": 0.25})
    undisturbed = History(tmp_path / "undisturbed.csv")
    for row in fresh.rows:
        undisturbed.append(row)
    assert fresh.path.read_bytes() == undisturbed.path.read_bytes()
    fresh.restore([])
    assert fresh.rows == []
    assert list(read_rows(fresh.path)) == []


def test_the_step_log_forgets_the_steps_after_a_checkpoint(tmp_path: Path) -> None:
    log = StepLog(tmp_path / "steps.csv")
    log.truncate_after(10)
    for step in range(0, 100, 10):
        log.append({"step": step, "loss": step / 7})
    log.truncate_after(50)
    log.append({"step": 60, "loss": 1.0})
    assert [row["step"] for row in read_rows(log.path)] == [0, 10, 20, 30, 40, 50, 60]


def test_a_killed_process_leaves_whole_lines(tmp_path: Path) -> None:
    code = """
import sys, pathlib
from weft.runs import History
history = History(pathlib.Path(sys.argv[1]))
for epoch in range(10**9):
    history.append({"epoch": epoch, "loss": epoch / 3, f"column_{min(epoch // 50, 5)}": "x" * 50})
    if epoch == 200:
        print("go on", flush=True)
"""
    path = tmp_path / "history.csv"
    child = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, cwd=REPOSITORY)
    assert child.stdout is not None
    child.stdout.readline()
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert path.read_bytes().endswith(b"\n")
    rows = list(read_rows(path))
    assert len(rows) > 200
    assert all(row["epoch"] == index and row["loss"] == index / 3 for index, row in enumerate(rows))


@pytest.mark.parametrize("row", [{"a": "two\nlines"}, {"a": [1]}, {"a\nb": 1}])
def test_what_does_not_fit_in_a_cell_is_refused_by_name(tmp_path: Path, row: dict[str, object]) -> None:
    history = History(tmp_path / "history.csv")
    with pytest.raises(UsageError, match="a"):
        history.append(row)
    assert not history.path.exists()


def test_the_timing_columns_are_known() -> None:
    assert set(TIMING_COLUMNS) == {"seconds_train", "seconds_validation", "items_per_second"}
