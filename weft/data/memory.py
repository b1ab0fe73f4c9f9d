"""How much memory this process may still take: of the machine, and of the share that a container or a job is given."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")
_OWN_GROUPS = Path("/proc/self/cgroup")
_MEMORY = Path("/proc/meminfo")


def available_memory() -> int:
    """Bytes of memory that are free or can be freed, within the limits of the control groups that it is in."""
    return max(0, min([_of_machine(), *_of_groups()]))


def _of_machine() -> int:
    try:
        for line in _MEMORY.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass  # no Linux
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def _of_groups() -> Iterator[int]:
    """What each group leaves that has a limit: its own one, and all above it. Cached files can be freed."""
    for folder, (limit, used, cache) in _group_folders():
        try:
            most, now = int((folder / limit).read_text()), int((folder / used).read_text())
            counts = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        except (OSError, ValueError):  # no such file, or "max": no limit here
            continue
        yield most - now + int(counts.get(cache, 0))


def _group_folders() -> Iterator[tuple[Path, tuple[str, str, str]]]:
    """Folders of the groups, with the names of their files in version 2 or 1 of the interface."""
    try:
        lines = _OWN_GROUPS.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            top, names = _GROUPS, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            top = _GROUPS / "memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        folder = top / path.lstrip("/")
        yield folder, names
        while folder != top:  # in a container the path may be that outside of it, and only the top is to be seen
            folder = folder.parent
            yield folder, names
