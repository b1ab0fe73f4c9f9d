"""Training a run again, from its own directory, and comparing what came out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from weft.actions.opening import OpenedRun, open_run
from weft.actions.single import train_one
from weft.errors import UsageError
from weft.runs import TIMING_COLUMNS, causes, new_run_path, read_rows, resume_command, study_of


@dataclass(slots=True)
class Comparison:
    """Two runs of one experiment.

    Args:
        first, second: their directories.
        weights_identical: the weights are the same to the bit.
        history_identical: the histories are the same, timing columns aside.
        differences: what differs in scores, (name, first, second).
        causes: what differs in data, code, packages or hardware.
    """

    first: Path
    second: Path
    weights_identical: bool
    history_identical: bool
    differences: list[tuple[str, float, float]] = field(default_factory=list)
    causes: list[str] = field(default_factory=list)

    @property
    def identical(self) -> bool:
        """Weights, history and scores are the same."""
        return self.weights_identical and self.history_identical and not self.differences

    def lines(self) -> Iterator[str]:
        """For people."""
        yield f"{'identical' if self.identical else 'different'}: {self.first} and {self.second}"
        yield f"  weights {'the same to the bit' if self.weights_identical else 'differ'}"
        yield f"  history {'the same' if self.history_identical else 'differs'}"
        for name, first, second in self.differences:
            yield f"  {name}: {first!r} and {second!r}"
        for cause in self.causes:
            yield f"  differs: {cause}"
        if not self.identical and not self.causes:
            yield "  nothing that was recorded explains it: look for randomness that is not seeded, or unstable kernels"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "identical": self.identical, "first": str(self.first), "second": str(self.second),
            "weights_identical": self.weights_identical, "history_identical": self.history_identical,
            "differences": [list(difference) for difference in self.differences], "causes": self.causes,
        }  # fmt: skip


def reproduce(
    run: Path | str,
    overrides: Sequence[str] = (),
    *,
    out: Path | str | None = None,
    base: Path | str | None = None,
) -> Comparison:
    """Train a run again with its experiment, its patches and the data, and compare weights, history and scores.

    Args:
        run: directory of a finished run.
        overrides: `key=value` texts, e.g. where the data lie now or `run.device=cpu`; what they change of the
            experiment itself is named among the causes of a difference.
        out: directory of the new run; by default a new one beside it.
        base: folder that relative paths of the data start from now; by default where they did.

    Returns:
        the comparison; `identical` says whether weights, history and scores are the same to the bit.

    Raises:
        UsageError: the run did not finish, or holds folds.
        ConfigError, DataError: its data or code are gone.
        RunDirectoryError: there is no run, or the new one cannot be written.
    """
    if study_of(run) is not None:
        raise UsageError(
            f"{run} belongs to a study, whose sites train together",
            "run its file again with weft federate simulate FILE --out NEW, and look at both with weft compare",
        )
    opened = open_run(run, overrides, base=base)
    done = opened.directory.result()
    if done is None or done.get("status") != "finished":
        raise UsageError(f"{run} did not finish, so there is nothing to compare with", resume_command(run))
    path = (
        Path(out)
        if out is not None
        else new_run_path(opened.directory.path.parent, opened.directory.path.name + "-again")
    )
    threads = opened.provenance["run_threads"]
    if any(text.startswith("run.threads=") for text in overrides):
        threads = opened.experiment.run.threads
    settings = opened.experiment.run.model_copy(update={"threads": threads})
    experiment = opened.experiment.model_copy(update={"run": settings})
    again = train_one(experiment, path, ())
    return compare_outcomes(opened, done, open_run(again.path), again.result)


def compare_outcomes(first: OpenedRun, done: dict[str, Any], second: OpenedRun, again: dict[str, Any]) -> Comparison:
    """Compare two finished runs of one experiment."""
    comparison = Comparison(
        first.directory.path,
        second.directory.path,
        weights_identical=done["model_sha256"] == again["model_sha256"],
        history_identical=_history(first) == _history(second),
    )
    for split, scores in done["scores"].items():
        for name, value in scores.items():
            other = again["scores"].get(split, {}).get(name)
            if not _same(value, other):
                comparison.differences.append((f"{split} {name}", value, other))
    if not comparison.identical:
        comparison.causes = list(causes(first.directory.path, second.directory.path))
    return comparison


def _history(opened: OpenedRun) -> list[dict[str, Any]]:
    rows = read_rows(opened.directory.history_file)
    return [{key: repr(value) for key, value in row.items() if key not in TIMING_COLUMNS} for row in rows]


def _same(first: Any, second: Any) -> bool:
    if isinstance(first, float) and isinstance(second, float) and math.isnan(first) and math.isnan(second):
        return True
    return bool(first == second)
