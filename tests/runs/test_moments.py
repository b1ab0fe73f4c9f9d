"""Runs of one command look at what they share once."""

from pathlib import Path

from weft.runs import collect_provenance, one_moment
from weft.runs.moments import looked_at_once


def test_within_a_moment_a_function_is_called_once_for_the_same_arguments() -> None:
    called = []

    @looked_at_once
    def look(name: str) -> int:
        called.append(name)
        return len(called)

    with one_moment():
        assert (look("a"), look("b"), look("a")) == (1, 2, 1)
        with one_moment():  # the outer one holds
            assert look("a") == 1
    assert look("a") == 3
    assert look("a") == 4
    with one_moment():
        assert look("a") == 5


def test_an_error_is_not_kept() -> None:
    answers = iter([ValueError("not yet"), 5])

    @looked_at_once
    def look() -> int:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    with one_moment():
        try:
            look()
        except ValueError:
            pass
        assert look() == 5


def test_provenance_is_the_same_inside_and_outside_of_a_moment(tmp_path: Path) -> None:
    outside = collect_provenance("f" * 64, {"seed": 1}, ["weft"], folder=tmp_path)
    with one_moment():
        inside = [collect_provenance("f" * 64, {"seed": 1}, ["weft"], folder=tmp_path) for _ in range(2)]
    for found in inside:
        assert {**found, "started": ""} == {**outside, "started": ""}
