"""The run directory: which file of a run lies where."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import time
import unicodedata
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from weft.errors import RunDirectoryError
from weft.runs.files import explained, sweep
from weft.runs.jsonfiles import read_json, write_json
from weft.runs.lock import RunLock
from weft.runs.tables import History, StepLog

_LOCK_NAME = ".lock"
_BEGINNINGS = ("experiment.yaml", "ledger.jsonl", "scenario.yaml")  # anyone's, unless a lock lies beside
_MARKS = ("provenance.json", "summary.json", "result.json")  # a folder with one of these holds a run
_FOLDERS = ("code", "tensorboard", "checkpoints", "scores", "predictions")
_FOLD = re.compile(r"^fold-(\d+)$")


class RunDirectory:
    """A run directory; its attributes are the paths of its files, whether they exist yet or not.

    Use `RunDirectory.create` for a new run and `RunDirectory.open` for one that exists. As a context manager it gives
    its lock back at the end.
    """

    def __init__(self, path: Path) -> None:
        self.path = path = Path(os.path.abspath(path))
        self.experiment_file = path / "experiment.yaml"
        self.provenance_file = path / "provenance.json"
        self.code = path / "code"
        self.requirements = path / "requirements.txt"
        self.weights = path / "model.safetensors"
        self.history_file = path / "history.csv"
        self.steps_file = path / "steps.csv"
        self.tensorboard = path / "tensorboard"
        self.checkpoints = path / "checkpoints"
        self.scores = path / "scores"
        self.predictions = path / "predictions"
        self.report = path / "report.html"
        self.result_file = path / "result.json"
        self.summary_file = path / "summary.json"
        self.log_file = path / "log.txt"
        self.data_file = path / "data.json"
        self.splits_file = path / "splits.json"
        self.statistics_file = path / "statistics.json"
        self.profile_file = path / "profile.json"
        self.sites = path / "sites"
        self.sites_profile_file = path / "profile.csv"
        self.agreed_file = path / "agreed.json"
        self.left_file = path / "left.json"
        self.scenario_file = path / "scenario.yaml"
        self.ledger_file = path / "ledger.jsonl"
        self.hub_file = path / "hub.json"
        self.own_history_file = path / "own.csv"
        self._lock = RunLock(path / _LOCK_NAME)

    @classmethod
    def create(cls, path: str | Path) -> Self:
        """Begin a run in a new or empty folder and lock it.

        Raises:
            RunDirectoryError: the folder holds something (a run, or anything else), cannot be written, or is in use.
        """
        run = cls(Path(path))
        with explained(run.path, kept="nothing was written"):
            if run.path.is_dir():
                run._refuse_if_used()
            run.path.mkdir(parents=True, exist_ok=True)
        run.lock()
        try:
            run._refuse_if_used()  # again, now that nobody else can be about to fill it
            with explained(run.path, kept="nothing was written"):
                for folder in ("checkpoints", "scores"):
                    (run.path / folder).mkdir(exist_ok=True)
        except BaseException:
            run.unlock()
            raise
        return run

    @classmethod
    def open(cls, path: str | Path, *, writing: bool = False) -> Self:
        """Open the directory of an earlier run.

        Args:
            path: the folder.
            writing: lock it, and remove temporary files that a killed process left (for resuming).

        Raises:
            RunDirectoryError: there is no run (the message says what is there instead), or it is in use.
        """
        run = cls(Path(path))
        if not is_run(run.path):
            raise RunDirectoryError(*_explain_no_run(run.path))
        if writing:
            run.lock()
            for folder in (run.path, run.checkpoints, run.scores, run.predictions):
                sweep(folder)
        return run

    def lock(self) -> None:
        """Become the only process that writes here; harmless when it already is.

        Raises:
            RunDirectoryError: another process is writing; it is named.
        """
        self._lock.acquire()

    def unlock(self) -> None:
        """Let others write here; also happens when the process ends, however it ends."""
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.unlock()

    def __repr__(self) -> str:
        return f"RunDirectory({str(self.path)!r})"

    def history(self) -> History:
        """The history for writing (a damaged end is cut off); to look at a run, `read_rows(run.history_file)`."""
        return History(self.history_file)

    def steps(self) -> StepLog:
        """The log of steps for writing."""
        return StepLog(self.steps_file)

    def fold(self, number: int) -> Path:
        """The folder of one fold of a k-fold run.

        Args:
            number: the fold, counted from 1.
        """
        return self.path / f"fold-{number}"

    def folds(self) -> list[Path]:
        """The folds that exist, in order; none for an ordinary run."""
        found = [(int(match[1]), entry) for entry in self.path.glob("fold-*") if (match := _FOLD.match(entry.name))]
        return [entry for _, entry in sorted(found)]

    def read_json(self, path: str | Path) -> Any:
        """Read a JSON file of the run, by its path or its name relative to the run."""
        return read_json(self.path / path)

    def write_json(self, path: str | Path, value: object) -> None:
        """Write a JSON file of the run, whole or not at all; NaN becomes null."""
        target = self.path / path
        with explained(target, kept="everything written before"):
            target.parent.mkdir(parents=True, exist_ok=True)
        write_json(target, value)

    def result(self) -> dict[str, Any] | None:
        """What came out (result.json); None while the run has not ended.

        Raises:
            RunDirectoryError: the file is damaged.
        """
        if not self.result_file.exists():
            return None
        result = self.read_json(self.result_file)
        if not isinstance(result, dict):
            raise RunDirectoryError(f"{self.result_file} is not a JSON object", "remove it and resume the run")
        return result

    def write_result(self, result: dict[str, Any]) -> None:
        """Write what came out (result.json)."""
        self.write_json(self.result_file, result)

    def missing(self) -> list[str]:
        """What a finished run would have and this one has not, by file name."""
        expected = (
            self.experiment_file,
            self.provenance_file,
            self.data_file,
            self.splits_file,
            self.history_file,
            self.weights,
            self.result_file,
            self.report,
        )
        return [path.name for path in expected if not path.exists()]

    def _refuse_if_used(self) -> None:
        if is_run(self.path):
            raise RunDirectoryError(
                f"{self.path} already holds a run", "go on with it by --resume, or choose another folder with --out"
            )
        strangers = sorted(entry.name for entry in self.path.iterdir() if not _is_leftover(entry))
        if strangers:
            shown = ", ".join(strangers[:5]) + (", …" if len(strangers) > 5 else "")
            raise RunDirectoryError(
                f"{self.path} is not empty and is not a run; it holds {shown}",
                "choose a new or empty folder with --out; nothing was changed there",
            )


def is_run(path: str | Path) -> bool:
    """Whether a folder holds a run or a study, at least its beginning."""
    path = Path(path)
    begun = (path / _LOCK_NAME).is_file() and any((path / name).is_file() for name in _BEGINNINGS)
    return begun or any((path / mark).is_file() for mark in _MARKS)


def study_of(path: str | Path) -> Path | None:
    """The study that a folder is, also one of folds, or is a site of; None where it is neither."""
    path = Path(path)
    if (path / "sites").is_dir() or any(path.glob("fold-*/sites")):
        return path
    above = Path(os.path.abspath(path)).parent
    return above.parent if above.name == "sites" and is_run(above.parent) else None


def resume_command(path: str | Path) -> str:
    """The command that goes on with a run, to be pasted into a shell."""
    if (study := study_of(path)) is not None:
        return f"weft federate simulate --resume {shlex.quote(str(study))}"
    return f"weft train --resume {shlex.quote(str(path))}"


def new_run_path(root: str | Path, name: str) -> Path:
    """Make a new empty folder for a run, e.g. `runs/breast-cancer-20261120-093012`; no two callers get the same one.

    Args:
        root: the folder that holds the runs; made where it does not exist.
        name: the experiment's name, in any spelling.

    Raises:
        RunDirectoryError: the folder cannot be made.
    """
    root = Path(root)
    stem = f"{_slug(name)}-{time.strftime('%Y%m%d-%H%M%S')}"
    with explained(root, kept="nothing was written"):
        root.mkdir(parents=True, exist_ok=True)
        number = 1
        while True:
            path = root / (stem if number == 1 else f"{stem}-{number}")
            try:
                path.mkdir()  # fails where it exists, for all but one of those that try at the same time
                return path
            except FileExistsError:
                number += 1


def job_run_path(root: str | Path, name: str, job: str) -> Path:
    """The folder for the run of a launcher's job, the same at every start of the job; it is not made.

    Args:
        root: the folder that holds the runs.
        name: the experiment's name, in any spelling.
        job: what names the job; ids that a folder cannot be called get a digest of theirs.
    """
    told = job if re.fullmatch(r"[\w-]{1,60}", job, re.ASCII) else hashlib.sha256(job.encode()).hexdigest()[:16]
    return Path(root) / f"{_slug(name)}-{told}"


def _slug(name: str) -> str:
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", ascii_name.lower()).strip("-")[:60].rstrip("-") or "run"


def _is_leftover(entry: Path) -> bool:
    """Whether this is what a run leaves that was killed before it wrote anything."""
    if entry.name in (_LOCK_NAME, "log.txt") or (entry.name.startswith(".") and entry.name.endswith(".tmp")):
        return True
    return entry.name in _FOLDERS and entry.is_dir() and not any(entry.iterdir())


def _explain_no_run(path: Path) -> tuple[str, str]:
    if not path.exists():
        return f"there is no run at {path}: the folder does not exist", _suggest(path.parent)
    if not path.is_dir():
        return f"{path} is a file, not a run directory", f"did you mean its folder, {path.parent}?"
    if all(_is_leftover(entry) for entry in path.iterdir()):
        return f"{path} is empty: no run has begun here", "start it without --resume"
    return f"{path} is not a run: it has none of {', '.join(_MARKS)}", _suggest(path)


def _suggest(folder: Path) -> str:
    runs = sorted((entry for entry in folder.iterdir() if is_run(entry)), key=_age) if folder.is_dir() else []
    if not runs:
        return "give the folder that `weft train` printed"
    return "runs near there, newest first: " + ", ".join(str(run) for run in runs[:5])


def _age(path: Path) -> float:
    return -path.stat().st_mtime
