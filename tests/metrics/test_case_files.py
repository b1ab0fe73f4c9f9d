"""Tables of cases are read as they were written, whatever stands in their cells."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from weft.actions.scores import write_table
from weft.errors import DataError
from weft.metrics.casetable import read_cases

CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\x00\r"), max_size=6) | st.sampled_from(
    ["", ",", '"', "\n", "\r\n", "a,b", "1.5"]
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(CELLS, CELLS, st.floats(allow_nan=False)), min_size=1, max_size=5))
def test_every_cell_comes_back(rows: list[tuple[str, str, float]], tmp_path: Path) -> None:
    file = tmp_path / "cases.csv"
    write_table(file, [{"case": case, "target": target, "loss": loss} for case, target, loss in rows])
    table = read_cases(file)
    assert table is not None
    assert list(zip(table.texts("case"), table.texts("target"))) == [(case, target) for case, target, _ in rows]
    assert table.numbers("loss").tolist() == [loss for *_, loss in rows]


def test_an_empty_cell_is_no_number(tmp_path: Path) -> None:
    (tmp_path / "cases.csv").write_text("case,dice\na,0.5\nb,\n")
    table = read_cases(tmp_path / "cases.csv")
    assert table is not None
    assert table.numbers("dice").tolist()[0] == 0.5
    assert table.numbers("dice").tolist()[1] != table.numbers("dice").tolist()[1]


@pytest.mark.parametrize(
    "text", ["case,target\na,1\nb\n", "case,target\na\nb\n", 'case,target\n"a",1,2\n', "name,target\na,1\n", "\n"]
)
def test_a_damaged_table_says_so(text: str, tmp_path: Path) -> None:
    (tmp_path / "cases.csv").write_text(text)
    with pytest.raises(DataError, match=r"cases\.csv is damaged"):
        read_cases(tmp_path / "cases.csv")


@pytest.mark.parametrize("text", ["case,target\n", "case,target"])
def test_a_head_alone_is_an_empty_table(text: str, tmp_path: Path) -> None:
    (tmp_path / "cases.csv").write_text(text)
    assert read_cases(tmp_path / "cases.csv") is None
