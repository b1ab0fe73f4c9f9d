"""Free memory is what the machine and every control group above the process leave."""

from __future__ import annotations

from pathlib import Path

import pytest

from weft.data import memory
from weft.data.memory import available_memory

GIB = 2**30


def write_group(folder: Path, names: tuple[str, str, str], limit: str, used: int, cache: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 1\n{names[2]} {cache}\n")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with 64 GiB free, and no groups yet."""
    (tmp_path / "meminfo").write_text(f"MemTotal: 1 kB\nMemAvailable: {64 * 2**20} kB\n")
    (tmp_path / "own").write_text("0::/\n")
    for name, file in {"_MEMORY": "meminfo", "_OWN_GROUPS": "own", "_GROUPS": "groups"}.items():
        monkeypatch.setattr(memory, name, tmp_path / file)
    return tmp_path


SECOND = ("memory.max", "memory.current", "inactive_file")
FIRST = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def test_without_limits_it_is_the_machines(machine: Path) -> None:
    assert available_memory() == 64 * GIB
    write_group(machine / "groups", SECOND, "max", 60 * GIB, 0)
    assert available_memory() == 64 * GIB


def test_the_tightest_group_counts_less_what_can_be_freed(machine: Path) -> None:
    (machine / "own").write_text("0::/slurm/job_7/step_0\n")
    write_group(machine / "groups" / "slurm", SECOND, str(32 * GIB), 8 * GIB, 0)
    write_group(machine / "groups" / "slurm" / "job_7", SECOND, str(16 * GIB), 12 * GIB, 3 * GIB)
    write_group(machine / "groups" / "slurm" / "job_7" / "step_0", SECOND, "max", 12 * GIB, 0)
    assert available_memory() == 7 * GIB


def test_the_first_version_of_groups_and_one_that_is_full(machine: Path) -> None:
    (machine / "own").write_text("12:cpu:/\n4:memory:/docker/abc\n")
    write_group(machine / "groups" / "memory", FIRST, str(8 * GIB), 5 * GIB, 0)  # in a container only the top is seen
    assert available_memory() == 3 * GIB
    write_group(machine / "groups" / "memory", FIRST, str(8 * GIB), 9 * GIB, 0)
    assert available_memory() == 0
