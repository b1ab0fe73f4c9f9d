"""Starting several processes on this machine that train together, and saying what became of them."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from weft.engine.processes import find_place
from weft.errors import EXIT_RESUMABLE, Stopped, WeftError
from weft.monitor import HEARTBEATS
from weft.runs import RunDirectory, is_run, resume_command

LAUNCHED = "WEFT_LAUNCHED_BY"  # set for processes that `launch` started: it reports for them


def launch(arguments: Sequence[str], run: Path, *, processes: int, restarts: int = 0) -> None:
    """Run `weft ARGUMENTS` in several processes (torchrun's elastic agent does it) until they end.

    Args:
        arguments: of the command, such that it goes on with `run` where that exists already.
        run: the run directory that they share.
        processes: how many.
        restarts: how often all are started again, from the last checkpoint, when one of them fails.

    Raises:
        Stopped: the run was asked to stop and can be resumed.
        WeftError: it failed; the process that failed first is named with its last step.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # what it has to say is said below
    os.environ[LAUNCHED] = str(os.getpid())
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        max_restarts=restarts,
        monitor_interval=0.1,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "weft", *arguments)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        _explain(run, rank, failure.exitcode)
    except SignalException as error:
        _explain(run, None, -int(error.sigval))
    finally:
        del os.environ[LAUNCHED]


def reports() -> bool:
    """Whether this process says what came out: the first of several, unless the one that started them does."""
    place = find_place()
    return place is None or (place.first and LAUNCHED not in os.environ)


def _explain(run: Path, rank: int | None, code: int) -> None:
    result = _result_of(run)
    if result.get("status") == "stopped" or code == EXIT_RESUMABLE:
        raise Stopped(f"{run} was stopped and saved", f"resume with: {resume_command(run)}")
    resumable = any((run / "checkpoints").glob("last-*.pt"))
    hint = f"resume with: {resume_command(run)}" if resumable else "nothing was saved yet: start it again"
    if rank is None:
        raise WeftError(f"the processes were ended by {signal.Signals(-code).name}", hint)
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"failed with exit code {code} (see above)"
    raise WeftError(f"process {rank} {how}{_last_step(run, rank)}", hint)


def _result_of(run: Path) -> dict[str, Any]:
    return (RunDirectory.open(run).result() or {}) if is_run(run) else {}


def _last_step(run: Path, rank: int) -> str:
    """Where the process was when it was last heard of."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        beat = json.loads((run / HEARTBEATS / f"{rank}.json").read_text(encoding="utf-8"))
        return f" after step {beat['step']} (epoch {beat['epoch'] + 1})"
    return " before its first step"
