"""Jobs of torchrun, which starts processes again by itself: every start goes on with the same run."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from weft.config import Experiment
from weft.runs import job_run_path

logger = logging.getLogger("weft")

_VARIABLE = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE"
_NODES = re.compile(r"(\d+):(\d+)")
_ANCESTORS = 4  # how many processes may lie between torchrun and this one, such as a shell


def run_of_job(experiment: Experiment, environment: Mapping[str, str] = os.environ) -> Path | None:
    """The run directory of this job where none is named; None where no launcher starts its processes again.

    Args:
        experiment: `run.output` is where it lies.
        environment: says which job of torchrun this is.
    """
    job = job_of(environment)
    return None if job is None else job_run_path(experiment.path(experiment.run.output), experiment.name, job)


def job_of(environment: Mapping[str, str] = os.environ) -> str | None:
    """What names the job at all of its starts: torchrun's `--rdzv-id`. Where that was not given, it is what torchrun
    calls its folder of logs, which machines do not share, so that the first one has to stay.
    """
    job = environment.get("TORCHELASTIC_RUN_ID", "none")
    if job != "none":
        return job
    if environment.get("TORCHELASTIC_MAX_RESTARTS", "0") == "0":
        return None
    parts = Path(environment.get("TORCHELASTIC_ERROR_FILE", "")).parts
    return next((part for part in parts if part.startswith("none_")), None)


def is_restart(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether torchrun has started this process because another one failed."""
    return "TORCHELASTIC_RUN_ID" in environment and environment.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"


def warn_of_closed_door() -> None:
    """Say so where machines may come and go, but torchrun lets none in that comes back: that is decided by a variable
    which it reads when it starts, long before it starts this process. One process of each machine says it.
    """
    if os.environ.get("LOCAL_RANK", "0") != "0" or "TORCHELASTIC_RUN_ID" not in os.environ:
        return
    nodes = elastic_nodes(os.environ, _commands_above())
    if nodes is not None and shuts_out(os.environ):
        logger.warning(
            "torchrun was started with --nnodes %s, but a machine that is lost will not be let in again: torchrun "
            "shares its store. To let it, set it on every machine before torchrun is started: export %s=1",
            nodes, _VARIABLE,
        )  # fmt: skip


def shuts_out(environment: Mapping[str, str]) -> bool:
    """Whether torchrun shares the store that its machines meet at, as it does unless it is told otherwise."""
    return environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True" and environment.get(_VARIABLE) != "1"


def elastic_nodes(environment: Mapping[str, str], commands: Sequence[Sequence[str]]) -> str | None:
    """How few and how many machines torchrun was started for ("1:2"), where their number may change.

    Args:
        environment: may hold the option, as PET_NNODES.
        commands: command lines of the processes that this one descends from, the nearest first.
    """
    given = environment.get("PET_NNODES", "")
    for words in commands:
        if any(Path(word).name == "torchrun" or word == "torch.distributed.run" for word in words):
            for word, value in zip(words, [*words[1:], ""], strict=True):
                if word == "--nnodes":
                    given = value
                elif word.startswith("--nnodes="):
                    given = word.partition("=")[2]
                elif word in ("-m", "--module") and value != "torch.distributed.run":
                    break  # what follows is the program's
            break
    match = _NODES.fullmatch(given)
    return given if match is not None and match[1] != match[2] else None


def _commands_above() -> list[list[str]]:
    """Command lines of the processes that this one descends from, the nearest first; none where the system does not
    tell (only Linux does).
    """
    commands: list[list[str]] = []
    number = os.getppid()
    while number > 1 and len(commands) < _ANCESTORS:
        folder = Path("/proc", str(number))
        try:
            commands.append((folder / "cmdline").read_text(encoding="utf-8", errors="replace").split("\0"))
            stat = (folder / "stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            break
        number = int(stat.rpartition(")")[2].split()[1])
    return commands
