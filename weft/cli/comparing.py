"""A comparison of runs as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from weft.report.comparepage import between, data_sentences, grouped, p_value, reading, signed, split_packages, summary
from weft.report.comparingscores import ComparedScore, ScoreComparison
from weft.report.comparison import RunComparison
from weft.report.words import duration, label, plural, score, shortened
from weft.runs import Difference

_LONGEST = 60  # letters of a value
_MANY = 3  # runs; values of more are listed with the runs that have them


def lines(comparison: RunComparison) -> Iterator[str]:
    """The comparison, line by line."""
    yield from summary(comparison)
    yield from _heading("Runs")
    rows = []
    for number, run in enumerate(comparison.runs, start=1):
        seconds = duration(run.seconds) if run.seconds is not None else "–"
        epochs = f"{run.epochs} epochs" if run.epochs is not None else ""
        rows.append([str(number), str(run.path), run.model or "–", epochs, seconds, run.status])
    yield from table([], rows)
    yield from _differences("Configuration", comparison.configuration)
    yield from _data(comparison)
    yield from _code(comparison)
    changed, partial = split_packages(comparison.environment)
    if changed or not partial:
        yield from _differences("Environment", changed)
    else:
        yield from _heading("Environment")
    if partial:
        names = [one.key.removeprefix("packages.") for one in partial]
        more = ", …" if names[8:] else ""
        yield f"  {plural(len(names), 'package')} not installed in all: {', '.join(names[:8])}{more}"
    if comparison.scores is not None:
        yield from _scores(comparison.scores)
    if comparison.notes:
        yield from _heading("What could not be read")
        yield from (f"  {note}" for note in comparison.notes)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Rows with columns below each other, indented; the first column is aligned to the left, with a head all others to
    the right."""
    everything = [list(head), *rows] if head else list(rows)
    widths = [max(len(row[index]) for row in everything) for index in range(len(everything[0]))]
    for row in everything:
        cells = [
            cell.ljust(width) if not index or not head else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths))
        ]
        yield ("  " + "  ".join(cells)).rstrip()


def _heading(title: str) -> Iterator[str]:
    yield ""
    yield title


def _differences(title: str, differences: Sequence[Difference]) -> Iterator[str]:
    yield from _heading(title)
    if not differences:
        yield "  the same"
        return
    if len(differences[0].values) > _MANY:
        for one in differences:
            yield f"  {one.key}: {grouped(one.values, _told)}"
        return
    head = ["", *(f"run {number}" for number in range(1, len(differences[0].values) + 1))]
    yield from table(head, [[one.key, *(_told(value) for value in one.values)] for one in differences])


def _told(value: object) -> str:
    text = "–" if value is None else str(shortened(value)).replace("\n", " ")
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _data(comparison: RunComparison) -> Iterator[str]:
    yield from _heading("Data")
    sentences = [" ".join(data_sentences(change)) for change in comparison.data]
    if len(set(sentences)) == 1 and len(sentences) > 1:
        yield f"  all: {sentences[0]}"
        return
    for number, sentence in enumerate(sentences, start=2):
        yield f"  run {number}: {sentence}"


def _code(comparison: RunComparison) -> Iterator[str]:
    yield from _differences("Code", comparison.code)
    for number, (files, patches) in enumerate(zip(comparison.weft_files, comparison.patches), start=2):
        if files:
            more = ", …" if files[4:] else ""
            yield f"  run {number}: {plural(len(files), 'file')} of Weft: {', '.join(files[:4])}{more}"
        for patch in patches:
            yield f"  run {number}: {patch.name}: {patch.added} lines added, {patch.removed} removed"


def _scores(scores: ScoreComparison) -> Iterator[str]:
    yield from _heading(f"Scores, {scores.split}")
    head = ["run", "cases", *(label(one.name) for one in scores.scores)]
    rows = []
    for run, cases in enumerate(scores.cases):
        cells = [score(one.values[run]) for one in scores.scores]
        rows.append([str(run + 1), f"{cases:,}" if cases is not None else "–", *cells])
    yield from table(head, rows)
    tests = [_test_row(one, run) for one in scores.scores for run in range(len(scores.cases)) if one.tests[run]]
    if tests:
        yield from _heading("Differences from run 1, paired on the same cases")
        yield from table(["score", "run", "difference", "95 %", "p", "p, Holm", "test", ""], tests)
    yield ""
    yield from reading(scores)


def _test_row(one: ComparedScore, run: int) -> list[str]:
    test = one.tests[run]
    assert test is not None
    p, corrected = p_value(test.p), p_value(one.corrected[run])
    return [
        label(one.name),
        str(run + 1),
        signed(test.difference),
        between(test),
        p,
        corrected,
        test.method,
        one.verdict(run),
    ]
