"""Signals to stop that come when nothing is trained: while data are opened, between folds, while processes meet.

In training a signal sets a flag, and the run stops at the next step boundary (`weft.engine.signals`). Elsewhere there
is no state to save, so it stops at once.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from weft.errors import EXIT_RESUMABLE, Stopped
from weft.runs import RunDirectory, resume_command

LAUNCHED = "WEFT_LAUNCHED_BY"  # set for processes that another one has started: that one reports for them
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_unheeded: list[str] = []  # names of signals that came when training was over, and what follows it was under way


class Asked(KeyboardInterrupt):
    """A signal asked to stop. Like Ctrl-C it is no `Exception`, so that nothing on the way takes it for an error.

    Args:
        name: of the signal.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name
        self.run: Path | None = None  # told on the way, where it is known


@contextmanager
def stoppable(run: Path | str | None = None) -> Iterator[None]:
    """Inside, SIGTERM and SIGINT end in `Stopped`, which says how to go on. Only the main thread can be asked.

    Args:
        run: the run directory, where it is known already.

    Raises:
        Stopped: a signal came.
    """
    _unheeded.clear()
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ours = [number for number in _SIGNALS if signal.getsignal(number) is not None]  # not what was set in C
    before = {number: signal.signal(number, _ask) for number in ours}
    try:
        yield
    except Asked as asked:
        if LAUNCHED in os.environ:
            sys.exit(EXIT_RESUMABLE)
        path = asked.run or (Path(run) if run is not None else None)
        raise stopped(asked.name, path) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def remember(name: str | None) -> None:
    """Remember a signal that came when training was over; `heed` asks to stop where that is next possible."""
    if name is not None:
        _unheeded.append(name)


def heed() -> None:
    """Stop if a signal came that nobody has followed yet.

    Raises:
        Asked: it did.
    """
    if _unheeded:
        raise Asked(_unheeded[0])


def stopped(name: str, run: Path | None) -> Stopped:
    """The error that says how to go on with what a signal stopped.

    Args:
        name: of the signal.
        run: the run directory; None where there is none yet.
    """
    if run is None or not has_begun(run):
        return Stopped(f"stopped by {name} before training began: nothing was saved", "give the same command again")
    folds = RunDirectory(run).folds()
    done = sum((fold / "model.safetensors").exists() for fold in folds)
    where = f", with {done} fold{'' if done == 1 else 's'} finished" if folds else ""
    return Stopped(f"stopped by {name} outside of training{where}", f"resume with: {resume_command(run)}")


def has_begun(run: Path) -> bool:
    """Whether there is something to go on with."""
    directory = RunDirectory(run)
    return directory.provenance_file.exists() or directory.summary_file.exists()


@contextmanager
def leaving_at_once(*, silent: bool) -> Iterator[None]:
    """Inside, a signal to stop ends this process, whatever it waits for: processes that wait for one another do so
    outside of Python, where no signal is heard, and have nothing to lose yet.

    Args:
        silent: somebody else says what became of this process.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    watcher = threading.Thread(target=_leave, args=(reader, silent), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writer)
        watcher.join()
        os.close(reader)


def _leave(reader: int, silent: bool) -> None:
    while received := os.read(reader, 1):
        if received[0] in _SIGNALS:
            error = stopped(signal.Signals(received[0]).name, None)
            if not silent:
                os.write(2, f"stopped: {error}\n".encode())
            os._exit(EXIT_RESUMABLE)


def _ask(number: int, frame: FrameType | None) -> None:
    if multiprocessing.parent_process() is not None:  # a forked helper, say of a pool: it ends as if it had no handler
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        return
    raise Asked(signal.Signals(number).name)
