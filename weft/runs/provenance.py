"""Where a run came from: code, environment, machine, seeds and command."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import weft
from weft.runs.code import code_digest
from weft.runs.files import write_atomically
from weft.runs.moments import looked_at_once
from weft.runs.secrets import mask_arguments

# Only these: an environment is full of secrets, and these are the ones that change numbers or speed.
_NAME_OR_VERSION = re.compile(r"^(Name|Version):(.*)$", re.MULTILINE)
_VARIABLES = (
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "CUBLAS_WORKSPACE_CONFIG",
    "PYTHONHASHSEED", "PYTORCH_CUDA_ALLOC_CONF", "NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
    "NCCL_ALGO", "NCCL_PROTO", "WORLD_SIZE", "RANK", "LOCAL_RANK", "SLURM_JOB_ID", "SLURM_ARRAY_TASK_ID",
)  # fmt: skip


def collect_provenance(
    fingerprint: str | None,
    seeds: Mapping[str, int],
    command: Sequence[str] | None = None,
    *,
    folder: Path | None = None,
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Collect what someone needs to know to make this run again, or to explain why they cannot.

    Args:
        fingerprint: the experiment's fingerprint; None where data were not digested.
        seeds: every seed of the run by name.
        command: the command line; that of this process by default. Secrets in it are masked.
        folder: folder of the experiment, whose git commit is recorded; the current one by default.
        extra: further entries, e.g. `{"data": manifest, "device": "cuda:0"}`.

    Returns:
        JSON-able entries; what this system cannot tell is None.
    """
    return {
        "fingerprint": fingerprint,
        "command": mask_arguments(list(sys.argv if command is None else command)),
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "seeds": dict(seeds),
        "versions": _versions(),
        "weft_code": code_digest(),
        "git": git_state(folder or Path.cwd()),
        "platform": _platform(),
        "cpu": _cpu(),
        "gpu": _gpus(),
        "threads": _threads(),
        "environment": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
        "packages": packages(),
        **(extra or {}),
    }


@looked_at_once
def packages() -> dict[str, str]:
    """The installed packages and their versions, by name."""
    found: dict[str, str] = {}
    for distribution in importlib.metadata.distributions():
        name, version = _name_and_version(distribution)
        if name:  # a half-removed package has no name
            found.setdefault(name, version)  # the first on the path is the one that is imported
    return dict(sorted(found.items(), key=lambda item: item[0].lower()))


def _name_and_version(distribution: importlib.metadata.Distribution) -> tuple[str, str]:
    """From the head of its metadata; parsing whole ones takes as long as importing a third of torch."""
    text = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""
    head = text.partition("\n\n")[0]
    found = {key: value.strip() for key, value in _NAME_OR_VERSION.findall(head)}
    return found.get("Name", ""), found.get("Version", "")


def write_requirements(path: Path) -> None:
    """Write the installed packages as a requirements file for pip; those from a local folder become comments.

    Args:
        path: requirements.txt of the run.
    """
    lines = [f"# Python {platform.python_version()} on {platform.system()} {platform.machine()}"]
    local = _local_packages()
    for name, version in packages().items():
        pinned = f"{name}=={version}"
        lines.append(f"# {pinned} was installed from a folder, file or repository" if name in local else pinned)
    write_atomically(path, ("\n".join(lines) + "\n").encode())


@looked_at_once
def _local_packages() -> frozenset[str]:
    installed = importlib.metadata.distributions()
    return frozenset(_name_and_version(one)[0] for one in installed if one.read_text("direct_url.json"))


@looked_at_once
def git_state(folder: Path) -> dict[str, Any] | None:
    """Commit, branch and whether tracked files differ, of the repository that holds `folder`; None without one."""
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return {
        "commit": commit,
        "branch": _git(folder, "rev-parse", "--abbrev-ref", "HEAD"),
        "dirty": None if changes is None else bool(changes),
    }


def _git(folder: Path, *arguments: str) -> str | None:
    # no hooks into the user's repository: no lock on its index, no file-system monitor started, no prompt
    command = ["git", "-c", "core.fsmonitor=false", "-C", str(folder), *arguments]
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False, env=environment)
    except (OSError, subprocess.TimeoutExpired):  # no git here, or a repository on a very slow disk
        return None
    return done.stdout.strip() if done.returncode == 0 else None


@looked_at_once
def _versions() -> dict[str, str | None]:
    def installed(name: str) -> str | None:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            return None

    versions: dict[str, str | None] = {"python": platform.python_version(), "weft": weft.__version__}
    for name in ("torch", "numpy", "monai"):
        versions[name] = installed(name)
    torch = sys.modules.get("torch")
    if torch is not None:
        versions["torch"] = str(torch.__version__)  # with the build, e.g. 2.13.0+cpu
        versions["cuda"] = torch.version.cuda
        versions["cudnn"] = str(torch.backends.cudnn.version()) if torch.backends.cudnn.is_available() else None
    return versions


def _platform() -> dict[str, str]:
    return {
        "system": platform.platform(),
        "machine": platform.machine(),
        "python": f"{platform.python_implementation()} {platform.python_version()} ({platform.python_compiler()})",
        "host": socket.gethostname(),
    }


def _cpu() -> dict[str, Any]:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = None
    if {"SC_PAGE_SIZE", "SC_PHYS_PAGES"} <= set(os.sysconf_names):
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {"model": _cpu_model(), "cores": os.cpu_count(), "usable_cores": usable, "memory_bytes": memory}


@looked_at_once
def _cpu_model() -> str | None:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text(errors="replace").splitlines():
            if line.lower().startswith(("model name", "cpu model")):
                return line.split(":", 1)[1].strip()
    if sys.platform == "darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
        return done.stdout.strip() or None
    return platform.processor() or None


def _gpus() -> list[dict[str, Any]]:
    """The CUDA devices, if torch is loaded already: collecting provenance must not be what imports it."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return []
    devices = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return [
        {"name": gpu.name, "memory_bytes": gpu.total_memory, "compute_capability": f"{gpu.major}.{gpu.minor}"}
        for gpu in devices
    ]


def _threads() -> dict[str, int | None]:
    torch = sys.modules.get("torch")
    if torch is None:
        return {"torch": None, "torch_interop": None}
    return {"torch": torch.get_num_threads(), "torch_interop": torch.get_num_interop_threads()}
