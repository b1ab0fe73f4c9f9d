"""Jobs of torchrun, which starts processes again by itself: every start goes on with the same run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from weft.config import Experiment
from weft.runs import job_run_path


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
