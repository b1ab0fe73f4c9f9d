"""Runs beside each other: what differs between them, and whether their scores do, on the same cases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from weft.errors import UsageError
from weft.report.comparingscores import ScoreComparison, compare_scores
from weft.report.reading import RunFiles, read_run
from weft.report.sections import final_scores
from weft.report.words import component_name
from weft.runs import (
    DataChange,
    Difference,
    FileChange,
    RunRecord,
    changed_patches,
    changed_weft_files,
    code_differences,
    configuration_differences,
    data_change,
    environment_differences,
)


@dataclass(frozen=True, slots=True)
class ComparedRun:
    """A run that is compared: its name (the end of its path that tells it apart), its path, and how it ended."""

    name: str
    path: Path
    status: str
    model: str | None
    epochs: int | None
    seconds: float | None
    device: str | None


@dataclass(slots=True)
class RunComparison:
    """Runs beside each other; the first is what the others are compared with.

    Args:
        runs: in the order they were given.
        configuration, code, environment: entries that differ, with the value of each run.
        data: how the data of each run but the first differ.
        patches: files of the user's code that differ, of each run but the first.
        weft_files: files of Weft itself that differ, likewise.
        scores: final scores with paired tests; None where no split was scored by all.
        files: what was read, for figures.
        notes: what could not be read.
    """

    runs: list[ComparedRun]
    configuration: list[Difference]
    code: list[Difference]
    environment: list[Difference]
    data: list[DataChange]
    patches: list[list[FileChange]]
    weft_files: list[list[str]]
    scores: ScoreComparison | None
    files: list[RunFiles] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "runs": [{**asdict(run), "path": str(run.path)} for run in self.runs],
            "configuration": [asdict(one) for one in self.configuration],
            "data": [asdict(one) for one in self.data],
            "code": [asdict(one) for one in self.code],
            "patches": [[asdict(change) for change in changes] for changes in self.patches],
            "weft_files": self.weft_files,
            "environment": [asdict(one) for one in self.environment],
            "scores": asdict(self.scores) if self.scores is not None else None,
            "notes": self.notes,
        }


def compare_runs(paths: Sequence[Path], split: str | None = None) -> RunComparison:
    """Compare runs.

    Args:
        paths: run directories, of ordinary runs or of k folds; the first is the one to compare with.
        split: whose scores are tested; by default test, else validation, else what all have.

    Raises:
        RunDirectoryError: one of them is no run.
        UsageError: fewer than two runs, or the split was not scored by all.
    """
    if len(paths) < 2:
        raise UsageError("there is one run to compare", "give two or more: weft compare RUN RUN...")
    files = [read_run(path, whole=False) for path in paths]
    records = [RunRecord(one.directory.path, one.experiment, one.provenance, one.divisions) for one in files]
    code = code_differences(records)
    first, *others = records
    other_weft = any(one.key == "weft code" for one in code)
    chosen = _split(files, split)
    comparison = RunComparison(
        _runs(files),
        configuration_differences(records),
        code,
        environment_differences(records),
        [data_change(first, other) for other in others],
        [changed_patches(first.path, other.path) for other in others],
        [changed_weft_files(first.path, other.path) if other_weft else [] for other in others],
        compare_scores(files, chosen) if chosen is not None else None,
        files,
    )
    for run, one in zip(comparison.runs, files):
        comparison.notes += [f"{run.name}: {note}" for note in one.notes]
    return comparison


def _split(files: Sequence[RunFiles], wanted: str | None) -> str | None:
    """The split that tells most and that all have scores of."""
    scored = [final_scores(one) for one in files]
    common = [split for split in scored[0] if all(split in scores for scores in scored)]
    if wanted is None:
        return next((split for split in ("test", "validation", *common) if split in common), None)
    if wanted not in common:
        lacking = next(one for one, scores in zip(files, scored) if wanted not in scores)
        raise UsageError(
            f"{lacking.directory.path} has no scores of split '{wanted}'",
            f"all runs have {', '.join(common) or 'no split in common'}",
        )
    return wanted


def _runs(files: Sequence[RunFiles]) -> list[ComparedRun]:
    names = distinct_names([one.directory.path for one in files])
    found = []
    for name, one in zip(names, files):
        epochs, seconds = one.result.get("epochs"), one.result.get("seconds")
        found.append(
            ComparedRun(
                name,
                one.directory.path,
                str(one.result.get("status") or one.summary.get("status") or "unfinished"),
                component_name(one.experiment.get("model")),
                epochs if isinstance(epochs, int) else None,
                float(seconds) if isinstance(seconds, int | float) else None,
                one.provenance.get("device"),
            )
        )
    return found


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """The shortest ends of paths that tell them apart; a path given twice is numbered."""
    for length in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join(path.parts[-length:]) for path in paths]
        if len(set(names)) == len(set(paths)):
            break
    return [
        f"{name} ({names[: index + 1].count(name)})" if names.count(name) > 1 else name
        for index, name in enumerate(names)
    ]
