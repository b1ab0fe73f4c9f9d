"""How much memory something takes at most: of the process on a CPU, of the device on an accelerator."""

from __future__ import annotations

import contextlib
import gc
import sys
from pathlib import Path

import torch

from weft.engine.allocator import give_back_free_pages

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"  # proc(5): resets VmHWM to the current resident size


class PeakMemory:
    """Peak memory from `restart()` on.

    On CUDA it is what torch's allocator held at most. On a CPU it is the resident memory of this process: on Linux the
    kernel's own mark, put back at the beginning; elsewhere the highest of the process's life, so that only what exceeds
    everything before it is seen.

    Args:
        device: whose memory.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.before = 0

    def restart(self) -> None:
        """Give back what is not used, and measure from here on."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)
            self.before = torch.cuda.memory_allocated(self.device)
            return
        give_back_free_pages()
        with contextlib.suppress(OSError):  # where it cannot be put back, the peak of the process's life remains
            _CLEAR.write_text(_RESET_PEAK)
        self.before = _resident("VmRSS") or lifetime_peak()

    @property
    def peak(self) -> int:
        """Bytes in use at most."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        return _resident("VmHWM") or lifetime_peak()

    @property
    def growth(self) -> int:
        """Bytes in use at most, beyond those in use at the beginning."""
        return max(0, self.peak - self.before)


def lifetime_peak() -> int:
    """Bytes of memory that this process had at most since it began; 0 where the system does not say."""
    try:
        import resource
    except ImportError:
        return 0
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def _resident(field: str) -> int | None:
    """A line of /proc/self/status in bytes; None without such a file."""
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:")), None)
