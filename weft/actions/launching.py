"""Starting several processes on this machine that train together, and saying what became of them."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from weft.actions.launching_team import Team
from weft.actions.stopping import LAUNCHED, has_begun
from weft.engine.processes import find_place
from weft.errors import EXIT_RESUMABLE, EXIT_USAGE, Stopped, UsageError, WeftError
from weft.monitor.heartbeat import SIGNS, Failure, Signs
from weft.runs import RunDirectory, is_run, resume_command

logger = logging.getLogger("weft")

# Not what cannot be read: a file system that is far away may have stumbled.
_WOULD_HAPPEN_AGAIN = ("NotFiniteError", "ProtocolError", "UnlikeDataError")


def launch(
    arguments: Sequence[str],
    run: Path,
    *,
    processes: int,
    restarts: int = 0,
    fewest: int | None = None,
    device: str = "auto",
) -> None:
    """Run `weft ARGUMENTS` in several processes until they end.

    SIGTERM and SIGINT are handed on, and the processes stop together at a step boundary. When this process dies, they
    notice and do the same.

    Args:
        arguments: of the command, such that it goes on with `run` where that exists already.
        run: the run directory that they share.
        processes: how many.
        restarts: how often all are started again, from the last checkpoint, when one of them fails.
        fewest: how few may go on when as many cannot (see `next_count`); None for always as many.
        device: `run.device`: GPUs that go while the run uses none do not matter.

    Raises:
        Stopped: the run was asked to stop and can be resumed.
        WeftError: it failed; the process that failed first is named with its last step.
        UsageError: `fewest` without restarts, or more than `processes`.
    """
    _check_fewest(fewest, processes, restarts)
    count, gpus = processes, _gpus(device)
    with tempfile.TemporaryDirectory(prefix="weft-") as folder, _handed_on() as signals:
        for attempt in range(restarts + 1):
            saved = _saved(run)
            signs = Signs(Path(folder) / str(attempt))
            signs.folder.mkdir()
            team = Team(arguments, count, attempt, signs)
            try:
                codes = team.wait(signals)
            finally:
                team.end()
            if not any(codes):
                return
            if signals or EXIT_RESUMABLE in codes:
                raise _stopped(run, signals, codes)
            failure = team.diagnosis()
            if attempt == restarts or failure.code == EXIT_USAGE or failure.kind in _WOULD_HAPPEN_AGAIN:
                raise _failed(run, failure, signs)
            before, gpus_before, gpus = count, gpus, _gpus(device)
            count = next_count(
                count, fewest if fewest is not None else processes,
                stuck=attempt > 0 and failure.is_loss and _saved(run) == saved, gone=gpus_before - gpus,
            )  # fmt: skip
            logger.warning(
                "process %d %s: starting all again%s (%d of %d restarts)",
                failure.rank, words_of(failure, signs), f", as {count} instead of {before}" if count < before else "",
                attempt + 1, restarts,
            )  # fmt: skip


def next_count(count: int, fewest: int, *, stuck: bool, gone: int) -> int:
    """With how many processes a run goes on after one was lost.

    Args:
        count: how many there were.
        fewest: how few there may be.
        stuck: this was a restart, and it got no further than the checkpoint that it began from: as many again will
            hardly do better, so there is one fewer.
        gone: GPUs that were there when the processes started, and are not any more: each takes its process along.
    """
    return min(count, max(fewest, count - max(gone, int(stuck))))


def _check_fewest(fewest: int | None, processes: int, restarts: int) -> None:
    if fewest is None:
        return
    if not restarts:
        raise UsageError(
            f"run.min_processes is {fewest}, but nothing is started again: run.restarts is 0",
            "say how often: --restarts 3",
        )
    if fewest > processes:
        raise UsageError(
            f"run.min_processes is {fewest}, more than run.processes, {processes}",
            f"it is how few may go on when a process is lost: 1 to {processes}",
        )


def _gpus(device: str) -> int:
    """How many GPUs there are for processes to use."""
    return torch.cuda.device_count() if device.startswith(("auto", "cuda")) else 0


def _saved(run: Path) -> set[str]:
    """The states that a run, or its folds, can go on from; when they change, it has got further."""
    found = [*run.glob("checkpoints/last-*.pt"), *run.glob("fold-*/checkpoints/last-*.pt")]
    return {str(path.relative_to(run)) for path in [*found, *run.glob("fold-*/model.safetensors")]}


def reports() -> bool:
    """Whether this process says what came out: the first of several, unless the one that started them does."""
    place = find_place()
    return LAUNCHED not in os.environ and (place is None or place.first)


@contextmanager
def reported(rank: int, timeout: float) -> Iterator[None]:
    """What one of several processes does: how it fails is written down for the one that started them all, which tells
    the user, once and for all. When that one is gone the run is stopped as by SIGTERM.

    Args:
        rank: number of this process.
        timeout: seconds after which the others give up waiting for it; then it has written down where it is.
    """
    if LAUNCHED not in os.environ:
        yield
        return
    signs = Signs(Path(os.environ[SIGNS]))
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    try:
        with signs.stuck(rank, timeout):
            yield
    except Exception as error:
        if signs.failure(rank) is None:
            signs.tell(Failure.of(rank, error))
        sys.exit(error.exit_code if isinstance(error, WeftError) else 1)


def _stop_with_parent() -> None:
    """Standard input ends when the process that holds its other end does."""
    with contextlib.suppress(OSError):
        while os.read(0, 1):
            pass
    os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def _handed_on() -> Iterator[list[int]]:
    """The signals to stop that were received; the team hands them on."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = {
        number: signal.signal(number, lambda number, frame: received.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
        if signal.getsignal(number) is not None  # else it was set in C, and could not be put back
    }
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def words_of(failure: Failure, signs: Signs) -> str:
    where = signs.place(failure.rank)
    return f"{failure.message} {where}" if failure.cause == "killed" else f"failed {where}: {failure.message}"


def _failed(run: Path, failure: Failure, signs: Signs) -> WeftError:
    if failure.kind == "NotFiniteError" or failure.code == EXIT_USAGE:
        text = failure.message  # everybody's, and it says where
    elif failure.cause == "late" and failure.message.startswith("hangs"):
        text = f"process {failure.rank} hangs {signs.place(failure.rank)}{failure.message.removeprefix('hangs')}"
    else:
        text = f"process {failure.rank} {words_of(failure, signs)}"
    resumable = has_begun(run)
    hint = f"resume with: {resume_command(run)}" if resumable else "nothing was saved yet: start it again"
    if "weft train --resume" in failure.hint:
        hint = failure.hint
    elif failure.hint:
        hint = f"{failure.hint}; {hint}" if resumable else failure.hint
    error = WeftError(text, hint)
    error.exit_code = failure.code
    if failure.trace:
        error.add_note(failure.trace)
    return error


def _stopped(run: Path, signals: list[int], codes: list[int]) -> BaseException:
    if 130 in codes:
        return KeyboardInterrupt()
    reason = f" by {signal.Signals(signals[0]).name}" if signals else ""
    result = (RunDirectory.open(run).result() or {}) if is_run(run) else {}
    if result.get("status") == "stopped" and EXIT_RESUMABLE in codes and _saved(run):
        return Stopped(f"{run} was stopped{reason} and saved", f"resume with: {resume_command(run)}")
    hint = f"resume with: {resume_command(run)}" if has_begun(run) else "nothing was trained yet: start it again"
    return Stopped(f"{run} was stopped{reason} before it could save", hint)
