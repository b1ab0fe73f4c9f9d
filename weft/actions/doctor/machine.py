"""What this machine offers: torch and its devices, memory, limits, the folder for runs.

Only the standard library is imported here, and torch only in a process of its own: it may be missing or broken, or take
the process down with it.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

_TORCH_SECONDS = 300  # the first import from a slow network disk may take minutes

_TORCH = """
import json, sys, warnings
warnings.simplefilter("ignore")
import torch
told = {"version": torch.__version__, "cuda": torch.version.cuda, "threads": torch.get_num_threads(), "devices": []}

def tell(name, **more):
    device = {"name": name, **more}
    try:
        product = torch.ones(8, 8, device=name) @ torch.ones(8, 8, device=name)
        device["works"] = float(product.sum().cpu()) == 512.0
    except Exception as error:
        device["works"], device["error"] = False, f"{type(error).__name__}: {error}".splitlines()[0]
    told["devices"].append(device)

tell("cpu", capability=getattr(torch.backends.cpu, "get_cpu_capability", str)())
for number in range(torch.cuda.device_count()):
    card = torch.cuda.get_device_properties(number)
    tell(f"cuda:{number}", model=card.name, memory=card.total_memory, capability=f"{card.major}.{card.minor}")
if torch.backends.mps.is_available():
    tell("mps")
print(json.dumps(told))
"""


def torch_facts() -> dict[str, Any]:
    """What torch says of itself, asked in another process: {"version", "cuda", "threads", "devices"}, or {"error"}."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", _TORCH], capture_output=True, text=True, timeout=_TORCH_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return {"error": f"importing it took longer than {_TORCH_SECONDS} s"}
    if done.returncode == 0:
        facts: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return facts
    if done.returncode < 0:
        return {"error": f"importing it ended the process with {signal.Signals(-done.returncode).name}"}
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    return {"error": lines[-1] if lines else f"importing it ended with exit code {done.returncode}"}


def has_nvidia_device() -> bool:
    """Whether the system shows an NVIDIA device, whatever torch says."""
    return Path("/dev/nvidia0").exists() or shutil.which("nvidia-smi") is not None


def limits() -> dict[str, Any]:
    """Cores, memory, shared memory and open files; what the system does not tell is None."""
    soft, hard = _open_files()
    shared = _space(Path("/dev/shm"))
    return {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "container_cores": _container_cores(),
        "memory": _memory("MemTotal"),
        "memory_available": _memory("MemAvailable"),
        "container_memory": _container_memory(),
        "shared_memory": shared["total"] if shared else None,
        "shared_memory_free": shared["free"] if shared else None,
        "open_files": soft,
        "open_files_at_most": hard,
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
    }


def folder_facts(folder: Path) -> dict[str, Any]:
    """Whether a folder (or, where it is not there yet, the one that it would be made in) can be written to.

    Returns:
        {"folder", "existing", "writable", "locks", "free", "error"}; nothing is left behind.
    """
    folder = folder.expanduser().absolute()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    facts: dict[str, Any] = {
        "folder": str(folder),
        "existing": str(existing),
        "writable": False,
        "locks": False,
        "free": None,
        "error": None,
    }
    space = _space(existing)
    facts["free"] = space["free"] if space else None
    try:
        with tempfile.TemporaryFile(prefix=".weft-doctor-", dir=existing) as file:
            file.write(b"weft")
            file.flush()
            facts["writable"] = True
            facts["locks"] = _locks(file.fileno())
    except OSError as error:
        facts["error"] = error.strerror or str(error)
    return facts


def _locks(descriptor: int) -> bool:
    try:
        import fcntl
    except ImportError:  # Windows has other locks
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _space(path: Path) -> dict[str, int] | None:
    try:
        usage = shutil.disk_usage(path)
    except OSError:
        return None
    return {"total": usage.total, "free": usage.free}


def _open_files() -> tuple[int | None, int | None]:
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return None, None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    endless = resource.RLIM_INFINITY
    return (None if soft == endless else soft), (None if hard == endless else hard)


def _memory(name: str) -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:  # no Linux
        if name != "MemTotal" or not hasattr(os, "sysconf"):
            return None
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), None)


def _control_group(name: str) -> str | None:
    try:
        return Path("/sys/fs/cgroup", name).read_text(encoding="ascii").strip()
    except OSError:
        return None


def _container_cores() -> float | None:
    """The share of cores that a container is given; None without a limit."""
    quota, _, period = (_control_group("cpu.max") or "max").partition(" ")
    return None if quota == "max" else round(int(quota) / int(period), 2)


def _container_memory() -> int | None:
    """The memory that a container is given; None without a limit."""
    given = _control_group("memory.max") or "max"
    return None if given == "max" else int(given)
